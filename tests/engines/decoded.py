#!/usr/bin/env python3
"""What the formats' own libraries make of an export, beside the same OUT dequantized: every weight must be the same.

    decoded.py DIR DENSE

DIR is an export to compressed-tensors (asked is the package compressed-tensors, with torch), to fp8 (torch alone), or to gguf of a
Llama (asked is the package gguf): of a GGUF file every tensor, of the others every quantized module. DENSE is `snrq export OUT --format
safetensors --weights f32`. Prints how many were compared. readers/weights.py asks the same within test-engines.
"""
import glob
import json
import os
import struct
import sys

import numpy as np

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
OUTSIDE = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}


def dense_weights(directory):
    """{name without ".weight": float32}"""
    found = {}
    for path in glob.glob(os.path.join(directory, "*.safetensors")):
        with open(path, "rb") as file:
            data = file.read()
        start = 8 + struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:start]).items():
            if name == "__metadata__":
                continue
            raw = data[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]]
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("<f4")
            found[name[:-len(".weight")]] = values.reshape(entry["shape"])
    return found


def tensors(directory):
    from safetensors import safe_open

    found = {}
    for name in glob.glob(os.path.join(directory, "*.safetensors")):
        with safe_open(name, "pt") as file:
            found.update((key, file.get_tensor(key)) for key in file.keys())
    return found


def of_compressed_tensors(config, stored):
    """{module: weights} as the package decompresses them."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    config = QuantizationConfig.model_validate({k: v for k, v in config.items() if k != "quant_method"})
    for group in config.config_groups.values():
        compressor = BaseCompressor.get_value_from_registry(group.format or config.format)
        for module in {key.rsplit(".", 1)[0] for key in stored if key.endswith("weight_scale")}:
            if group.targets == ["Linear"] or module in group.targets:
                own = {key[len(module) + 1:]: value for key, value in stored.items() if key.startswith(module + ".")}
                yield module, compressor.decompress(own, group)["weight"].float().numpy()


def of_fp8(config, stored):
    rows, columns = config["weight_block_size"]
    for key, scale in stored.items():
        if key.endswith(".weight_scale_inv"):
            weight = stored[key[:-len("_scale_inv")]].float()
            scale = scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
            yield key[:-len(".weight_scale_inv")], (weight * scale[:len(weight), :weight.shape[1]]).numpy()


def of_gguf(path):
    import gguf

    reader = gguf.GGUFReader(path)
    heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
    for tensor in reader.tensors:
        part = tensor.name.split(".")
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        if part[0] != "blk":
            yield OUTSIDE[part[0]], weights
            continue
        if part[2] in heads:  # pairs of dimensions that are turned together lie side by side
            count = int(reader.fields[heads[part[2]]].contents())
            weights = weights.reshape(count, -1, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
        yield "model.layers.%s.%s" % (part[1], NAMES[part[2]]), weights


def compare(path, dense):
    """(how many were compared, {name: weights that differ}). path: of the export's directory, or of the file in it."""
    if path.endswith(".gguf") or os.path.exists(os.path.join(path, "model.gguf")):
        found = of_gguf(path if path.endswith(".gguf") else os.path.join(path, "model.gguf"))
    else:
        with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
            config = json.load(file)["quantization_config"]
        found = (of_fp8 if config["quant_method"] == "fp8" else of_compressed_tensors)(config, tensors(path))
    expected, count, different = dense_weights(dense), 0, {}
    for name, weights in found:
        same = weights.view(np.uint32) == expected[name].view(np.uint32)
        same |= (weights == 0) & (expected[name] == 0)  # a level of 0 has no sign
        if not same.all():
            different[name] = int(np.count_nonzero(~same))
        count += 1
    return count, different


def main(path, dense):
    count, different = compare(path, dense)
    for name, weights in different.items():
        print("%s: %d weights differ" % (name, weights))
    if count > 0 and not different:
        print("%s: %d matrices, all weights equal" % (path, count))
    sys.exit(count == 0 or bool(different))


if __name__ == "__main__":
    main(*sys.argv[1:])
