"""Decodes exports with the formats' own libraries, and compares every weight with that of the same output in safetensors.

A job has "path" and "dense", a directory of `export --format safetensors --weights f32`; its answer is "compared", how many
tensors, and "different", {name: how many weights}.
"""
import importlib.metadata
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import decoded
import protocol

PACKAGES = ["gguf", "compressed-tensors", "torch"]


def installed():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def answer(job):
    compared, different = decoded.compare(job["path"], job["dense"])
    return {"compared": compared, "different": different}


protocol.serve(installed(), answer)
