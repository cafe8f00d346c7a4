"""Checkpoint folders as Kimi K2 is published: read to float64, and written from float64.

Formats: BF16; FP8 e4m3 with one F32 `weight_scale_inv` per 128x128 block, cut at the edges (K2-Instruct); INT4
compressed-tensors `pack-quantized`, groups of 32 (K2-Thinking), also nested as K2.5 ships.
"""
import json
import re

import numpy as np

import safetensors_file as st

FP8_BLOCK, INT4_GROUP = 128, 32
FP8_CONFIG = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
              "weight_block_size": [FP8_BLOCK, FP8_BLOCK]}
INT4_CONFIG = {
    "config_groups": {"group_0": {
        "input_activations": None, "output_activations": None, "targets": ["Linear"],
        "weights": {"actorder": None, "block_structure": None, "dynamic": False, "group_size": INT4_GROUP,
                    "num_bits": 4, "observer": "minmax", "observer_kwargs": {}, "strategy": "group", "symmetric": True,
                    "type": "int"}}},
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
    "kv_cache_scheme": None, "quant_method": "compressed-tensors", "quantization_status": "compressed",
}
QUANTIZATION = {"bf16": None, "fp8": FP8_CONFIG, "int4": INT4_CONFIG}


def shapes(config):
    """Every tensor of a model by its official name, in the order of the forward pass: [out, in]."""
    hidden, heads, latent = (config[k] for k in ("hidden_size", "num_attention_heads", "kv_lora_rank"))
    nope, rope, value = (config[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    experts = config["n_routed_experts"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        at, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        yield f"model.layers.{layer}.input_layernorm.weight", (hidden,)
        if config["q_lora_rank"] is None:
            yield at + "q_proj.weight", (heads * (nope + rope), hidden)
        else:
            yield at + "q_a_proj.weight", (config["q_lora_rank"], hidden)
            yield at + "q_a_layernorm.weight", (config["q_lora_rank"],)
            yield at + "q_b_proj.weight", (heads * (nope + rope), config["q_lora_rank"])
        yield at + "kv_a_proj_with_mqa.weight", (latent + rope, hidden)
        yield at + "kv_a_layernorm.weight", (latent,)
        yield at + "kv_b_proj.weight", (heads * (nope + value), latent)
        yield at + "o_proj.weight", (hidden, heads * value)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (hidden,)
        if layer < config["first_k_dense_replace"]:
            mlps = {mlp: config["intermediate_size"]}
        else:
            yield mlp + "gate.weight", (experts, hidden)
            yield mlp + "gate.e_score_correction_bias", (experts,)
            mlps = {f"{mlp}experts.{e}.": config["moe_intermediate_size"] for e in range(experts)}
            mlps[mlp + "shared_experts."] = config["moe_intermediate_size"] * config["n_shared_experts"]
        for prefix, width in mlps.items():
            yield prefix + "gate_proj.weight", (width, hidden)
            yield prefix + "up_proj.weight", (width, hidden)
            yield prefix + "down_proj.weight", (hidden, width)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


# --- one tensor to what is stored, and back ---------------------------------------------------------

def encode(name, weight, scheme, shape_dtype="I64"):
    """Stored tensors of one weight: name -> (dtype, codes)."""
    if name.endswith("e_score_correction_bias"):
        return {name: ("F32", weight.astype(np.float32))}
    if scheme == "fp8" and re.search(r"_proj(_with_mqa)?\.weight$", name):
        return encode_fp8(name, weight)
    if scheme == "int4" and ".experts." in name:
        return encode_int4(name.removesuffix(".weight"), weight, shape_dtype)
    return {name: ("BF16", st.bf16(weight))}


def encode_fp8(name, weight):
    blocks = [-(-n // FP8_BLOCK) for n in weight.shape]
    scale = np.zeros(blocks, np.float32)
    for i, j in np.ndindex(*blocks):
        block = weight[i * FP8_BLOCK:(i + 1) * FP8_BLOCK, j * FP8_BLOCK:(j + 1) * FP8_BLOCK]
        scale[i, j] = np.abs(block).max() / 440  # the largest code is 448; rounding must not pass it
    codes = st.e4m3(weight / spread(scale, weight.shape))
    return {name: ("F8_E4M3", codes), name + "_scale_inv": ("F32", scale)}


def encode_int4(module, weight, shape_dtype):
    groups = weight.reshape(len(weight), -1, INT4_GROUP)
    scale = st.bf16(np.abs(groups).max(axis=-1) / 7.5)
    step = st.numbers("BF16", scale)[..., None]
    nibbles = (np.clip(np.round(groups / step), -8, 7) + 8).astype(np.uint32).reshape(len(weight), -1, 8)
    packed = (nibbles << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32).view(np.int32)
    return {f"{module}.weight_packed": ("I32", packed), f"{module}.weight_scale": ("BF16", scale),
            f"{module}.weight_shape": (shape_dtype, np.array(weight.shape))}


def decode(stored):
    """Official weight names -> float64, from all stored tensors."""
    weights = {}
    for name, (dtype, codes) in stored.items():
        if name.endswith(".weight_packed"):
            module = name.removesuffix("_packed")
            out, width = stored[module + "_shape"][1]
            nibbles = codes.view(np.uint32)[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15
            scale = np.repeat(st.numbers(*stored[module + "_scale"]), INT4_GROUP, axis=1)
            weights[module] = (nibbles.reshape(out, width).astype(np.float64) - 8) * scale
        elif name + "_scale_inv" in stored:
            scale = st.numbers(*stored[name + "_scale_inv"])
            weights[name] = st.numbers(dtype, codes) * spread(scale, codes.shape)
        elif not name.endswith((".weight_scale", ".weight_shape", ".weight_scale_inv")):
            weights[name] = st.numbers(dtype, codes)
    return weights


def spread(scale, shape):
    """One scale per 128x128 block -> one per weight; edge blocks are cut."""
    return np.repeat(np.repeat(scale, FP8_BLOCK, 0), FP8_BLOCK, 1)[:shape[0], :shape[1]]


# --- folders ----------------------------------------------------------------------------------------

def read(folder):
    """The text model's config and its weights (float64); a vision tower is left out."""
    config = json.loads((folder / "config.json").read_text())
    stored = {}
    for file in sorted(folder.glob("model*.safetensors")):
        stored |= st.read(file)
    if "text_config" in config:
        prefix = "language_model."
        stored = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
        config = config["text_config"]
    return config, decode(stored)


def write(folder, config, stored, shards=1):
    """`config.json`, and the tensors in one file or in shards of about equal size with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if shards == 1:
        return st.write(folder / "model.safetensors", stored)
    size = {name: codes.astype(st.PLAIN[dtype]).nbytes for name, (dtype, codes) in stored.items()}
    total, done, files = sum(size.values()), 0, [{} for _ in range(shards)]
    for name, tensor in stored.items():
        files[min(shards * done // total, shards - 1)][name] = tensor
        done += size[name]
    weight_map = {}
    for i, tensors in enumerate(files, 1):
        file = f"model-{i:05}-of-{shards:06}.safetensors"
        st.write(folder / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
