"""llama.cpp's own quantizers (ggml_quantize_chunk of a prebuilt library) with an importance matrix.

llama-quantize and llama-imatrix are in no wheel; this does what they do: the importance of an input column is its mean
square over the calibration tokens, in full precision, and every linear layer has the block type of its bits, or the one
that llama-quantize falls back to where 256 does not divide the row. Embedding and head stay as they are, as with all peers.
"""
import ctypes
from pathlib import Path

import common
import torch

# name: number in ggml, weights and bytes of a block
TYPES = {"q4_0": (2, 32, 18), "q5_0": (6, 32, 22), "q2_K": (10, 256, 84), "q3_K": (11, 256, 110),
         "q4_K": (12, 256, 144)}
WANTED = {2: ("q2_K", "q4_0"), 3: ("q3_K", "q4_0"), 4: ("q4_K", "q5_0")}


def library():
    import xllamacpp

    path, = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    lib = ctypes.CDLL(str(path))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                        ctypes.c_int64, ctypes.c_void_p]
    return lib


def importance(model, ids):
    """The mean square of every input column of every linear layer, by the layer's name."""
    sums, hooks = {}, []

    def watch(name):
        def add(_, inputs):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, 0) + (x * x).sum(0)
        return add

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            hooks.append(module.register_forward_pre_hook(watch(name)))
    for row in ids:
        model.model(torch.from_numpy(row)[None])
    for hook in hooks:
        hook.remove()
    return {name: (value / ids.size).float().contiguous() for name, value in sums.items()}


def round_trip(lib, weight, kind, weights):
    """A matrix after quantization to a block type and back, and its bytes."""
    number, block, size = TYPES[kind]
    rows, columns = weight.shape
    packed = ctypes.create_string_buffer(rows * columns // block * size)
    source, out = weight.float().contiguous(), torch.empty(rows, columns)
    used = lib.ggml_quantize_chunk(number, source.data_ptr(), packed, 0, rows, columns, weights.data_ptr())
    assert used == len(packed)
    decode = getattr(lib, "dequantize_row_" + kind)
    decode.argtypes, decode.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    decode(packed, out.data_ptr(), rows * columns)
    return out, used


def main():
    args = common.arguments()
    from transformers import AutoModelForCausalLM

    torch.set_grad_enabled(False)
    model, lib = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32), library()
    state, taken, count = model.state_dict(), 0, 0
    for name, weights in importance(model, common.windows(args)).items():
        key = name + ".weight"
        best, fallback = WANTED[args.bits]
        kind = best if state[key].shape[1] % TYPES[best][1] == 0 else fallback
        state[key], used = round_trip(lib, state[key], kind, weights)
        taken, count = taken + used, count + state[key].numel()
    print("bits per weight: %.3f" % (8 * taken / count))
    common.write_dense(args, {name: state[name] for name in common.names(args)})


if __name__ == "__main__":
    main()
