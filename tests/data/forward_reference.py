#!/usr/bin/env python3
"""Reference forward pass of Llama, Mistral, Qwen3 and Phi-3 models in numpy float64.

    forward_reference.py MODEL_DIR --ids 1,5,7       log p of every next token
    forward_reference.py MODEL_DIR --text FILE       the same for a text
    forward_reference.py MODEL_DIR --check FILE      compare with a reference.json
    forward_reference.py MODEL_DIR --write FILE --heldout TEXT
                                                     make a reference.json

Weights are taken as stored (BF16, F16, F32 or F64; one file or shards) and
all arithmetic is float64, so the results are good to far more digits than any
float32 program reaches.  Written to be read, one token position after the
other layer by layer, and independent of the training code: it shares only
the plain tokenizer (--text and --write need a SentencePiece-BPE
tokenizer.json).  Rope scaling of type linear, llama3 and longrope is known;
other types are refused.
"""
import argparse
import json
import math
import os
import struct
import sys

import numpy as np


def tensors_of_file(path):
    with open(path, "rb") as f:
        data = f.read()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size].decode("utf-8"))
    header.pop("__metadata__", None)
    body = data[8 + size:]
    out = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        raw, kind = body[begin:end], info["dtype"]
        if kind == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        elif kind in ("F16", "F32", "F64"):
            values = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind])
        else:
            continue
        out[name] = values.astype(np.float64).reshape(info["shape"])
    return out


