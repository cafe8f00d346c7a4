#!/usr/bin/env python3
"""Makes crates/weights/tests/malformed: small files and folders that must be refused, each in its own way.

    python reference/malformed.py

Beside them `expected.tsv`: path, the error variant that it must give, and words that the message must have.
The test reads that table; the fuzz targets take the files as seeds.
"""
import json
import shutil
import struct
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "crates/weights/tests/malformed"
CASES = []


def case(path, content, variant, *words):
    """A file (bytes, or anything JSON) or a folder (a dict of such)."""
    CASES.append((path, variant, *words))
    put(OUT / path, content)


def put(path, content):
    if isinstance(content, dict) and path.suffix == "":
        for name, inner in content.items():
            put(path / name, inner)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


# --- safetensors ------------------------------------------------------------------------------------

def with_header(text, data=b""):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(name, dtype="F32", shape=(1,), begin=0, end=4):
    return f'"{name}": {{"dtype": "{dtype}", "shape": {list(shape)}, "data_offsets": [{begin}, {end}]}}'


def safetensors():
    def st(name, content, variant, *words):
        case(f"safetensors/{name}.safetensors", content, f"Safetensors/{variant}", *words)

    def of(*entries, data=b"\0" * 8):
        return with_header("{" + ", ".join(entries) + "}", data)

    st("empty", b"", "TooShort", "0 bytes")
    st("seven-bytes", b"\0" * 7, "TooShort", "7 bytes")
    st("length-past-end", struct.pack("<Q", 100) + b"{}", "HeaderLength", "claims 100 bytes")
    st("length-of-all-ones", b"\xff" * 8 + b"{}", "HeaderLength", "18446744073709551615")
    st("no-header", with_header(""), "NotAnObject", "begins with nothing")
    st("array", with_header("[]"), "NotAnObject", "0x5b")
    st("leading-space", with_header(" {}"), "NotAnObject", "0x20")
    st("cut-json", with_header('{"a": '), "Json")
    st("not-utf8", with_header(b'{"\xff": 1}'), "Json")
    st("trailing-garbage", with_header("{} x"), "Json")
    st("deep", with_header('{"a": ' + "[" * 5000), "Json")
    st("negative-dimension", of(entry("a", shape=(-1,))), "Json", "-1")
    st("fractional-dimension", of('"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}'), "Json")
    st("huge-dimension", of('"a": {"dtype": "F32", "shape": [1e30], "data_offsets": [0, 4]}'), "Json")
    st("no-offsets", of('"a": {"dtype": "F32", "shape": [1]}'), "Json", "data_offsets")
    st("dtype-twice", of('"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'), "Json", "dtype")
    st("metadata-of-numbers", of('"__metadata__": {"a": 1}', data=b""), "Json")
    st("name-twice", of(entry("a"), entry("a", begin=4, end=8)), "Duplicate", "`a`", "twice")
    st("no-name", of(entry("")), "Name", 'called ""')
    st("long-name", of(entry("a" * 600)), "Name", "aaaa…")
    st("name-with-escape", of(entry("\\u001b[2J")), "Name", "\\u{1b}[2J")
    st("long-dtype", of(entry("a", dtype="F" * 5000)), "UnknownDtype", "FFFF…")
    st("shape-is-long-text", of('"a": {"dtype": "F32", "shape": "%s"}' % ("x" * 5000)), "Json", "…")
    st("unknown-dtype", of(entry("a", dtype="F7")), "UnknownDtype", "`F7`")
    st("many-dimensions", of(entry("a", shape=[1] * 2000)), "Rank", "2000")
    st("shape-overflows", of(entry("a", shape=(2**40, 2**40))), "Size", "1099511627776")
    st("half-a-byte", of(entry("a", dtype="F4", shape=(7,))), "Size", "F4")
    st("reversed-range", of(entry("a", begin=4, end=0)), "Range", "4..0 of 8")
    st("range-past-end", of(entry("a", begin=8, end=12)), "Range", "8..12 of 8")
    st("range-overflows", of(entry("a", begin=2**64 - 4, end=2**64 - 1)), "Range")
    st("shape-and-range-differ", of(entry("a", shape=(3,))), "Length", "needs 12 bytes", "has 4")
    st("overlap", of(entry("a", shape=(2,), end=8), entry("b", begin=4, end=8)), "Overlap", "`b`", "inside `a`")
    st("hole", of(entry("a"), entry("b", begin=8, end=12), data=b"\0" * 12), "Hole", "belong to no tensor")
    st("hole-at-start", of(entry("a", begin=4, end=8)), "Hole")
    st("bytes-after-the-last", of(entry("a")), "Hole")


