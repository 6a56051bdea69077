"""What the scripts of all peers share: their arguments, the calibration windows, and the dense result.

A peer is started as `use_PEER.py MODEL IDS LENGTH BITS GROUP OUT`: IDS is a file of little-endian int32 token ids, cut into
windows of LENGTH; OUT becomes a directory with the model's weights after rounding, in float32. So every peer is scored by
the same program, and none by its own kernels.
"""
import argparse
import json
import shutil
from pathlib import Path

import numpy as np


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("length", type=int)
    parser.add_argument("bits", type=int)
    parser.add_argument("group", type=int)
    parser.add_argument("out", type=Path)
    return parser.parse_args()


def windows(args):
    """The calibration windows, [windows, length]."""
    return np.fromfile(args.ids, dtype="<i4").astype(np.int64).reshape(-1, args.length)


def write_dense(args, tensors):
    """Writes tensors, a dict of name to torch tensor, as a float32 checkpoint beside the model's other files."""
    from safetensors.torch import save_file

    args.out.mkdir(parents=True, exist_ok=True)
    config = json.loads((args.model / "config.json").read_text())
    config.pop("dtype", None)
    (args.out / "config.json").write_text(json.dumps(dict(config, torch_dtype="float32"), indent=2) + "\n")
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        if (args.model / name).exists():
            shutil.copy(args.model / name, args.out)
    save_file({name: tensor.detach().float().contiguous() for name, tensor in tensors.items()},
              args.out / "model.safetensors")


def names(args):
    """The names of the tensors in the model's file."""
    from safetensors import safe_open

    with safe_open(args.model / "model.safetensors", "pt") as file:
        return list(file.keys())
