#!/usr/bin/env python3
"""Three claims of the Kimi K2 and Moonlight reports in miniature: runs them, draws them, writes down what came out.

    cargo build --release
    python3 studies/studies.py [--k2 target/release/k2] [muon_against_adamw | qk_clip | sparsity] ...

Every run is `k2 train --config recipes/study.toml` with other values (`--set`), so any of them can be repeated alone;
runs that are done already are not repeated. A study's folder gets `numbers.md` and the curves of its first seed.
Needs only Python.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

HERE = pathlib.Path(__file__).parent
RUNS = pathlib.Path("runs/studies")
SEEDS = [1, 2, 3]
RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]


class Run:
    """One training run's metrics."""

    def __init__(self, folder):
        lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
        self.folder = folder
        self.steps = [line for line in lines if "loss" in line]
        self.held_out = [(line["tokens"], line["validation_loss"]) for line in lines if "validation_loss" in line]
        self.loss = self.held_out[-1][1]
        self.tokens = self.steps[-1]["tokens"]
        self.seconds = sum(step["seconds"] for step in self.steps)
        self.max_logit = max(step["max_logit"] for step in self.steps)
        self.clipped = sum(step["clipped_heads"] for step in self.steps)

    def tokens_to(self, loss):
        """Tokens after which the held-out loss is as low as this, between two evaluations on a line; None if never."""
        for (t0, l0), (t1, l1) in zip(self.held_out, self.held_out[1:]):
            if l1 <= loss:
                return t1 if l0 <= loss else t0 + (t1 - t0) * (l0 - loss) / (l0 - l1)
        return None


def train(k2, name, seed, **values):
    """Trains unless it has been done, and reads the metrics. `values`: keys of the recipe with `__` for the dot."""
    folder = RUNS / name
    if not (folder / "model").exists():
        sets = {"seed": seed, "data.seed": seed, **{key.replace("__", "."): value for key, value in values.items()}}
        command = [k2, "train", "--config", "recipes/study.toml", "--run", str(folder)]
        if (folder / "checkpoints").exists():
            command.append("--resume")
        for key, value in sets.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        print(" ".join(command), flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Run(folder)


def spread(values):
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def report(k2, study, runs, lines):
    """Writes the numbers, and the curves of up to eight runs."""
    folder = HERE / study
    folder.mkdir(exist_ok=True)
    (folder / "numbers.md").write_text("\n".join(lines) + "\n")
    paths = [str(run.folder) for run in runs[:8]]
    subprocess.run([k2, "train", "plot", *paths, "-o", str(folder / "curves")], check=True, stdout=subprocess.DEVNULL)
    print("\n".join(lines))


def muon_against_adamw(k2):
    """The best of AdamW's learning rates is given to both; how soon is Muon where AdamW ends? And Muon at its own best."""
    of = lambda rule, rate, seed: train(k2, f"{rule}-{rate:g}-seed{seed}", seed, optimizer__matrices=rule, schedule__peak_lr=rate)
    search = {rule: {rate: of(rule, rate, 1) for rate in RATES} for rule in ("adamw", "muon")}
    best = {rule: min(runs, key=lambda rate: runs[rate].loss) for rule, runs in search.items()}
    lines = ["| learning rate | AdamW, held-out loss, seed 1 | Muon |", "|---|---|---|"]
    lines += [f"| {rate:g} | {search['adamw'][rate].loss:.4f} | {search['muon'][rate].loss:.4f} |" for rate in RATES]
    adamw = [of("adamw", best["adamw"], seed) for seed in SEEDS]
    for rate in dict.fromkeys([best["adamw"], best["muon"]]):
        muon = [of("muon", rate, seed) for seed in SEEDS]
        lines += ["", f"AdamW at {best['adamw']:g}, Muon at {rate:g}:", ""]
        lines += ["| seed | AdamW | Muon | tokens to AdamW's last loss | wall time to it |", "|---|---|---|---|---|"]
        for seed, a, m in zip(SEEDS, adamw, muon):
            tokens = m.tokens_to(a.loss)
            share = "never" if tokens is None else f"{100 * tokens / a.tokens:.0f} %"
            time = "never" if tokens is None else f"{100 * tokens / m.tokens * m.seconds / a.seconds:.0f} %"
            lines.append(f"| {seed} | {a.loss:.4f} | {m.loss:.4f} | {share} | {time} |")
        lines.append(f"| all | {spread([run.loss for run in adamw])} | {spread([run.loss for run in muon])} | | |")
    report(k2, "muon_against_adamw", [adamw[0], of("muon", best["muon"], 1)], lines)


def qk_clip(k2):
    """A learning rate at which attention logits grow; the threshold in miniature is 20 instead of 100."""
    hot = dict(schedule__peak_lr=2e-2, schedule__final_lr=2e-3, optimizer__weight_decay=0.0)
    with_clip = [train(k2, f"clip-seed{seed}", seed, optimizer__qk_clip_tau=20.0, **hot) for seed in SEEDS]
    without = [train(k2, f"no-clip-seed{seed}", seed, optimizer__qk_clip_tau=1e6, **hot) for seed in SEEDS]
    lines = ["| seed | largest logit without | with, threshold 20 | loss without | with | heads clipped |", "|---|---|---|---|---|---|"]
    for seed, w, n in zip(SEEDS, with_clip, without):
        lines.append(f"| {seed} | {n.max_logit:.1f} | {w.max_logit:.1f} | {n.loss:.4f} | {w.loss:.4f} | {w.clipped} |")
    lines.append(f"| all | | | {spread([run.loss for run in without])} | {spread([run.loss for run in with_clip])} | |")
    report(k2, "qk_clip", [without[0], with_clip[0]], lines)


def sparsity(k2):
    """Two of 8, 16, 32 and 64 experts: the same computation for a token, more and more to choose from."""
    runs, lines = [], ["| experts | held-out loss, seeds 1 and 2 |", "|---|---|"]
    for experts in [8, 16, 32, 64]:
        of = [train(k2, f"experts-{experts}-seed{seed}", seed, model__n_routed_experts=experts) for seed in SEEDS[:2]]
        lines.append(f"| {experts} | {spread([run.loss for run in of])} |")
        runs.append(of[0])
    report(k2, "sparsity", runs, lines)


STUDIES = {study.__name__: study for study in (muon_against_adamw, qk_clip, sparsity)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k2", default="target/release/k2")
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], metavar="STUDY")
    args = parser.parse_args()
    for name in args.studies or STUDIES:
        print(f"== {name}")
        STUDIES[name](args.k2)


if __name__ == "__main__":
    main()
