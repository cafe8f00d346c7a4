#!/usr/bin/env python3
"""Makes fixtures/model: tiny random checkpoints in the official layouts, with the outputs of `kimi_k2.py`.

    pip install -r reference/requirements.txt
    python reference/make_fixtures.py [NAME ...] [--out FOLDER] [--seed-offset N]

Each weight is drawn, rounded to what the format stores, and read back; the outputs belong to what is stored. A
draw is thrown away if a correct float32 engine could legitimately differ from it: small margins between chosen and
rejected experts or between the two best tokens, or logits that rounding alone moves. So is one on which a typical
mistake would hardly show. The names and the meaning of all outputs: fixtures/README.md. The same seed gives the same
weights and prompts, and the same outputs but for the last bits; another `--seed-offset` gives another set.
"""
import argparse
import base64
import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np

import checkpoint
import kimi_k2
import safetensors_file as st
from check_fixtures import greedy
from mistakes import cost_of_mistakes

OUT = Path(__file__).resolve().parent.parent / "fixtures/model"
GREEDY_TOKENS = 32
MIN_ROUTING_MARGIN, MIN_GREEDY_MARGIN, MAX_NOISE, MIN_DISTINCT = 1e-4, 4e-3, 1e-4, 12
MIN_COST_OF_A_MISTAKE = 0.1
DETAILS = ("attn_out", "mlp_out", "cache_kv_latent", "cache_k_rope")  # left out where prompts are long

INSTRUCT_ROPE = {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0, "mscale": 1.0, "mscale_all_dim": 1.0,
                 "original_max_position_embeddings": 4096, "type": "yarn"}
THINKING_ROPE = INSTRUCT_ROPE | {"factor": 64.0}
K25_ROPE = THINKING_ROPE | {"beta_fast": 32.0}

# Kimi K2 in small. Widths avoid powers of two and multiples of 16 where the format allows it.
SMALL = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "aux_loss_alpha": 0.001, "bos_token_id": 112, "eos_token_id": 114, "pad_token_id": 127, "ep_size": 1,
    "first_k_dense_replace": 1,
    "hidden_act": "silu", "hidden_size": 44, "initializer_range": 0.02, "intermediate_size": 52, "kv_lora_rank": 12,
    "max_position_embeddings": 131072, "model_type": "kimi_k2", "moe_intermediate_size": 20, "moe_layer_freq": 1,
    "n_group": 1, "n_routed_experts": 7, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 3,
    "num_experts_per_tok": 3, "num_hidden_layers": 3, "num_key_value_heads": 3, "num_nextn_predict_layers": 0,
    "pretraining_tp": 1, "q_lora_rank": 18, "qk_nope_head_dim": 10, "qk_rope_head_dim": 8, "rms_norm_eps": 1e-6,
    "rope_scaling": INSTRUCT_ROPE, "rope_theta": 50000.0, "routed_scaling_factor": 2.827, "scoring_func": "sigmoid",
    "seq_aux": True, "tie_word_embeddings": False, "topk_group": 1, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "use_cache": True, "v_head_dim": 14, "vocab_size": 128,
}
INT4_WIDTHS = {"hidden_size": 64, "moe_intermediate_size": 32, "n_routed_experts": 6, "rms_norm_eps": 1e-5,
               "max_position_embeddings": 262144}
LONG = {"hidden_size": 40, "num_hidden_layers": 2, "qk_rope_head_dim": 24, "max_position_embeddings": 2048}


def long_rope(**changes):
    return INSTRUCT_ROPE | {"original_max_position_embeddings": 48} | changes


DEFAULTS = {"format": "bf16", "shards": 1, "shape_dtype": "I64", "k25": False, "tokenizer": False, "tokens": 24,
            "tokens_2": 13}

