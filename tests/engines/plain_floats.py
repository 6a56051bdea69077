#!/usr/bin/env python3
"""What plain rounding makes of a model in MXFP4, NVFP4 or FP8 by blocks, as compressed-tensors and Model Optimizer
choose scales: a model directory with the rounded weights, for `snrq evaluate --reference`.

    python3 plain_floats.py MODEL mxfp4|nvfp4|fp8_block OUT

MXFP4: the scale of 32 inputs is 2^(floor(log2(largest)) - 2). NVFP4: 448 * 6 / largest of the tensor, and of 16 inputs
largest / 6 in E4M3 times that. FP8: largest / 448 of 128 x 128. Values go to the nearest number, ties to even.
"""
import json
import os
import shutil
import sys

import numpy as np

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float64)
E4M3 = np.array([m * 2.0**-9 if e == 0 else (8 + m) * 2.0 ** (e - 10) for e in range(16) for m in range(8)][:-1])


def nearest(numbers, x):
    """Magnitudes of a format, the even one of two."""
    low = np.clip(np.searchsorted(numbers, np.abs(x), "right") - 1, 0, len(numbers) - 2)
    below, above = np.abs(x) - numbers[low], numbers[low + 1] - np.abs(x)
    return np.sign(x) * numbers[low + ((above < below) | ((above == below) & (low % 2 == 1)))]


def mxfp4(w):
    x = w.reshape(len(w), -1, 32)
    most = np.abs(x).max(-1, keepdims=True)
    scale = 2.0 ** (np.floor(np.log2(np.where(most > 0, most, 1))) - 2)
    return (nearest(E2M1, x / scale) * scale).reshape(w.shape)


def nvfp4(w):
    x = w.reshape(len(w), -1, 16)
    whole = np.float64(np.float32(448 * 6 / np.abs(w).max()))
    scale = nearest(E4M3, np.abs(x).max(-1, keepdims=True) / 6 * whole)
    return (nearest(E2M1, x * whole / np.where(scale > 0, scale, 1)) * scale / whole).reshape(w.shape)


def fp8_block(w):
    rounded = np.empty_like(w)
    for r in range(0, w.shape[0], 128):
        for c in range(0, w.shape[1], 128):
            block = w[r : r + 128, c : c + 128]
            scale = np.float64(np.float32(np.abs(block).max() / 448)) or 1.0
            rounded[r : r + 128, c : c + 128] = nearest(E4M3, block / scale) * scale
    return rounded


def main(model, kind, out):
    os.makedirs(out)
    for name in os.listdir(model):
        if not name.endswith(".safetensors") and os.path.isfile(os.path.join(model, name)):
            shutil.copy(os.path.join(model, name), out)
    for name in (n for n in os.listdir(model) if n.endswith(".safetensors")):
        with open(os.path.join(model, name), "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header, data = json.loads(file.read(size)), bytearray(file.read())
        for tensor, entry in header.items():
            if tensor == "__metadata__" or not tensor.endswith("_proj.weight"):
                continue
            begin, end = entry["data_offsets"]
            assert entry["dtype"] == "BF16", "weights in bfloat16"
            words = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            weights = words.view(np.float32).astype(np.float64).reshape(entry["shape"])
            bits = globals()[kind](weights).astype(np.float32).view(np.uint32).ravel()
            data[begin:end] = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16).tobytes()
        with open(os.path.join(out, name), "wb") as file:
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            file.write(len(text).to_bytes(8, "little") + text + data)


if __name__ == "__main__":
    main(*sys.argv[1:])
