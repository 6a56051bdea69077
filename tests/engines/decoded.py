#!/usr/bin/env python3
"""What the formats' own libraries make of an export, beside the same OUT dequantized: every weight must be the same.

    decoded.py DIR DENSE

DIR is an export to compressed-tensors (asked is the package compressed-tensors, with torch), to fp8 (torch alone), or to gguf of a
Llama (asked is the package gguf); DENSE is `snrq export OUT --format safetensors --weights f32`. Prints how many modules were compared.
"""
import glob
import json
import os
import sys

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def tensors(directory, framework):
    from safetensors import safe_open

    found = {}
    for name in glob.glob(os.path.join(directory, "*.safetensors")):
        with safe_open(name, framework) as file:
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
        if part[0] != "blk" or part[2] not in NAMES:
            continue
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        if part[2] in heads:  # pairs of dimensions that are turned together lie side by side
            count = int(reader.fields[heads[part[2]]].contents())
            weights = weights.reshape(count, -1, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
        yield "model.layers.%s.%s" % (part[1], NAMES[part[2]]), weights


def main(directory, dense):
    import numpy as np

    expected, count = {key: value.float().numpy() for key, value in tensors(dense, "pt").items()}, 0
    if os.path.exists(os.path.join(directory, "model.gguf")):
        found = of_gguf(os.path.join(directory, "model.gguf"))
    else:
        with open(os.path.join(directory, "config.json")) as file:
            config = json.load(file)["quantization_config"]
        read = of_fp8 if config["quant_method"] == "fp8" else of_compressed_tensors
        found = read(config, tensors(directory, "pt"))
    for module, weights in found:
        different = np.count_nonzero(weights != expected[module + ".weight"])
        if different:
            sys.exit("%s: %d weights differ" % (module, different))
        count += 1
    print("%s: %d modules, all weights equal" % (directory, count))
    sys.exit(count == 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