# name -> what differs from SMALL, beside it what differs from DEFAULTS.
FIXTURES = {
    "bf16": {"config": {}},
    "bf16_sharded": {"config": {"num_attention_heads": 5, "qk_nope_head_dim": 12, "v_head_dim": 6,
                                "first_k_dense_replace": 2, "hidden_size": 36}, "shards": 3},
    "fp8": {"config": {"hidden_size": 136, "intermediate_size": 144, "num_attention_heads": 5, "qk_nope_head_dim": 22,
                       "v_head_dim": 26, "kv_lora_rank": 20, "q_lora_rank": 40, "num_hidden_layers": 2,
                       "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}, "format": "fp8"},
    "int4": {"config": INT4_WIDTHS | {"rope_scaling": THINKING_ROPE}, "format": "int4"},
    "int4_k25": {"config": INT4_WIDTHS | {"rope_scaling": K25_ROPE, "num_attention_heads": 5, "hidden_size": 32,
                                          "moe_intermediate_size": 64},
                 "format": "int4", "shape_dtype": "I32", "k25": True},
    "yarn_beta1": {"config": LONG | {"rope_scaling": long_rope()}, "tokens": 144},
    "yarn_beta32": {"config": LONG | {"rope_scaling": long_rope(beta_fast=32.0, factor=64.0)}, "tokens": 144},
    "yarn_mscale": {"config": LONG | {"rope_scaling": long_rope(beta_fast=32.0, factor=40.0, mscale_all_dim=0.5),
                                      "norm_topk_prob": False}, "tokens": 112},
    "noqlora_groups": {"config": {"q_lora_rank": None, "rope_scaling": None, "n_group": 3, "topk_group": 2,
                                  "n_routed_experts": 9, "n_shared_experts": 2, "routed_scaling_factor": 2.446,
                                  "max_position_embeddings": 8192}},
    "bytes": {"config": {"vocab_size": 512, "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 511,
                         "hidden_size": 32, "num_hidden_layers": 2, "n_routed_experts": 6},
              "tokenizer": True, "tokens": 18},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIXTURES)}; default: all")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed-offset", type=int, default=0)
    args = parser.parse_args()
    for unknown in set(args.names) - FIXTURES.keys():
        parser.error(f"no fixture is called {unknown!r}")
    for number, name in enumerate(FIXTURES):
        if not args.names or name in args.names:
            make(name, FIXTURES[name], 3000 + number + args.seed_offset, args.out / name)


def make(name, spec, seed, folder):
    spec = DEFAULTS | spec
    config = SMALL | spec["config"]
    config["num_key_value_heads"] = config["num_attention_heads"]
    for attempt in range(1000):
        rng = np.random.default_rng([seed, attempt])
        stored = draw_checkpoint(rng, config, spec)
        expected, measured, unfit = evaluate(rng, config, checkpoint.decode(stored), spec)
        if not unfit:
            break
    else:
        raise SystemExit(f"{name}: no fit draw in 1000; the last one: {unfit}")
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(folder, config, stored, spec, rng)
    st.write(folder / "expected.safetensors", expected)
    meta = {"name": name, "seed": seed, "attempt": attempt, "spec": spec, "versions": {"numpy": np.__version__}}
    (folder / "meta.json").write_text(json.dumps(meta | measured, indent=1, default=float) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: attempt {attempt}, {size / 1000:.0f} kB, routing margin {measured['min_routing_margin']:.1e}, "
          f"greedy margin {measured['min_greedy_margin']:.1e}, float32 noise {measured['float32_noise']:.1e}")


# --- drawing ----------------------------------------------------------------------------------------

def draw_checkpoint(rng, config, spec):
    stored = {}
    for name, shape in checkpoint.shapes(config):
        stored |= checkpoint.encode(name, draw(rng, name, shape), spec["format"], spec["shape_dtype"])
    return stored


def draw(rng, name, shape):
    """Activations stay near unit size, attention and routing decide without saturating, logits deviate by 1.5."""
    if name.endswith("e_score_correction_bias"):
        return rng.normal(0, 0.15, shape)
    if len(shape) == 1:
        return rng.normal(1, 0.2, shape)
    if name == "model.embed_tokens.weight":
        return rng.normal(0, 1, shape)
    gain = 1.5 if name == "lm_head.weight" else 1.4 if name.endswith("mlp.gate.weight") else rng.uniform(0.8, 1.6)
    rows = np.exp(rng.normal(0, 0.2, (shape[0], 1)))
    return rng.normal(0, gain / np.sqrt(shape[1]), shape) * rows


