#!/usr/bin/env python3
"""llama.cpp's own llama_model_quantize(), which is what llama-quantize runs, from the package llama-cpp-py-sync.

    llama_quantize.py SOURCE.gguf TARGET.gguf TYPE [IMATRIX.npz]     TYPE: q4_k_m, q2_k, q4_0, ...; all modules of one: pure:q4_0

IMATRIX.npz: the mean square of the inputs of each tensor, by its name in the file. Prints the type of each tensor that
has become another, as JSON. Needs cffi, numpy and gguf.
"""
import json
import sys

import gguf
import numpy as np
from llama_cpp_py_sync import _cffi_bindings as bindings

# enum llama_ftype
FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13,
              "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "q2_k_s": 21, "iq4_nl": 25, "iq4_xs": 30,
              "q3_k": 11, "q4_k": 14, "q5_k": 16}


def imatrix_of(ffi, importance, kept):
    """An array of llama_model_imatrix_data that ends with an empty one. Everything it points to goes into `kept`."""
    rows = ffi.new("struct llama_model_imatrix_data[]", len(importance) + 1)
    for row, (name, values) in zip(rows, importance.items()):
        values = np.ascontiguousarray(values, "<f4").ravel()
        text = ffi.new("char[]", name.encode())
        kept += [values, text]
        row.name, row.data, row.size = text, ffi.cast("float *", values.ctypes.data), values.size
    kept.append(rows)
    return rows


def quantize(source, target, kind, importance=None):
    """Of kind "pure:q4_0", embeddings and head stay as they are."""
    ffi, library, kept = bindings.get_ffi(), bindings.get_lib(), []
    library.llama_backend_init()
    settings = ffi.new("llama_model_quantize_params *")
    settings[0] = library.llama_model_quantize_default_params()
    settings.nthread, settings.pure = 1, kind.startswith("pure:")
    settings.ftype = FILE_TYPES[kind.split(":")[-1]]
    settings.allow_requantize = True
    if settings.pure:
        settings.quantize_output_tensor = False
        settings.token_embedding_type = int(gguf.GGMLQuantizationType.F32)
    if importance:
        settings.imatrix = imatrix_of(ffi, importance, kept)
    if library.llama_model_quantize(source.encode(), target.encode(), settings) != 0:
        raise SystemExit("llama_model_quantize failed")


def types_of(path):
    """{tensor: type} of the matrices of a file."""
    return {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1}


def main():
    source, target, kind = sys.argv[1:4]
    importance = dict(np.load(sys.argv[4])) if len(sys.argv) > 4 else None
    quantize(source, target, kind, importance)
    before = types_of(source)
    print(json.dumps({name: kind for name, kind in types_of(target).items() if kind != before[name]}, indent=1))


if __name__ == "__main__":
    main()
