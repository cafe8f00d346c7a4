"""Safetensors files read and written with NumPy alone, BF16 and F8_E4M3 included (NumPy has neither).

The format: 8 bytes little-endian header length, the header (JSON: name -> dtype, shape, data_offsets), the data.
https://huggingface.co/docs/safetensors (Format). `check_fixtures.py` has the official package read what this wrote.
"""
import json

import numpy as np

# Arrays of these two dtypes are kept as their codes, beside the name of the dtype.
PLAIN = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8", "BF16": "<u2", "F8_E4M3": "u1"}


def write(path, tensors):
    """`tensors`: name -> (dtype, array of that dtype's codes)."""
    header, data = {}, []
    offset = 0
    for name, (dtype, array) in tensors.items():
        encoded = np.ascontiguousarray(array, dtype=PLAIN[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(encoded)]}
        offset += len(encoded)
        data.append(encoded)
    text = json.dumps({"__metadata__": {"format": "pt"}} | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *data]))


def read(path):
    """name -> (dtype, array of that dtype's codes)."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        array = np.frombuffer(data[start + begin:start + end], PLAIN[info["dtype"]])
        tensors[name] = (info["dtype"], array.reshape(info["shape"]))
    return tensors


def numbers(dtype, codes):
    """What codes mean, as F64 (integers as they are)."""
    if dtype == "BF16":
        return (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "F8_E4M3":
        return E4M3[codes]
    return codes.astype(np.float64) if codes.dtype.kind == "f" else codes


def bf16(x):
    """Codes of the nearest BF16 numbers, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def e4m3(x):
    """Codes of the nearest F8_E4M3 (fn) numbers, ties to even; nothing here may exceed 448."""
    grid = E4M3[:0x7F]  # the non-negative numbers ascend with their codes
    assert np.abs(x).max() <= 448
    above = np.searchsorted(grid, np.abs(x)).clip(1, 0x7E)
    low, high = np.abs(x) - grid[above - 1], grid[above] - np.abs(x)
    code = np.where((low < high) | ((low == high) & (above % 2 == 1)), above - 1, above)
    return (code | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


def _e4m3_numbers():
    """All 256 (OFP8, arXiv 2209.05433): bias 7, subnormals, no infinities, 0x7F and 0xFF are NaN."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, (codes & 7) / 8
    magnitude = np.where(exponent == 0, mantissa * 2.0 ** -6, (1 + mantissa) * 2.0 ** (exponent - 7.0))
    magnitude[codes & 0x7F == 0x7F] = np.nan
    return np.where(codes & 0x80, -magnitude, magnitude)


E4M3 = _e4m3_numbers()