# --- index ------------------------------------------------------------------------------------------

def index():
    def ix(name, content, variant, *words):
        case(f"index/{name}.index.json", content, f"Index/{variant}", *words)

    def names(file):
        return {"metadata": {}, "weight_map": {"a": file}}

    ix("not-json", b"{", "Json")
    ix("no-weight-map", {"metadata": {}}, "Json", "weight_map")
    ix("weight-map-is-a-list", {"weight_map": []}, "Json")
    ix("file-is-a-number", names(1), "Json")
    ix("tensor-twice", b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "Duplicate", "`a`")
    ix("long-text", {"weight_map": "x" * 5000}, "Json", "…")
    ix("tensor-without-name", {"weight_map": {"": "x.safetensors"}}, "Name", 'called ""')
    ix("absolute", names("/etc/x.safetensors"), "FileName", "/etc/x.safetensors")
    ix("parent", names("../x.safetensors"), "FileName")
    ix("parent-inside", names("a/../../x.safetensors"), "FileName")
    ix("here", names("./x.safetensors"), "FileName")
    ix("backslash", names("..\\x.safetensors"), "FileName")
    ix("drive", names("c:x.safetensors"), "FileName")
    ix("nul", names("x\0.safetensors"), "FileName", "`x\\0.safetensors`")
    ix("no-name", names(""), "FileName")
    ix("other-file", names("/etc/passwd"), "FileName")


# --- config -----------------------------------------------------------------------------------------

WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "actorder": None,
           "block_structure": None, "dynamic": False}
GROUP = {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": WEIGHTS}
INT4 = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "kv_cache_scheme": None, "ignore": ["lm_head"], "config_groups": {"group_0": GROUP}}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def quantized(scheme):
    return {"model_type": "kimi_k2", "quantization_config": scheme}