# --- outputs, and whether the draw is fit -----------------------------------------------------------

def evaluate(rng, config, weights, spec):
    """The tensors of `expected.safetensors`, what was measured, and why the draw is unfit (if it is)."""
    prompts = [prompt(rng, config, spec[length]) for length in ("tokens", "tokens_2")]
    traces = [{}, {}, {}]
    logits, logits_2 = (kimi_k2.forward(config, weights, ids, trace) for ids, trace in zip(prompts, traces))
    chosen = continuation(config, weights, prompts[0], traces[2])
    if chosen["greedy_margin"].min() < MIN_GREEDY_MARGIN:  # spares the slow measurements
        return None, None, "greedy margin"
    measured = measure(config, weights, prompts[0], logits, traces)
    measured["min_greedy_margin"] = chosen["greedy_margin"].min()
    measured["greedy_distinct"] = len(np.unique(chosen["greedy_tokens"]))
    found = {"input_ids": prompts[0], "input_ids_2": prompts[1], "logits": logits, "logits_2": logits_2}
    return expected(found | chosen | traces[0], spec), measured, unfitness(measured)


def continuation(config, weights, ids, trace):
    """The greedy outputs; `trace` is left with the last step's, which saw every token."""
    for _ in range(GREEDY_TOKENS):
        trace.clear()
        logits = kimi_k2.forward(config, weights, ids, trace)
        ids = np.append(ids, logits[-1].argmax())
    chosen = greedy(logits[-GREEDY_TOKENS:])
    assert (chosen["greedy_tokens"] == ids[-GREEDY_TOKENS:]).all()
    return chosen


def expected(found, spec):
    """`expected.safetensors`: name -> (dtype, numbers), integers first."""
    found = found | {name: found[name][0] for name in ("router_layers", "final_hidden")}  # lists of one
    dtypes = dict.fromkeys(("input_ids", "input_ids_2", "greedy_tokens", "greedy_top2", "router_layers"), "I64")
    dtypes["router_indices"] = "I32"
    kept = found.keys() - (() if spec["tokens"] <= 32 else DETAILS)
    tensors = {name: (dtypes.get(name, "F32"), np.array(found[name])) for name in kept}
    return dict(sorted(tensors.items(), key=lambda item: (-np.dtype(st.PLAIN[item[1][0]]).itemsize, item[0])))


def prompt(rng, config, length):
    """Starts with bos, then anything below the control tokens."""
    ordinary = min(config["bos_token_id"], config["vocab_size"])
    return np.append(config["bos_token_id"], rng.integers(0, ordinary, length - 1))


def measure(config, weights, ids, logits, traces):
    narrow = {name: weight.astype(np.float32) for name, weight in weights.items()}
    noise = [np.abs(kimi_k2.forward(config, narrow, ids) - logits).max()]
    one_ulp_off = np.nextafter(kimi_k2.inverse_frequencies(config).astype(np.float32), np.float32(0))
    with mock.patch.object(kimi_k2, "inverse_frequencies", lambda config: one_ulp_off):
        noise.append(np.abs(kimi_k2.forward(config, weights, ids) - logits).max())
    routed = np.array(traces[0]["router_logits"])
    unbiased = np.sort(np.argsort(-routed, axis=-1)[..., :config["num_experts_per_tok"]], axis=-1)
    return {
        "softmax_scale": kimi_k2.softmax_scale(config), "rope_cos_sin_factor": kimi_k2.cos_sin_factor(config),
        "rope_inv_freq": list(kimi_k2.inverse_frequencies(config)), "rope_interleave": True,
        "latent_norm_eps": kimi_k2.LATENT_NORM_EPS, "logits_std": logits.std(), "logits_absmax": np.abs(logits).max(),
        "float32_noise": max(noise), "min_routing_margin": min(np.min(trace["router_margin"]) for trace in traces),
        "routing_changed_by_bias": (unbiased != np.array(traces[0]["router_indices"])).any(axis=-1).mean(),
        "lowest_chosen_score": min(lowest_chosen_score(weights, trace) for trace in traces),
        "experts_used_per_moe_layer": [len(np.unique(layer)) for layer in traces[0]["router_indices"]],
        "cost_of_mistakes": cost_of_mistakes(config, weights, ids, logits),
    }


