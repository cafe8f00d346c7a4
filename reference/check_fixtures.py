#!/usr/bin/env python3
"""Compares `kimi_k2.py` (float64) with the recorded outputs of fixture folders.

    pip install -r reference/requirements.txt
    python reference/check_fixtures.py [FOLDER-OF-FOLDERS]        # default: fixtures/model
    python reference/check_fixtures.py FOLDERS --naive-only       # faster for long prompts

Per folder: the worst error of every tensor in `expected.safetensors` over naive and absorbed attention, both
prompts and the greedy continuation. Chosen experts and greedy tokens must be equal, the rest within 1e-4. Also that
the official safetensors package reads every file. Run it on fixtures of another implementation's making to check
the reference itself.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
import safetensors

import checkpoint
import kimi_k2
import safetensors_file as st

FOLDERS = Path(__file__).resolve().parent.parent / "fixtures/model"
TOLERANCE = 1e-4
EXACT = {"router_layers", "router_indices", "greedy_tokens", "greedy_top2"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="?", type=Path, default=FOLDERS)
    parser.add_argument("--naive-only", action="store_true")
    args = parser.parse_args()
    folders = sorted(path.parent for path in args.folders.glob("*/expected.safetensors"))
    if not folders:
        sys.exit(f"{args.folders}: no folder in it has an expected.safetensors")
    forms = [False] if args.naive_only else [False, True]
    sys.exit(not all([check(folder, forms) for folder in folders]))


def check(folder, forms):
    config, weights = checkpoint.read(folder)
    expected = {name: st.numbers(*tensor) for name, tensor in st.read(folder / "expected.safetensors").items()}
    official_package_reads(folder)
    worst = {}
    for absorbed in forms:
        for name, value in outputs(config, weights, expected, absorbed).items():
            if name in expected:
                error = np.abs(value - expected[name]).max()
                worst[name] = max(worst.get(name, 0), error)
    missing = sorted(expected.keys() - worst.keys() - {"input_ids", "input_ids_2"})
    failed = [name for name, error in worst.items() if not error <= (0 if name in EXACT else TOLERANCE)]
    errors = " ".join(f"{name} {error:.1e}" for name, error in worst.items())
    print(f"{'FAIL' if failed or missing else 'ok  '} {folder.name:18}", errors)
    for name in failed + missing:
        print(f"     {name}:", "not computed" if name in missing else f"differs by {worst[name]:.3g}")
    return not failed and not missing


def outputs(config, weights, expected, absorbed):
    """What `expected.safetensors` should hold, by its names. The continuation is fed its recorded tokens at once."""
    trace = {}
    logits = kimi_k2.forward(config, weights, expected["input_ids"], trace, absorbed)
    once = {name: np.array(trace.pop(name)[0]) for name in ("final_hidden", "router_layers")}
    found = {name: np.array(layers) for name, layers in trace.items()} | once | {"logits": logits}
    found["logits_2"] = kimi_k2.forward(config, weights, expected["input_ids_2"], None, absorbed)
    tokens = expected["greedy_tokens"]
    continued = kimi_k2.forward(config, weights, np.concatenate([expected["input_ids"], tokens[:-1]]), None, absorbed)
    return found | greedy(continued[-len(tokens):])


def greedy(logits):
    """The greedy outputs from the logits [n, V] that each token was picked from."""
    top2 = np.argsort(-logits, axis=-1)[:, :2]
    best = np.take_along_axis(logits, top2, axis=-1)
    margin = best[:, 0] - best[:, 1]
    return {"greedy_tokens": top2[:, 0], "greedy_top2": top2, "greedy_margin": margin, "greedy_logits": logits}


def official_package_reads(folder):
    for file in folder.glob("*.safetensors"):
        official = dict(safetensors.deserialize(file.read_bytes()))
        ours = st.read(file)
        assert official.keys() == ours.keys(), file
        for name, (dtype, codes) in ours.items():
            assert official[name]["dtype"] == dtype and bytes(official[name]["data"]) == codes.tobytes(), (file, name)


if __name__ == "__main__":
    main()