def config():
    def cf(name, content, variant, *words):
        case(f"config/{name}.json", content, variant, *words)

    def unsupported(name, scheme, field, *words):
        cf(name, quantized(scheme), "Quantization/Unsupported", f"`quantization_config{field}`", *words)

    def weights(**changed):
        return INT4 | {"config_groups": {"group_0": GROUP | {"weights": WEIGHTS | changed}}}

    inside = ".config_groups.group_0.weights."
    cf("empty", b"", "Json")
    cf("cut", b'{"model_type": "kimi_k2"', "Json")
    cf("deep", b'{"a": ' + b"[" * 5000, "Json")
    cf("list", [], "NotAnObject", "expected a JSON object")
    cf("text-config-is-text", {"model_type": "kimi_k25", "text_config": "kimi_k2"}, "NotAnObject", "`text_config`")
    unsupported("quantization-is-text", "fp8", "", '"fp8"')
    unsupported("no-method", {}, ".quant_method", "missing")
    unsupported("awq", {"quant_method": "awq"}, ".quant_method", '"awq"')
    unsupported("fp8-e5m2", FP8 | {"fmt": "e5m2"}, ".fmt", "e5m2", "e4m3")
    unsupported("fp8-static", FP8 | {"activation_scheme": "static"}, ".activation_scheme", "static")
    unsupported("fp8-block-64", FP8 | {"weight_block_size": [64, 64]}, ".weight_block_size", "[64,64]", "[128, 128]")
    unsupported("fp8-per-tensor", {"quant_method": "fp8"}, ".weight_block_size", "missing")
    unsupported("fp8-scale-fmt", FP8 | {"scale_fmt": "e5m3"}, ".scale_fmt", "e5m3")
    unsupported("int4-marlin", INT4 | {"format": "marlin-24"}, ".format", "marlin-24")
    unsupported("int4-frozen", INT4 | {"quantization_status": "frozen"}, ".quantization_status", "frozen")
    unsupported("int4-kv-cache", INT4 | {"kv_cache_scheme": {"num_bits": 8}}, ".kv_cache_scheme", "num_bits")
    unsupported("int4-sparse", INT4 | {"sparsity_config": {"format": "2:4"}}, ".sparsity_config", "2:4")
    unsupported("int4-transform", INT4 | {"transform_config": {"a": 1}}, ".transform_config")
    unsupported("int4-no-groups", INT4 | {"config_groups": {}}, ".config_groups")
    unsupported("int4-ignore-is-text", INT4 | {"ignore": "lm_head"}, ".ignore", '"lm_head"')
    unsupported("int4-ignore-numbers", INT4 | {"ignore": [1]}, ".ignore")
    unsupported("int4-targets", INT4 | {"config_groups": {"group_0": GROUP | {"targets": ["re:.*"]}}},
                ".config_groups.group_0.targets")
    unsupported("int4-activations", INT4 | {"config_groups": {"group_0": GROUP | {"input_activations": {"num_bits": 8}}}},
                ".config_groups.group_0.input_activations")
    unsupported("int4-no-weights", INT4 | {"config_groups": {"g": {"targets": ["Linear"]}}}, ".config_groups.g.weights")
    unsupported("int8", weights(num_bits=8), inside + "num_bits", "is 8", "supported: 4")
    unsupported("float4", weights(type="float"), inside + "type", "float")
    unsupported("int4-asymmetric", weights(symmetric=False), inside + "symmetric", "false", "true")
    unsupported("int4-channel", weights(strategy="channel"), inside + "strategy", "channel")
    unsupported("int4-group-128", weights(group_size=128), inside + "group_size", "128", "32")
    unsupported("int4-actorder", weights(actorder="group"), inside + "actorder", "group")
    unsupported("int4-blocks", weights(block_structure=[1, 2]), inside + "block_structure")
    unsupported("int4-dynamic", weights(dynamic=True), inside + "dynamic", "true")
    unsupported("int4-many-patterns", INT4 | {"ignore": ["re:a"] * 33}, ".ignore", "at most 32")
    cf("int4-bad-pattern", quantized(INT4 | {"ignore": ["re:("]}), "Quantization/Pattern", "`(`")
    cf("int4-look-ahead", quantized(INT4 | {"ignore": ["re:(?!a)b"]}), "Quantization/Pattern", "look-ahead")
    cf("int4-huge-pattern", quantized(INT4 | {"ignore": ["re:((a{1000}){1000}){1000}"]}), "Quantization/Pattern", "limit")


# --- folders ----------------------------------------------------------------------------------------

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "F8_E4M3": 1}


def tensors(**named):
    """A safetensors file; `__` in a name stands for a dot. Values: (dtype, shape) or (dtype, shape, data)."""
    header, data = {}, b""
    for name, (dtype, shape, *content) in named.items():
        size = SIZES[dtype]
        for dim in shape:
            size *= dim
        begin = len(data)
        data += content[0] if content else b"\0" * size
        header[name.replace("__", ".")] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    return with_header(json.dumps(header), data)