class Model:
    def __init__(self, directory):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
            c = json.load(f)
        if c["model_type"] not in ("llama", "mistral", "qwen3", "phi3"):
            raise SystemExit("model type not known: " + c["model_type"])
        index = os.path.join(directory, "model.safetensors.index.json")
        if os.path.exists(index):
            with open(index, encoding="utf-8") as f:
                files = sorted(set(json.load(f)["weight_map"].values()))
        else:
            files = ["model.safetensors"]
        self.w = {}
        for name in files:
            self.w.update(tensors_of_file(os.path.join(directory, name)))
        self.layers = c["num_hidden_layers"]
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads") or self.heads
        self.hd = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps = c["rms_norm_eps"]
        self.c = c
        self.tied = c.get("tie_word_embeddings", False)
        if c.get("hidden_act", "silu") != "silu":
            raise SystemExit("activation not known: " + c["hidden_act"])

    def window(self, layer):
        """Position i sees i - window + 1 to i in this layer."""
        width = self.c.get("sliding_window")
        if self.c["model_type"] == "qwen3":
            kinds = self.c.get("layer_types")
            if not self.c.get("use_sliding_window"):
                width = None
            elif kinds:
                width = width if kinds[layer] == "sliding_attention" else None
            elif layer < self.c["max_window_layers"]:
                width = None
        return width or 10 ** 9

    def angles(self, n):
        """[positions, pairs] angles, and the factor of their cosines and sines."""
        c = self.c
        scaling = c.get("rope_scaling") or c.get("rope_parameters") or {}
        theta = scaling.get("rope_theta", c.get("rope_theta", 10000.0))
        share = scaling.get("partial_rotary_factor", c.get("partial_rotary_factor", 1.0))
        turned = int(self.hd * share)
        freq = [theta ** (-2.0 * i / turned) for i in range(turned // 2)]
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        factor = 1.0
        if kind == "linear":
            freq = [f / scaling["factor"] for f in freq]
        elif kind == "llama3":
            freq = [self.llama3(f, scaling) for f in freq]
        elif kind == "longrope":
            original = c.get("original_max_position_embeddings", scaling.get("original_max_position_embeddings"))
            stretch = scaling["long_factor" if n > original else "short_factor"]
            freq = [f / s for f, s in zip(freq, stretch)]
            longer = c["max_position_embeddings"] / original
            factor = math.sqrt(1 + math.log(longer) / math.log(original)) if longer > 1 else 1.0
        elif kind != "default":
            raise SystemExit("rope scaling not known: %s" % kind)
        return np.outer(np.arange(n), freq), factor

    @staticmethod
    def llama3(f, s):
        """Long waves are stretched, short ones kept, those between blended."""
        turns = s["original_max_position_embeddings"] * f / (2 * math.pi)
        if turns < s["low_freq_factor"]:
            return f / s["factor"]
        if turns > s["high_freq_factor"]:
            return f
        t = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        return (1 - t) * f / s["factor"] + t * f

    def norm(self, x, name):
        g = self.w[name + ".weight"].astype(x.dtype)
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(self.eps)) * g

    def linear(self, x, name):
        y = x @ self.w[name + ".weight"].astype(x.dtype).T
        if name + ".bias" in self.w:
            y = y + self.w[name + ".bias"].astype(x.dtype)
        return y

    def rope(self, x, cos, sin):
        """x: positions, heads, head_dim; pair i is dimensions i and i + pairs, the rest of a head stays."""
        pairs = cos.shape[-1]
        a, b, rest = x[..., :pairs], x[..., pairs:2 * pairs], x[..., 2 * pairs:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    def heads_of(self, y, layer, cos, sin):
        """Queries, keys and values of a layer, each [positions, heads, head_dim]."""
        p = "model.layers.%d.self_attn." % layer
        if p + "qkv_proj.weight" in self.w:
            ends = [self.heads * self.hd, (self.heads + self.kv_heads) * self.hd]
            q, k, v = np.split(self.linear(y, p + "qkv_proj"), ends, axis=1)
        else:
            q, k, v = (self.linear(y, p + name) for name in ("q_proj", "k_proj", "v_proj"))
        q, k, v = (x.reshape(len(y), -1, self.hd) for x in (q, k, v))
        if p + "q_norm.weight" in self.w:
            q, k = self.norm(q, p + "q_norm"), self.norm(k, p + "k_norm")
        return self.rope(q, cos, sin), self.rope(k, cos, sin), v

    def gate_and_up(self, y, layer):
        p = "model.layers.%d.mlp." % layer
        if p + "gate_up_proj.weight" in self.w:
            return np.split(self.linear(y, p + "gate_up_proj"), 2, axis=1)
        return self.linear(y, p + "gate_proj"), self.linear(y, p + "up_proj")

    def logits(self, ids, dtype=np.float64):
        """Row t: the logits after ids[0..t]."""
        n = len(ids)
        angle, factor = self.angles(n)
        cos, sin = (dtype(factor) * part(angle).astype(dtype)[:, None] for part in (np.cos, np.sin))
        x = self.w["model.embed_tokens.weight"][np.array(ids)].astype(dtype)
        for layer in range(self.layers):
            p, window = "model.layers.%d." % layer, self.window(layer)
            q, k, v = self.heads_of(self.norm(x, p + "input_layernorm"), layer, cos, sin)
            out = np.empty((n, self.heads, self.hd), dtype)
            for head in range(self.heads):
                kv = head * self.kv_heads // self.heads
                for t in range(n):
                    seen = slice(max(0, t - window + 1), t + 1)
                    score = k[seen, kv] @ q[t, head] / dtype(math.sqrt(self.hd))
                    weight = np.exp(score - score.max())
                    out[t, head] = (weight / weight.sum()) @ v[seen, kv]
            x = x + self.linear(out.reshape(n, -1), p + "self_attn.o_proj")
            gate, up = self.gate_and_up(self.norm(x, p + "post_attention_layernorm"), layer)
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, p + "mlp.down_proj")
        x = self.norm(x, "model.norm")
        return self.linear(x, "model.embed_tokens" if self.tied or "lm_head.weight" not in self.w else "lm_head")

    def log_p(self, ids, dtype=np.float64):
        """Row t: log p of every token after ids[0..t]."""
        z = self.logits(ids, dtype)
        z = z - z.max(axis=-1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def listed(lp, ids):
    return np.array([lp[t, ids[t + 1]] for t in range(len(ids) - 1)])


def best(lp_row, count=5):
    order = np.lexsort((np.arange(len(lp_row)), -lp_row))[:count]
    return [[int(i), round(float(lp_row[i]), 7)] for i in order]


def check(model, path):
    with open(path, encoding="utf-8") as f:
        reference = json.load(f)
    worst = 0.0
    for case in reference["cases"]:
        lp = model.log_p(case["ids"])
        got = listed(lp, case["ids"])
        diff = float(np.abs(got - np.array(case["logprobs"])).max()) if len(got) else 0.0
        for i, value in case["last_top5"]:
            diff = max(diff, abs(float(lp[-1, i]) - value))
        same_order = [i for i, _ in best(lp[-1])] == [i for i, _ in case["last_top5"]]
        if not same_order:
            diff = max(diff, 1.0)
        worst = max(worst, diff)
        print("%4d tokens: largest difference %.2e, sum %.6f (%.6f)" % (len(case["ids"]), diff, got.sum(), case["sum"]))
    print("largest difference %.2e" % worst)
    return worst


def write(model, tokenizer, heldout, path):
    with open(heldout, encoding="utf-8", newline="") as f:
        text = f.read()
    stories = text.split("\n\n")
    texts = ["Once upon a time", "Hello", "\"Have you seen my red kite?\" asked Tom. \"No,\" said the fox.\n",
             "Caf\u00e9 \u2014 12 \U0001F600 <s> done", stories[0], "\n\n".join(stories[1:7])]
    cases, diff_listed, diff_all = [], 0.0, 0.0
    for text in texts:
        full = tokenizer.encode(text)
        ids = full[:256]
        lp = model.log_p(ids)
        lp32 = model.log_p(ids, np.float32)
        diff_all = max(diff_all, float(np.abs(lp - lp32).max()))
        diff_listed = max(diff_listed, float(np.abs(listed(lp, ids) - listed(lp32, ids)).max()))
        values = listed(lp, ids)
        cases.append({"text": text, "n_tokens_of_full_text": len(full), "ids": ids,
                      "logprobs": [round(float(x), 7) for x in values], "sum": round(float(values.sum()), 6),
                      "last_top5": best(lp[-1])})
    reference = {
        "note": "ids by make_vectors.py (special tokens on), then cut to 256",
        "computed": "numpy float64, weights as stored, forward_reference.py",
        "fields": "logprobs[t] = log p(ids[t+1] | ids[0..t]); last_top5 = [id, logprob] after the whole sequence; "
                  "ids are truncated to len(ids), the full text has n_tokens_of_full_text",
        "float32_numpy_max_abs_diff": {"listed_logprobs": float("%.2g" % diff_listed),
                                       "whole_vocabulary": float("%.2g" % diff_all)},
        "cases": cases}
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(json.dumps(reference, separators=(",", ":")) + "\n")
    print("%d cases of %s tokens" % (len(cases), ", ".join(str(len(c["ids"])) for c in cases)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--ids", help="comma separated token ids")
    parser.add_argument("--text", help="file with the text")
    parser.add_argument("--check", metavar="FILE", help="reference.json to compare with")
    parser.add_argument("--write", metavar="FILE", help="reference.json to make")
    parser.add_argument("--heldout", help="text for --write")
    args = parser.parse_args()
    model = Model(args.model)
    if args.check:
        sys.exit(0 if check(model, args.check) <= 1e-6 else 1)
    if args.text or args.write:
        from make_vectors import Tokenizer
        tokenizer = Tokenizer(os.path.join(args.model, "tokenizer.json"))
    if args.write:
        write(model, tokenizer, args.heldout, args.write)
        return
    if args.text:
        with open(args.text, encoding="utf-8", newline="") as f:
            ids = tokenizer.encode(f.read())
    else:
        ids = [int(i) for i in args.ids.split(",")]
    lp = model.log_p(ids)
    values = listed(lp, ids)
    for t, value in enumerate(values):
        print("%d %d %.7f" % (t + 1, ids[t + 1], value))
    print("sum %.6f" % values.sum())
    print("best after the last token: " + " ".join("%d:%.7f" % (i, v) for i, v in best(lp[-1])))


if __name__ == "__main__":
    main()
