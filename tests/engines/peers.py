#!/usr/bin/env python3
"""Quality beside llama-quantize with an importance matrix, at equal types and calibration tokens: the table of docs/gguf.md.

    peers.py SNRQ MODEL TRAIN.i32 HELD_OUT.txt FOLDER WINDOWS LENGTH KIND [KIND ...]

SNRQ is the program, MODEL a Llama in safetensors. For each KIND, a format ("q4_k": all modules are of this type,
embeddings and head as they are) or a preset ("q4_k_m"), and for each of three calibration sets (SNRQ_SETS=0,2: of
these), which are runs of WINDOWS windows of TRAIN.i32: quantizes with llama_quantize.py, and with snrq. The types of
the file that snrq exports must be those of llama.cpp's file: else the program ends. Both are evaluated by `snrq
evaluate`, on 32 windows of HELD_OUT.txt (SNRQ_HELD_OUT=N: on N). The importance matrix is the mean square of each
input in a forward pass by numpy (ggml_types.py), as llama-imatrix makes it. Needs numpy, gguf, cffi, xllamacpp and
llama-cpp-py-sync, which wants glibc 2.38.
"""
import collections
import json
import os
import shutil
import subprocess
import sys

import gguf
import numpy as np

import ggml_types
import llama_quantize

PRESETS = ("q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "preset:q2_k", "preset:q6_k")
PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def name_in_model(name):
    """model.layers.0.mlp.up_proj.weight of blk.0.ffn_up.weight."""
    words = name.split(".")
    if words[0] != "blk":
        return WHOLE[words[0]] + ".weight"
    return "model.layers.%s.%s.weight" % (words[1], PARTS[words[2]])


def name_in_file(name):
    words = name.split(".")
    part = {long: short for short, long in PARTS.items()}[".".join(words[3:5])]
    return "blk.%s.%s.weight" % (words[2], part)


def weights_of(path, config):
    """{name: float32} of a GGUF file of a Llama, under the names of the checkpoint, rows in its order."""
    weights, head = {}, config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype("<f4")
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            values = values.reshape(-1, head // 2, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        weights[name_in_model(tensor.name)] = values
    return weights


def importance_of(model, config, tokens, length):
    """The importance matrix, by the names of the file."""
    forward = ggml_types.Forward(config, ggml_types.read_weights(model), length)
    for row in tokens.reshape(-1, length):
        forward.run(row)
    return {name_in_file(name): power / len(tokens) for name, power in forward.power.items()}


def peer(model, config, source, kind, importance, out):
    """A checkpoint with what llama-quantize makes of the model."""
    target = out + ".gguf"
    pure = kind not in PRESETS
    llama_quantize.quantize(source, target, ("pure:" if pure else "") + kind.split(":")[-1], importance)
    os.makedirs(out)
    for file in os.listdir(model):
        if file.startswith("tokenizer"):
            shutil.copy(os.path.join(model, file), out)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(config, torch_dtype="float32"), f)
    ggml_types.write_weights(os.path.join(out, "model.safetensors"), weights_of(target, config))


def compare_types(snrq, out, types, preset):
    """Ends if what snrq made has other types, in a file of its own, than llama.cpp's."""
    run(snrq, "export", out, "--format", "gguf", "-o", out + ".export")
    ours = llama_quantize.types_of(os.path.join(out + ".export", "model.gguf"))
    shutil.rmtree(out + ".export")
    other = {name: (stored, ours.get(name)) for name, stored in types.items()
             if (preset or name.startswith("blk.")) and ours.get(name) != stored}
    if other:
        raise SystemExit("types of llama.cpp and of snrq: %s" % other)
    return collections.Counter(stored for name, stored in types.items() if name.startswith("blk."))


def run(*words):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit("%s: %s" % (" ".join(map(str, words)), done.stderr.decode(errors="replace")[-2000:]))
    return done.stdout.decode()


def evaluate(snrq, directory, model, text, length):
    """(KL, perplexity)"""
    told = json.loads(run(snrq, "evaluate", directory, "--reference", model, "--text", text, "--sequences",
                          os.environ.get("SNRQ_HELD_OUT", 32), "--length", length, "--json"))
    return told["kl"], told["perplexity"]


def main():
    snrq, model, train, text, folder, windows, length, *kinds = sys.argv[1:]
    windows, length = int(windows), int(length)
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    os.makedirs(folder, exist_ok=True)
    source = os.path.join(folder, "source")
    if not os.path.exists(source):
        run(snrq, "export", model, "--format", "gguf", "-o", source)
    for s in map(int, os.environ.get("SNRQ_SETS", "0,1,2").split(",")):
        tokens = np.fromfile(train, "<i4")[s * windows * length:(s + 1) * windows * length]
        ids = os.path.join(folder, "set-%d.i32" % s)
        tokens.tofile(ids)
        importance = importance_of(model, config, tokens, length)
        for kind in kinds:
            ours, theirs = (os.path.join(folder, "%s-%d-%s" % (kind.replace(":", "-"), s, who)) for who in ("snrq", "peer"))
            peer(model, config, os.path.join(source, "model.gguf"), kind, importance, theirs)
            types = llama_quantize.types_of(theirs + ".gguf")
            run(snrq, "quantize", model, "--token-file", ids, "--sequences", windows, "--length", length, "--held-out", 0,
                "--preset" if kind in PRESETS else "--format", kind.split(":")[-1], "-o", ours)
            count = compare_types(snrq, ours, types, kind in PRESETS)
            a, b = (evaluate(snrq, directory, model, text, length) for directory in (theirs, ours))
            print("%-12s set %d   ggml KL %.6f ppl %.4f   snrq KL %.6f ppl %.4f   less by %.1f %%   modules: %s" %
                  (kind, s, *a, *b, 100 - 100 * b[0] / a[0], ", ".join("%d %s" % (n, t) for t, n in count.items())), flush=True)
            for path in (ours, theirs):
                shutil.rmtree(path)
            os.remove(theirs + ".gguf")


if __name__ == "__main__":
    main()