def folders():
    def folder(name, scheme, file, variant, *words):
        case(f"folder/{name}", {"config.json": quantized(scheme), "model.safetensors": file}, variant, *words)

    def sharded(name, weight_map, shards, variant, *words):
        files = {"config.json": {}, "model.safetensors.index.json": {"metadata": {}, "weight_map": weight_map}}
        case(f"folder/{name}", files | shards, variant, *words)

    def int4(rows=2, cols=64, shape=None, **changed):
        parts = {"weight_packed": ("I32", [rows, cols // 8]), "weight_scale": ("BF16", [rows, cols // 32]),
                 "weight_shape": ("I32", [2], struct.pack("<2i", *(shape or (rows, cols))))} | changed
        return tensors(**{f"model__x__{name}": part for name, part in parts.items() if part})

    x, y = {"x.safetensors": tensors(model__a=("F32", [1]))}, {"y.safetensors": tensors(model__b=("F32", [1]))}
    sharded("index-names-too-much", {"model.a": "x.safetensors", "model.c": "x.safetensors"}, x,
            "Index/Absent", "`model.c`", "`x.safetensors`")
    sharded("index-names-too-little", {"model.a": "x.safetensors"},
            {"x.safetensors": tensors(model__a=("F32", [1]), model__b=("F32", [1]))}, "Index/Unlisted", "does not name")
    sharded("index-swaps-shards", {"model.a": "y.safetensors", "model.b": "x.safetensors"}, x | y,
            "Index/Unlisted", "places in")
    sharded("shard-is-missing", {"model.a": "x.safetensors", "model.b": "y.safetensors"}, x, "Io", "y.safetensors")
    folder("name-with-and-without-prefix", None, tensors(model__a=("F32", [1]), language_model__model__a=("F32", [1])),
           "DuplicateTensor", "`model.a`")
    folder("fp8-undeclared", None, tensors(model__x__weight=("F8_E4M3", [2, 2]), model__x__weight_scale_inv=("F32", [1, 1])),
           "Quantization/Undeclared", "FP8", "no quantization")
    folder("int4-undeclared", None, int4(), "Quantization/Undeclared", "INT4")
    folder("int4-under-fp8", FP8, int4(), "Quantization/Undeclared", "INT4", "fp8")
    folder("int4-ignored", INT4 | {"ignore": ["re:model\\.x"]}, int4(), "Quantization/Ignored", "model.x.weight")
    folder("int4-left-out", INT4, tensors(model__up_proj__weight=("BF16", [2, 32])), "Quantization/NotQuantized", "BF16")
    folder("int4-and-plain", INT4, with_header("{" + ", ".join([
        entry("model.x.weight", end=4), entry("model.x.weight_packed", "I32", (1, 1), 4, 8),
        entry("model.x.weight_scale", "BF16", (1, 1), 8, 10), entry("model.x.weight_shape", "I32", (2,), 10, 18)]) + "}",
        b"\0" * 18), "Quantization/Both", "`model.x.weight`")
    folder("int4-without-scale", INT4, int4(weight_scale=None), "Quantization/Incomplete", "model.x.weight_scale")
    folder("int4-without-packed", INT4, int4(weight_packed=None), "Quantization/Incomplete", "model.x.weight_packed")
    folder("fp8-without-scale", FP8, tensors(model__x__weight=("F8_E4M3", [2, 2])), "Quantization/Incomplete",
           "model.x.weight_scale_inv")
    folder("fp8-scale-alone", FP8, tensors(model__x__weight_scale_inv=("F32", [1, 1])), "Quantization/Incomplete",
           "`model.x.weight`")
    folder("int4-zero-point", INT4, tensors(model__x__weight_zero_point=("I32", [1])), "Quantization/Variant", "asymmetric")
    folder("int4-g-idx", INT4, tensors(model__x__weight_g_idx=("I32", [1])), "Quantization/Variant", "actorder")
    folder("int4-shape-lies", INT4, int4(shape=(2, 32)), "WeightShape", "[2, 32]", "[2, 64]")
    folder("int4-scale-f16", INT4, int4(weight_scale=("F16", [2, 2])), "Format", "F16", "BF16")
    folder("int4-shape-of-three", INT4, int4(weight_shape=("I32", [3])), "Shape", "[3]", "[2]")
    folder("int4-shape-f32", INT4, int4(weight_shape=("F32", [2])), "Format", "I32 or I64")
    folder("int4-half-a-group", INT4, int4(cols=16, weight_scale=("BF16", [2, 1])), "Matrix", "16 columns")
    folder("int4-scale-too-short", INT4, int4(weight_scale=("BF16", [2, 1])), "Shape", "weight_scale", "[2, 1]", "[2, 2]")
    folder("int4-scale-transposed", INT4, int4(rows=4, weight_scale=("BF16", [2, 4])), "Shape", "weight_scale", "[2, 4]", "[4, 2]")
    folder("fp8-grid-too-small", FP8,
           tensors(model__x__weight=("F8_E4M3", [130, 2]), model__x__weight_scale_inv=("F32", [1, 1])),
           "Shape", "weight_scale_inv", "[1, 1]", "[2, 1]")
    folder("fp8-scale-transposed", FP8,
           tensors(model__x__weight=("F8_E4M3", [2, 130]), model__x__weight_scale_inv=("F32", [2, 1])),
           "Shape", "weight_scale_inv", "[2, 1]", "[1, 2]")
    folder("fp8-scale-bf16", FP8,
           tensors(model__x__weight=("F8_E4M3", [2, 2]), model__x__weight_scale_inv=("BF16", [1, 1])), "Format", "F8_E8M0")
    folder("f64", None, tensors(model__x__weight=("F64", [2, 2])), "Format", "F64")
    folder("vector-of-integers", None, tensors(model__x__weight=("I32", [2])), "Format", "I32")
    case("folder/config-alone", {"config.json": {}}, "NoCheckpoint", "model.safetensors")
    case("folder/no-config", {"model.safetensors": with_header("{}")}, "Io", "config.json")


# --- GGUF -------------------------------------------------------------------------------------------

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
REQUIRED = {
    "general.architecture": "deepseek2", "deepseek2.context_length": 4096, "deepseek2.embedding_length": 32,
    "deepseek2.block_count": 1, "deepseek2.feed_forward_length": 32, "deepseek2.attention.head_count": 2,
    "deepseek2.attention.kv_lora_rank": 32, "deepseek2.attention.key_length": 40, "deepseek2.attention.value_length": 32,
    "deepseek2.attention.layer_norm_rms_epsilon": 1e-6, "deepseek2.expert_count": 2, "deepseek2.expert_used_count": 1,
    "deepseek2.expert_shared_count": 1, "deepseek2.expert_feed_forward_length": 32, "deepseek2.rope.dimension_count": 8,
    "deepseek2.vocab_size": 4,
}
YARN = {"deepseek2.rope.scaling.type": "yarn", "deepseek2.rope.scaling.factor": 32.0,
        "deepseek2.rope.scaling.yarn_log_multiplier": 0.1}


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def value(v):
    if isinstance(v, bytes):
        return v  # type and value, already encoded
    if isinstance(v, bool):
        return struct.pack("<I?", BOOL, v)
    if isinstance(v, int):
        return struct.pack("<II", U32, v)
    if isinstance(v, float):
        return struct.pack("<If", F32, v)
    if isinstance(v, str):
        return struct.pack("<I", STRING) + text(v)
    kind = I32 if isinstance(v[0], int) else STRING
    elements = (struct.pack("<i", e) if kind == I32 else text(e) for e in v)
    return struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(elements)


def described(name, dims=(4,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf_file(pairs=(), infos=(), data=b"", version=3, magic=b"GGUF", counts=None):
    pairs = [(k, v) for k, v in (pairs.items() if isinstance(pairs, dict) else pairs)]
    tensors, keys = counts or (len(infos), len(pairs))
    head = magic + struct.pack("<IQQ", version, tensors, keys)
    head += b"".join(text(k) + value(v) for k, v in pairs) + b"".join(infos)
    return head + (b"\0" * (-len(head) % 32) + data if data else b"")


def gguf():
    def gg(name, content, variant, *words):
        case(f"gguf/{name}.gguf", content, f"Gguf/{variant}", *words)

    def of(*infos, data=b"\0" * 64, pairs=()):
        return gguf_file(pairs, infos, data)

    def key(name, changed, variant, *words):
        pairs = {k: v for k, v in (REQUIRED | changed).items() if v is not None}
        gg(name, gguf_file(pairs), variant, *words)

    gg("empty", b"", "Truncated", "the magic")
    gg("other-magic", gguf_file(magic=b"GGML"), "Magic", "GGML")
    gg("version-1", gguf_file(version=1), "Version", "version 1;")
    gg("version-4", gguf_file(version=4), "Version", "version 4;")
    gg("big-endian", gguf_file(version=3 << 24), "Version", "big-endian")
    gg("cut-in-counts", gguf_file()[:12], "Truncated", "the tensor count")
    gg("cut-in-key", gguf_file([("abc", 1)])[:30], "Truncated")
    gg("cut-in-value", gguf_file([("abc", 1)])[:-1], "Truncated", "a value")
    gg("cut-in-tensor", of(described("output.weight"), data=b"")[:-1], "Truncated", "a tensor offset")
    gg("many-tensors", gguf_file(counts=(2**63, 0)), "Limit", "tensor count", "9223372036854775808")
    gg("many-keys", gguf_file(counts=(0, 2**63)), "Limit", "key count")
    gg("fewer-keys-than-said", gguf_file([("abc", 1)], counts=(0, 2)), "Truncated")
    gg("long-key", struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**40), "Limit", "the length of a key")
    gg("long-string", gguf_file([("a", struct.pack("<IQ", STRING, 2**60))]), "Limit", "the length of a value")
    gg("string-past-end", gguf_file([("a", struct.pack("<IQ", STRING, 2**20))]), "Truncated", "1048576 bytes")
    gg("long-array", gguf_file([("a", struct.pack("<IIQ", ARRAY, U32, 2**62))]), "Limit", "the array `a`")
    gg("array-past-end", gguf_file([("a", struct.pack("<IIQ", ARRAY, U32, 1000))]), "Truncated", "4000 bytes")
    gg("strings-past-end", gguf_file([("a", struct.pack("<IIQ", ARRAY, STRING, 1000))]), "Truncated")
    gg("nested-array", gguf_file([("a", struct.pack("<IIQ", ARRAY, ARRAY, 1))]), "NestedArray", "`a`")
    gg("value-type-13", gguf_file([("a", struct.pack("<I", 13))]), "ValueType", "13")
    gg("element-type-13", gguf_file([("a", struct.pack("<IIQ", ARRAY, 13, 1))]), "ValueType")
    gg("empty-key", gguf_file([("", 1)]), "Name", "a key")
    gg("key-not-utf8", gguf_file([(b"\xff\xfe", 1)]), "Name", "UTF-8")
    gg("key-with-escape", gguf_file([("\x1b[2J", 1)]), "Name", "\\u{1b}[2J")
    gg("key-twice", gguf_file([("a", 1), ("a", 2)]), "DuplicateKey", "`a`")

    gg("tensor-twice", of(described("a"), described("a", offset=32)), "DuplicateTensor", "`a`")
    gg("tensor-without-name", of(described("")), "Name", "a tensor name")
    gg("tensor-without-dimensions", of(described("a", dims=())), "Rank", "has 0 dimensions")
    gg("tensor-of-five-dimensions", of(described("a", dims=(1,) * 5)), "Rank", "has 5 dimensions")
    gg("empty-dimension", of(described("a", dims=(4, 0))), "Dimensions", "[4, 0]")
    gg("type-iq2-xxs", of(described("blk.0.ffn_up.weight", kind=16)), "Type", "`blk.0.ffn_up.weight`", "IQ2_XXS", "Q4_K")
    gg("type-removed", of(described("a", kind=4)), "Type", "Q4_2")
    gg("type-99", of(described("a", kind=99)), "Type", "number 99")
    gg("half-a-block", of(described("a", dims=(48,), kind=8)), "Ragged", "48", "Q8_0")
    gg("dimensions-overflow", of(described("a", dims=(2**40, 2**40))), "Size")
    gg("odd-offset", of(described("a", offset=4)), "Offset", "multiple of 32")
    gg("offset-past-end", of(described("a", offset=64)), "Range")
    gg("offset-overflows", of(described("a", offset=2**64 - 32)), "Range")
    gg("overlap", of(described("a", dims=(16,)), described("b", offset=32)), "Overlap", "`b`", "inside `a`")
    gg("alignment-3", of(described("a"), pairs=[("general.alignment", 3)]), "Key", "`general.alignment`", "power of two")

    gg("no-architecture", gguf_file(), "MissingKey", "general.architecture")
    key("architecture-llama", {"general.architecture": "llama"}, "Key", '"llama"', '"deepseek2"')
    for missing in [k for k in REQUIRED if k not in ("general.architecture", "deepseek2.vocab_size")]:
        key("no-" + missing.rsplit(".", 1)[1].replace("_", "-"), {missing: None}, "MissingKey", f"`{missing}`")
    key("no-vocab-size", {"deepseek2.vocab_size": None}, "MissingKey", "deepseek2.vocab_size")
    key("no-yarn-multiplier", YARN | {"deepseek2.rope.scaling.yarn_log_multiplier": None}, "MissingKey", "yarn_log_multiplier")
    key("no-yarn-factor", YARN | {"deepseek2.rope.scaling.factor": None}, "MissingKey", "rope.scaling.factor")
    key("yarn-multiplier-0", YARN | {"deepseek2.rope.scaling.yarn_log_multiplier": 0.0}, "Key", "yarn_log_multiplier")
    key("rope-linear", {"deepseek2.rope.scaling.type": "linear", "deepseek2.rope.scaling.factor": 2.0}, "Key", "linear")
    key("rope-longrope", {"deepseek2.rope.scaling.type": "longrope"}, "Key", "longrope")
    key("count-is-text", {"deepseek2.block_count": "one"}, "Key", '"one"', "a whole number")
    key("count-is-negative", {"deepseek2.block_count": struct.pack("<Ii", I32, -1)}, "Key", "-1")
    key("eps-is-text", {"deepseek2.attention.layer_norm_rms_epsilon": "small"}, "Key", "a number")
    key("eps-is-nan", {"deepseek2.attention.layer_norm_rms_epsilon": float("nan")}, "Key", "a finite number")
    key("norm-is-a-number", {"deepseek2.expert_weights_norm": 1}, "Key", "true or false")
    key("architecture-is-a-number", {"general.architecture": 1}, "Key", "text")
    key("gating-4", {"deepseek2.expert_gating_func": 4}, "Key", "sigmoid")
    key("prediction-layers", {"deepseek2.nextn_predict_layers": 1}, "Key", "multi-token")
    key("head-narrower-than-rope", {"deepseek2.attention.key_length_mla": 8}, "Key", "key_length_mla", "more than rope")
    key("tokens-are-numbers", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [1, 2]}, "Key", "array of texts")
    key("tokens-are-text", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": "a"}, "Key", "an array")
    key("token-not-utf8", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [b"\xff"]}, "Key", "UTF-8")
    key("types-are-text", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"],
                           "tokenizer.ggml.token_type": ["a"]}, "Key", "32-bit integers")
    key("fewer-types-than-tokens", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b"],
                                    "tokenizer.ggml.token_type": [1]}, "Key", "as many types")
    key("bos-is-no-token", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"],
                            "tokenizer.ggml.bos_token_id": 1}, "Key", "bos_token_id")

    def with_tensor(name, info, variant, *words, data=b"\0" * 64):
        gg(name, gguf_file(REQUIRED, [info], data), variant, *words)

    with_tensor("unknown-tensor", described("rope_freqs.weight"), "UnknownTensor", "rope_freqs.weight")
    with_tensor("flat-experts", described("blk.0.ffn_up_exps.weight", dims=(4, 2)), "Stack", "[2, 4]")
    with_tensor("many-experts", described("blk.0.ffn_up_exps.weight", dims=(1, 1, 4097)), "Stack", "4097", data=b"\0" * 16388)
    splits()


