#!/usr/bin/env python3
"""Makes crates/kernels/tests/data/ggml: blocks of every GGUF format and the numbers they stand for.

    pip install numpy gguf==0.19.0
    python reference/ggml_blocks.py

For each format two files: NAME.blocks (the bytes) and NAME.f32 (little-endian f32, what the `gguf`
package's quants.dequantize makes of them). The blocks are random codes under sane scales, wholly random
bytes (so that scales are also infinite, NaN, negative, subnormal), and blocks of one repeated byte.
The same seed gives the same files.
"""
from pathlib import Path

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T

OUT = Path(__file__).resolve().parent.parent / "crates/kernels/tests/data/ggml"

# Where the f16 scales and minima of a block lie, in bytes; MXFP4 has an exponent byte instead.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [],
}
SANE, WILD = 4, 3
REPEATED = [0x00, 0xFF, 0x80, 0x01]


def blocks_of(kind, rng):
    size = GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (SANE + WILD + len(REPEATED), size), np.uint8)
    for at in HALVES[kind]:
        scales = rng.normal(0, 0.05, SANE).astype(np.float16)
        blocks[:SANE, at:at + 2] = scales.view(np.uint8).reshape(SANE, 2)
    for i, byte in enumerate(REPEATED):
        blocks[SANE + WILD + i] = byte
    return blocks


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    for kind in HALVES:
        blocks = blocks_of(kind, rng)
        with np.errstate(all="ignore"):
            numbers = gguf.quants.dequantize(blocks, kind)
        assert numbers.dtype == np.float32 and numbers.shape == (len(blocks), GGML_QUANT_SIZES[kind][0])
        (OUT / f"{kind.name}.blocks").write_bytes(blocks.tobytes())
        (OUT / f"{kind.name}.f32").write_bytes(numbers.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
