#!/usr/bin/env python3
"""Turns a checkpoint folder (safetensors: BF16, FP8, INT4, sharded, K2.5 nesting) into GGUF.

    pip install numpy gguf==0.19.0
    python reference/make_gguf.py FOLDER OUT.gguf [--type Q8_0] [--kv split|joined] [--split-tensors N]
                                  [--vectors F16] [--omit KEY ...]
    python reference/make_gguf.py --every FIXTURES/model OUT     # each folder in several forms: NAME.FORM.gguf
    python reference/make_gguf.py --committed                    # crates/weights/tests/data/gguf

Keys, names and layouts are those of llama.cpp's converter for architecture `deepseek2`:
--kv split   attn_k_b (per head the key rows of kv_b_proj, transposed) and attn_v_b; key_length is the
             width of a cached row, key_length_mla the head's own
--kv joined  attn_kv_b as the official kv_b_proj; key_length is the head's own (older files)
A tensor whose rows are not whole blocks of --type is written as F16 instead; norms and router are F32.
The vocabulary is a synthetic byte-level BPE of the config's size, for testing the reader.
"""
import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T

ROOT = Path(__file__).resolve().parent.parent
FP8_BLOCK, INT4_GROUP = 128, 32


# --- reading a folder -------------------------------------------------------------------------------