def lowest_chosen_score(weights, trace):
    layers = zip(trace["router_layers"][0], trace["router_logits"], trace["router_indices"])
    biased = ((1 / (1 + np.exp(-logits)) + weights[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"], chosen)
              for layer, logits, chosen in layers)
    return min(np.take_along_axis(scores, chosen, axis=-1).min() for scores, chosen in biased)


def unfitness(measured):
    """Why a correct engine might differ, or a wrong one pass."""
    if measured["min_routing_margin"] < MIN_ROUTING_MARGIN:
        return "routing margin"
    if measured["float32_noise"] > MAX_NOISE:
        return "float32 noise"
    if measured["greedy_distinct"] < MIN_DISTINCT:
        return "greedy continuation repeats itself"
    # Masked groups count -inf in one published implementation, 0 in another: the same while chosen scores are positive.
    if measured["lowest_chosen_score"] <= 0:
        return "a chosen score is not positive"
    easy = {mistake: cost for mistake, cost in measured["cost_of_mistakes"].items() if cost < MIN_COST_OF_A_MISTAKE}
    return f"mistakes that hardly show: {easy}" if easy else None


# --- the rest of the folder -------------------------------------------------------------------------

def write_checkpoint(folder, config, stored, spec, rng):
    quantization = checkpoint.QUANTIZATION[spec["format"]]
    config = config | ({"quantization_config": quantization} if quantization else {})
    if spec["k25"]:
        config, stored = nested(config), {"language_model." + name: tensor for name, tensor in stored.items()}
        stored |= vision_tower(rng)
    checkpoint.write(folder, config, stored, spec["shards"])
    if spec["tokenizer"]:
        write_tokenizer(folder)


def nested(config):
    """As K2.5 ships: the text model's config inside the wrapper's."""
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = {"patch_size": 14, "vt_hidden_size": 8}
    return {"architectures": ["KimiK25ForConditionalGeneration"], "dtype": "bfloat16", "model_type": "kimi_k25", **ids,
            "text_config": config, "tie_word_embeddings": False, "vision_config": vision}


def vision_tower(rng):
    """A few tensors of the other half of K2.5, to be passed over."""
    shapes = {"vision_tower.patch_embed.proj.weight": (8, 3, 14, 14),
              "vision_tower.encoder.blocks.0.norm0.weight": (8,), "mm_projector.proj.0.weight": (8, 8)}
    return {name: ("BF16", st.bf16(rng.normal(0, 0.1, shape))) for name, shape in shapes.items()}


# Kimi's named special tokens by their place after the ranks (facts of the K2.5 tokenizer_config.json).
SPECIAL = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 6: "<|start_header_id|>",
           7: "<|end_header_id|>", 9: "[EOT]", 10: "<|im_system|>", 11: "<|tool_calls_section_begin|>",
           12: "<|tool_calls_section_end|>", 13: "<|tool_call_begin|>", 14: "<|tool_call_argument_begin|>",
           15: "<|tool_call_end|>", 17: "<|im_middle|>", 254: "[UNK]", 255: "[PAD]"}


def write_tokenizer(folder):
    """The smallest tokenizer of Kimi's kind: one token per byte, then the 256 special ids (K2-Instruct's table)."""
    ranks = [base64.b64encode(bytes([byte])).decode() + f" {byte}\n" for byte in range(256)]
    (folder / "tiktoken.model").write_text("".join(ranks))
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    table = {str(256 + at): {"content": name, **token, "special": "tool_call" not in name}
             for at, name in SPECIAL.items()}
    config = {"added_tokens_decoder": table, "bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]",
              "unk_token": "[UNK]", "model_max_length": 131072, "tokenizer_class": "TikTokenTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
