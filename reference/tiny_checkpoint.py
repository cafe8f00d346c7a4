#!/usr/bin/env python3
"""Makes crates/weights/tests/data/tiny: a two-layer checkpoint in the official layout for tests of the reader.

    pip install numpy
    python reference/tiny_checkpoint.py && python reference/make_gguf.py --committed

The weights are random multiples of 1/64 below 1: exact in BF16 and F16 alike, so that a conversion between
them can be compared by bits. Nothing is meant to be computed with it.
"""
import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/weights/tests/data/tiny"

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "hidden_act": "silu",
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 32,
    "num_hidden_layers": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 8, "v_head_dim": 32, "n_routed_experts": 3, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "norm_topk_prob": True,
    "scoring_func": "sigmoid", "routed_scaling_factor": 2.827, "rms_norm_eps": 1e-6, "rope_theta": 50000.0,
    "rope_scaling": {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 1.0,
                     "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    "max_position_embeddings": 131072, "tie_word_embeddings": False, "attention_bias": False,
    "bos_token_id": 60, "eos_token_id": 61, "pad_token_id": 63,
}


def shapes(c):
    hidden, heads, latent, rope = (c[k] for k in ("hidden_size", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim"))
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        yield f"model.layers.{layer}.input_layernorm.weight", (hidden,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (hidden,)
        yield attention + "q_a_proj.weight", (c["q_lora_rank"], hidden)
        yield attention + "q_a_layernorm.weight", (c["q_lora_rank"],)
        yield attention + "q_b_proj.weight", (heads * (c["qk_nope_head_dim"] + rope), c["q_lora_rank"])
        yield attention + "kv_a_proj_with_mqa.weight", (latent + rope, hidden)
        yield attention + "kv_a_layernorm.weight", (latent,)
        yield attention + "kv_b_proj.weight", (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), latent)
        yield attention + "o_proj.weight", (hidden, heads * c["v_head_dim"])
        if layer < c["first_k_dense_replace"]:
            mlps = [(mlp, c["intermediate_size"])]
        else:
            yield mlp + "gate.weight", (c["n_routed_experts"], hidden)
            yield mlp + "gate.e_score_correction_bias", (c["n_routed_experts"],)
            mlps = [(f"{mlp}experts.{e}.", c["moe_intermediate_size"]) for e in range(c["n_routed_experts"])]
            mlps += [(mlp + "shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])]
        for prefix, width in mlps:
            yield prefix + "gate_proj.weight", (width, hidden)
            yield prefix + "up_proj.weight", (width, hidden)
            yield prefix + "down_proj.weight", (hidden, width)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (c["vocab_size"], hidden)


def main():
    rng, header, data = np.random.default_rng(7), {}, b""
    for name, shape in shapes(CONFIG):
        numbers = (rng.integers(-63, 64, shape) / 64).astype(np.float32)
        bias = name.endswith("bias")
        encoded = numbers.tobytes() if bias else (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(encoded)]
        header[name] = {"dtype": "F32" if bias else "BF16", "shape": shape, "data_offsets": offsets}
        data += encoded
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (OUT / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


if __name__ == "__main__":
    main()
