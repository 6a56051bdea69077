"""GPTQ of GPTQModel with its defaults but for bits, group and symmetry; its packed file is decoded here."""
import json
import os
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
import common  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from gptqmodel import GPTQModel, QuantizeConfig  # noqa: E402
from safetensors import safe_open  # noqa: E402


def unpack(words, bits, axis):
    """The codes of int32 words along an axis: a stream of bits, the lowest first."""
    stream = np.moveaxis(words.view(np.uint32), axis, -1)
    every = np.unpackbits(np.ascontiguousarray(stream).view(np.uint8), axis=-1, bitorder="little")
    every = every.reshape(*every.shape[:-1], -1, bits)
    return np.moveaxis((every.astype(np.int32) << np.arange(bits)).sum(-1), -1, axis)


def decode(file, stem, bits, zero_shift):
    """The weights [outputs, inputs] of a packed module."""
    part = {name: file.get_tensor("%s.%s" % (stem, name)) for name in ("qweight", "qzeros", "scales", "g_idx")}
    codes = unpack(part["qweight"].numpy(), bits, 0)
    zeros = unpack(part["qzeros"].numpy(), bits, 1) + zero_shift
    group = part["g_idx"].numpy()
    return torch.from_numpy((part["scales"].float().numpy()[group] * (codes - zeros[group])).T.copy())


def main():
    args = common.arguments()
    packed = Path(str(args.out) + "-packed")
    model = GPTQModel.load(str(args.model),
                           QuantizeConfig(bits=args.bits, group_size=args.group, sym=True, device="cpu"))
    rows = [{"input_ids": row.tolist(), "attention_mask": [1] * args.length} for row in common.windows(args)]
    model.quantize(rows, batch_size=1)
    model.save(str(packed))
    shift = 0 if json.loads((packed / "config.json").read_text())["quantization_config"].get(
        "checkpoint_format") == "gptq_v2" else 1
    tensors = {}
    with safe_open(args.model / "model.safetensors", "pt") as source:
        for path in sorted(packed.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    if name.endswith(".qweight"):
                        stem = name[:-len(".qweight")]
                        tensors[stem + ".weight"] = decode(file, stem, args.bits, shift)
        for name in source.keys():
            tensors.setdefault(name, source.get_tensor(name))
    common.write_dense(args, tensors)


if __name__ == "__main__":
    main()