def e4m3(codes):
    """F8_E4M3 (fn) codes to f32."""
    sign = np.where(codes & 0x80, np.float32(-1), np.float32(1))
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    magnitude = np.where(exponent == 0, mantissa / 8 * 2.0 ** -6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    return sign * magnitude.astype(np.float32)


def tensor(dtype, data, shape):
    kinds = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8", "F8_E4M3": "u1"}
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    numbers = np.frombuffer(data, kinds[dtype]).reshape(shape)
    return e4m3(numbers) if dtype == "F8_E4M3" else numbers


def read_safetensors(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    for name, info in header.items():
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        yield name, tensor(info["dtype"], data[begin:end], info["shape"])


def dequantised(parts):
    """FP8 and INT4 parts joined to f32 weights under the name of the weight."""
    weights = {}
    for name, value in parts.items():
        if name.endswith(".weight_packed"):
            module = name.removesuffix("_packed")
            nibbles = (value.view(np.uint32)[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15)
            codes = nibbles.reshape(value.shape[0], -1).astype(np.float32) - 8
            weights[module] = codes * np.repeat(parts[module + "_scale"], INT4_GROUP, axis=1)
        elif name.endswith(".weight") and name + "_scale_inv" in parts:
            scale = parts[name + "_scale_inv"]
            scale = np.repeat(np.repeat(scale, FP8_BLOCK, 0), FP8_BLOCK, 1)
            weights[name] = value * scale[:value.shape[0], :value.shape[1]]
        elif not name.endswith((".weight_scale", ".weight_shape", ".weight_scale_inv")):
            weights[name] = value
    return weights


def read_folder(folder):
    config = json.loads((folder / "config.json").read_text())
    config = config.get("text_config", config)
    files = sorted(folder.glob("model*.safetensors"))
    parts = {name.removeprefix("language_model."): value for file in files for name, value in read_safetensors(file)}
    return config, dequantised(parts)


# --- metadata ---------------------------------------------------------------------------------------

def byte_level_vocabulary(size):
    """The 256 byte symbols of GPT-2 (as far as they fit), pairs of letters with merges, four control tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbol = {b: chr(b) for b in printable}
    symbol |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in symbol)}
    control = ["[BOS]", "[EOS]", "<|im_end|>", "[PAD]"]
    room = size - len(control)
    tokens = [symbol[b] for b in range(256)][:room]
    letters = [symbol[b] for b in b"etaoinshrdlucmfwypvbgkjqxz"]
    pairs = [(a, b) for a in letters for b in letters if a in tokens and b in tokens][:room - len(tokens)]
    tokens += [a + b for a, b in pairs]
    tokens += [f"[unused{i}]" for i in range(room - len(tokens))] + control
    types = [gguf.TokenType.UNUSED if t.startswith("[unused") else gguf.TokenType.NORMAL for t in tokens[:room]]
    return tokens, [*types, *[gguf.TokenType.CONTROL] * len(control)], [f"{a} {b}" for a, b in pairs]


def add_vocabulary(writer, config):
    size = config["vocab_size"]
    tokens, types, merges = byte_level_vocabulary(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("kimi-k2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(size - 4)
    writer.add_eos_token_id(size - 3)
    writer.add_eot_token_id(size - 2)
    writer.add_pad_token_id(size - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages }}")


def add_rope(writer, config):
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["qk_rope_head_dim"])
    rope = config["rope_scaling"]
    if rope is None:
        return
    if rope["mscale"] != rope["mscale_all_dim"]:
        raise ValueError("GGUF has no place for an mscale that differs from mscale_all_dim")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])


def add_config(writer, config, joined):
    heads, latent, rope = config["num_attention_heads"], config["kv_lora_rank"], config["qk_rope_head_dim"]
    key, value = config["qk_nope_head_dim"] + rope, config["v_head_dim"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads if joined else 1)
    writer.add_key_length(key if joined else latent + rope)
    writer.add_value_length(value if joined else latent)
    if not joined:
        writer.add_key_length_mla(key)
        writer.add_value_length_mla(value)
    if config["q_lora_rank"] is not None:
        writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(latent)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    add_rope(writer, config)
    add_vocabulary(writer, config)


# --- tensors ----------------------------------------------------------------------------------------

LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": "attn_kv_b.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    **{f"mlp.{p}_proj.weight": f"ffn_{p}.weight" for p in ("gate", "up", "down")},
    **{f"mlp.shared_experts.{p}_proj.weight": f"ffn_{p}_shexp.weight" for p in ("gate", "up", "down")},
}


def layer_tensors(config, weights, layer, joined):
    block, prefix = f"blk.{layer}.", f"model.layers.{layer}."
    for official, name in LAYER.items():
        value = weights.get(prefix + official)
        if value is None:
            continue
        if name == "attn_kv_b.weight" and not joined:
            heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
            value = value.reshape(heads, nope + config["v_head_dim"], config["kv_lora_rank"])
            yield block + "attn_k_b.weight", np.ascontiguousarray(value[:, :nope].transpose(0, 2, 1))
            yield block + "attn_v_b.weight", np.ascontiguousarray(value[:, nope:])
        else:
            yield block + name, value
    for p in ("gate", "up", "down"):
        names = [f"{prefix}mlp.experts.{e}.{p}_proj.weight" for e in range(config["n_routed_experts"])]
        if names[0] in weights:
            yield f"{block}ffn_{p}_exps.weight", np.stack([weights[name] for name in names])


def all_tensors(config, weights, joined):
    yield "token_embd.weight", weights["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        yield from layer_tensors(config, weights, layer, joined)
    yield "output_norm.weight", weights["model.norm.weight"]
    if "lm_head.weight" in weights:
        yield "output.weight", weights["lm_head.weight"]


def stored_type(name, value, kind, vectors):
    if value.ndim == 1:
        return vectors if "norm" in name else T.F32
    if name.endswith("ffn_gate_inp.weight"):
        return T.F32
    return kind if value.shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else T.F16


def convert(folder, out, kind=T.F32, joined=False, split_tensors=0, vectors=T.F32, omit=()):
    config, weights = read_folder(Path(folder))
    writer = gguf.GGUFWriter(str(out), "deepseek2", split_max_tensors=split_tensors)
    add_config(writer, config, joined)
    for key in omit:
        del writer.kv_data[0][key]
    for name, value in all_tensors(config, weights, joined):
        stored = stored_type(name, value, kind, vectors)
        data = gguf.quants.quantize(np.ascontiguousarray(value, dtype=np.float32), stored)
        raw = None if stored in (T.F32, T.F16) else stored
        writer.add_tensor(name, data, raw_dtype=raw)
    write(writer)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- what is made at once ---------------------------------------------------------------------------

FORMS = {
    "f32": dict(kind=T.F32),
    "f32-joined": dict(kind=T.F32, joined=True),
    "bf16-split": dict(kind=T.BF16, split_tensors=9),
    "f16-vectors": dict(kind=T.F16, vectors=T.F16),
    **{kind.name.lower(): dict(kind=kind) for kind in (T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.MXFP4)},
}


def every(folders, out):
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path.parent for path in folders.glob("*/config.json")):
        for form, options in FORMS.items():
            try:
                convert(folder, out / f"{folder.name}.{form}.gguf", **options)
            except ValueError as error:
                print(f"{folder.name}: not converted: {error}")
                break


def committed():
    data = ROOT / "crates/weights/tests/data"
    (data / "gguf").mkdir(parents=True, exist_ok=True)
    convert(data / "tiny", data / "gguf/tiny.q8_0.gguf", kind=T.Q8_0, vectors=T.F16)
    convert(data / "tiny", data / "gguf/tiny.f16-joined.gguf", kind=T.F16, joined=True, split_tensors=16)
    every_type(data / "gguf/types.gguf", json.loads((data / "tiny/config.json").read_text()))


def every_type(out, config):
    """Two blocks of every block format, as ffn_up of layers 0, 1, ...: those of reference/ggml_blocks.py."""
    blocks = ROOT / "crates/kernels/tests/data/ggml"
    writer = gguf.GGUFWriter(str(out), "deepseek2")
    add_config(writer, config, joined=False)
    for layer, path in enumerate(sorted(blocks.glob("*.blocks"))):
        kind = T[path.stem]
        rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, GGML_QUANT_SIZES[kind][1])[:2]
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", rows, raw_dtype=kind)
    write(writer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--type", default="F32", choices=[t.name for t in T], help="of the matrices")
    parser.add_argument("--vectors", default="F32", choices=["F32", "F16", "BF16"], help="type of the norms")
    parser.add_argument("--kv", default="split", choices=["split", "joined"])
    parser.add_argument("--split-tensors", type=int, default=0, help="most tensors per file")
    parser.add_argument("--omit", nargs="*", default=[], help="metadata keys to leave out")
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--committed", action="store_true")
    a = parser.parse_args()
    if a.committed:
        committed()
    elif a.folder is None or a.out is None:
        parser.error("a folder and an output are needed")
    elif a.every:
        every(a.folder, a.out)
    else:
        convert(a.folder, a.out, T[a.type], a.kv == "joined", a.split_tensors, T[a.vectors], a.omit)


if __name__ == "__main__":
    main()
