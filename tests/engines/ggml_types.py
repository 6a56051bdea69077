#!/usr/bin/env python3
"""What llama-quantize makes of a model with one type for all modules and an importance matrix, to be compared with
`snrq quantize --format`. Rounding is ggml's own ggml_quantize_chunk(), as it is compiled into the package xllamacpp; the
importance matrix is the mean square of each input, over the first windows of a token file, by a forward pass in numpy.

    ggml_types.py MODEL TOKENS.i32 LENGTH WINDOWS TYPE OUT

MODEL is a Llama in safetensors. OUT becomes a directory with the same model in F32, its modules rounded: for
`snrq evaluate OUT --reference MODEL`. Needs numpy, gguf and xllamacpp. docs/gguf.md has what came out.
"""
import ctypes
import json
import os
import shutil
import struct
import sys

import gguf
import numpy as np
import xllamacpp.xllamacpp

NARROW = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def read_weights(directory):
    """{name: float32} of all safetensors files."""
    weights = {}
    for file in sorted(os.listdir(directory)):
        if not file.endswith(".safetensors"):
            continue
        with open(os.path.join(directory, file), "rb") as f:
            data = f.read()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + x for x in entry["data_offsets"])
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(data[begin:end], {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("<f4")
            weights[name] = values.reshape(entry["shape"])
    return weights


def write_weights(path, weights):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(weights):
        header[name] = {"dtype": "F32", "shape": list(weights[name].shape), "data_offsets": [at, at + weights[name].nbytes]}
        at += weights[name].nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(weights):
            f.write(np.ascontiguousarray(weights[name], "<f4").tobytes())


class Forward:
    """Sums of squares of the inputs of every module."""

    def __init__(self, config, weights, length):
        self.c, self.w, self.power = config, weights, {}
        self.head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        frequency = config.get("rope_theta", 10000.0) ** (-np.arange(0, self.head, 2, dtype=np.float32) / self.head)
        angle = np.arange(length, dtype=np.float32)[:, None] * frequency
        self.cos, self.sin = np.tile(np.cos(angle), 2), np.concatenate([-np.sin(angle), np.sin(angle)], 1)

    def linear(self, x, name):
        self.power[name] = self.power.get(name, 0) + np.square(x.astype(np.float64)).sum(0)
        return x @ self.w[name].T

    def norm(self, x, name):
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]) * self.w[name]

    def heads(self, x, turned):
        """[heads, tokens, head]"""
        x = x.reshape(len(x), -1, self.head).swapaxes(0, 1)
        return x * self.cos + np.roll(x, self.head // 2, -1) * self.sin if turned else x

    def attend(self, y, prefix):
        q, k, v = (self.heads(self.linear(y, prefix + "self_attn.%s_proj.weight" % m), m != "v") for m in "qkv")
        group = len(q) // len(k)
        scores = q @ np.repeat(k, group, 0).swapaxes(1, 2) * np.float32(self.head ** -0.5)
        scores += np.triu(np.full(scores.shape[1:], -1e30, np.float32), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ np.repeat(v, group, 0)
        return self.linear(mixed.swapaxes(0, 1).reshape(len(y), -1), prefix + "self_attn.o_proj.weight")

    def run(self, ids):
        x = self.w["model.embed_tokens.weight"][ids]
        for layer in range(self.c["num_hidden_layers"]):
            prefix = "model.layers.%d." % layer
            x = x + self.attend(self.norm(x, prefix + "input_layernorm.weight"), prefix)
            y = self.norm(x, prefix + "post_attention_layernorm.weight")
            gate = self.linear(y, prefix + "mlp.gate_proj.weight")
            y = gate / (1 + np.exp(-gate)) * self.linear(y, prefix + "mlp.up_proj.weight")
            x = x + self.linear(y, prefix + "mlp.down_proj.weight")


def round_matrix(library, kind, weights, importance):
    """By ggml, there and back. Rows that have no whole blocks get the type that llama-quantize gives them."""
    types = gguf.GGMLQuantizationType
    rows, columns = weights.shape
    kind = types[kind if columns % gguf.GGML_QUANT_SIZES[types[kind]][0] == 0 else NARROW[kind]]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    source, matrix = np.ascontiguousarray(weights, "<f4"), np.ascontiguousarray(importance, "<f4")
    stored = np.zeros((rows, columns // block * size), np.uint8)
    library.ggml_quantize_init(ctypes.c_int(kind))
    library.ggml_quantize_chunk(ctypes.c_int(kind), ctypes.c_void_p(source.ctypes.data), ctypes.c_void_p(stored.ctypes.data),
                                ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(columns),
                                ctypes.c_void_p(matrix.ctypes.data))
    return gguf.dequantize(stored, kind).reshape(rows, columns)


def main():
    model, tokens, length, windows, kind, out = sys.argv[1:]
    length, windows = int(length), int(windows)
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    weights = read_weights(model)
    forward = Forward(config, weights, length)
    for row in np.fromfile(tokens, "<i4")[:length * windows].reshape(windows, length):
        forward.run(row)
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    for name, power in forward.power.items():
        weights[name] = round_matrix(library, kind.upper(), weights[name], power / (length * windows))
    os.makedirs(out)
    for file in os.listdir(model):
        if file.startswith("tokenizer"):
            shutil.copy(os.path.join(model, file), out)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(config, torch_dtype="float32"), f)
    write_weights(os.path.join(out, "model.safetensors"), weights)


if __name__ == "__main__":
    main()