def splits():
    def split(number, count=2, tensors=0, **extra):
        pairs = {"split.no": number, "split.count": count, "split.tensors.count": tensors} | extra
        return gguf_file({k: v for k, v in (REQUIRED | pairs).items() if v is not None})

    def pair(name, first, second, variant, *words, named="m"):
        files = {f"{named}-00001-of-00002.gguf": first, f"{named}-00002-of-00002.gguf": second}
        case(f"split/{name}", files, variant, *words)

    pair("number-is-wrong", split(0), split(0), "Gguf/Split", "split.no", "is 0")
    pair("count-is-wrong", split(0), split(1, count=3), "Gguf/Split", "split.count", "is 3")
    pair("tensors-are-missing", split(0, tensors=7), split(1, tensors=7), "Gguf/Split", "split.tensors.count", "is 7")
    pair("no-number", split(0), split(1, **{"split.no": None}), "Gguf/MissingKey", "split.no")
    case("split/file-is-missing", {"m-00001-of-00002.gguf": split(0)}, "Io", "m-00002-of-00002.gguf")
    case("split/other-name.gguf", split(0), "Gguf/SplitName", "-of-00002.gguf")
    case("split/many.gguf", split(0, count=2**31), "Gguf/SplitName", "2147483648")
    case("split/two-models", {"a.gguf": split(0), "b.gguf": split(0)}, "SeveralGguf", "a.gguf, b.gguf")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for part in (safetensors, index, config, folders, gguf):
        part()
    paths = [c[0] for c in CASES]
    assert len(paths) == len(set(paths)), "two cases of one name"
    lines = ("\t".join(case) + "\n" for case in CASES)
    (OUT / "expected.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main()
