#!/usr/bin/env python3
"""Reference forward pass of the supported families in numpy float64.

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
tokenizer.json).  Rope scaling of type linear, llama3, longrope and yarn is
known; other types are refused.
"""
import argparse
import json
import math
import os
import struct
import sys

import numpy as np


KINDS = ("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "gemma2", "gemma3_text", "granite", "smollm3",
         "mixtral", "qwen3_moe", "olmoe", "deepseek_v3")


def e4m3(codes):
    """Numbers of 8 bits: sign, 4 bits of exponent (bias 7), 3 of mantissa."""
    sign = np.where(codes & 128, -1.0, 1.0)
    exponent, mantissa = (codes >> 3 & 15).astype(int), codes & 7
    return sign * np.where(exponent, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa * 2.0 ** -9)


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
        elif kind == "F8_E4M3":
            values = e4m3(np.frombuffer(raw, np.uint8))
        else:
            continue
        out[name] = values.astype(np.float64).reshape(info["shape"])
    return out


class Model:
    def __init__(self, directory):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
            c = json.load(f)
        self.kind = c["model_type"]
        if self.kind not in KINDS:
            raise SystemExit("model type not known: " + self.kind)
        self.gemma = self.kind.startswith("gemma")
        index = os.path.join(directory, "model.safetensors.index.json")
        if os.path.exists(index):
            with open(index, encoding="utf-8") as f:
                files = sorted(set(json.load(f)["weight_map"].values()))
        else:
            files = ["model.safetensors"]
        self.w = {}
        for name in files:
            self.w.update(tensors_of_file(os.path.join(directory, name)))
        size = (c.get("quantization_config") or {}).get("weight_block_size")
        for name in [name for name in self.w if name.endswith("_scale_inv")]:
            scales, w = self.w[name], self.w[name[:-len("_scale_inv")]]
            w *= np.repeat(np.repeat(scales, size[0], 0)[:len(w)], size[1], 1)[:, :w.shape[1]]
        self.layers = c["num_hidden_layers"]
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads") or self.heads
        self.hd = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps = c["rms_norm_eps"]
        self.c = c
        self.tied = c.get("tie_word_embeddings", self.gemma or self.kind == "smollm3")
        if c.get("hidden_act", "silu") not in ("silu", "gelu_pytorch_tanh"):
            raise SystemExit("activation not known: " + c["hidden_act"])

    def slides(self, layer):
        """Whether position i of this layer sees a window, where the model has one at all."""
        c, kinds = self.c, self.c.get("layer_types")
        if self.kind in ("qwen2", "qwen3", "qwen3_moe", "smollm3") and not c.get("use_sliding_window"):
            return False
        if kinds:
            return kinds[layer] == "sliding_attention"
        if self.kind in ("qwen2", "qwen3"):
            return layer >= c["max_window_layers"]
        if self.kind == "smollm3":
            return not self.turns(layer)
        if self.kind == "gemma2":
            return layer % 2 == 0
        if self.kind == "gemma3_text":
            return (layer + 1) % c.get("sliding_window_pattern", 6) != 0
        return True

    def turns(self, layer):
        """Whether the heads of this layer are turned at all."""
        if self.kind != "smollm3":
            return True
        given = self.c.get("no_rope_layers")
        return given[layer] == 1 if given else (layer + 1) % self.c.get("no_rope_layer_interval", 4) != 0

    def window(self, layer):
        """Position i sees i - window + 1 to i in this layer."""
        width = self.c.get("sliding_window") if self.slides(layer) else None
        return width or 10 ** 9

    def angles(self, n, layer):
        """[positions, pairs] angles, and the factor of their cosines and sines."""
        c = self.c
        if self.kind == "gemma3_text" and self.slides(layer):
            theta = c.get("rope_local_base_freq", 10000.0)
            return np.outer(np.arange(n), [theta ** (-2.0 * i / self.hd) for i in range(self.hd // 2)]), 1.0
        scaling = c.get("rope_scaling") or c.get("rope_parameters") or {}
        theta = scaling.get("rope_theta", c.get("rope_theta", 10000.0))
        share = scaling.get("partial_rotary_factor", c.get("partial_rotary_factor", 1.0))
        turned = int(c.get("qk_rope_head_dim", self.hd) * share)
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
        elif kind == "yarn":
            freq, factor = self.yarn(freq, theta, turned, scaling)
        elif kind != "default":
            raise SystemExit("rope scaling not known: %s" % kind)
        return np.outer(np.arange(n), freq), factor

    @staticmethod
    def yarn(freq, theta, turned, s):
        """Waves that turn often are kept, those that turn seldom are stretched, between them a ramp."""
        edges = [turned * math.log(s["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(theta))
                 for turns in (s.get("beta_fast", 32), s.get("beta_slow", 1))]
        low, high = max(math.floor(edges[0]), 0), min(math.ceil(edges[1]), turned - 1)
        kept = [1 - min(max((i - low) / ((high - low) or 0.001), 0), 1) for i in range(len(freq))]
        scale = [0.1 * s[key] * math.log(s["factor"]) + 1 for key in ("mscale", "mscale_all_dim") if s.get(key)]
        factor = scale[0] / scale[1] if len(scale) == 2 else 0.1 * math.log(s["factor"]) + 1
        return [f * k + f / s["factor"] * (1 - k) for f, k in zip(freq, kept)], factor

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

    def norm(self, x, name, eps=None):
        g = self.w[name + ".weight"].astype(x.dtype) + x.dtype.type(self.gemma)
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(eps or self.eps)) * g

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

    def rope_of_neighbours(self, x, cos, sin):
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)

    def heads_of(self, y, layer, cos, sin):
        """Queries, keys and values of a layer, each [positions, heads, width of a head]."""
        p = "model.layers.%d.self_attn." % layer
        if self.kind == "deepseek_v3":
            return self.latent_heads_of(y, p, cos, sin)
        if p + "qkv_proj.weight" in self.w:
            ends = [self.heads * self.hd, (self.heads + self.kv_heads) * self.hd]
            q, k, v = np.split(self.linear(y, p + "qkv_proj"), ends, axis=1)
        else:
            q, k, v = (self.linear(y, p + name) for name in ("q_proj", "k_proj", "v_proj"))
        whole = self.kind in ("olmo2", "olmoe")  # norms of all heads as one vector
        if p + "q_norm.weight" in self.w and whole:
            q, k = self.norm(q, p + "q_norm"), self.norm(k, p + "k_norm")
        if self.c.get("clip_qkv"):
            q, k, v = (np.clip(x, -self.c["clip_qkv"], self.c["clip_qkv"]) for x in (q, k, v))
        q, k, v = (x.reshape(len(y), -1, self.hd) for x in (q, k, v))
        if p + "q_norm.weight" in self.w and not whole:
            q, k = self.norm(q, p + "q_norm"), self.norm(k, p + "k_norm")
        if not self.turns(layer):
            return q, k, v
        return self.rope(q, cos, sin), self.rope(k, cos, sin), v

    def latent_heads_of(self, y, p, cos, sin):
        c = self.c
        still, turned, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        turn = self.rope_of_neighbours if c.get("rope_interleave", True) else self.rope
        if c.get("q_lora_rank"):
            q = self.linear(self.norm(self.linear(y, p + "q_a_proj"), p + "q_a_layernorm", 1e-6), p + "q_b_proj")
        else:
            q = self.linear(y, p + "q_proj")
        q = q.reshape(len(y), self.heads, still + turned)
        latent = self.linear(y, p + "kv_a_proj_with_mqa")
        kv = self.linear(self.norm(latent[:, :c["kv_lora_rank"]], p + "kv_a_layernorm", 1e-6), p + "kv_b_proj")
        kv = kv.reshape(len(y), self.heads, still + value)
        key = np.repeat(turn(latent[:, None, c["kv_lora_rank"]:], cos, sin), self.heads, axis=1)
        return (np.concatenate([q[..., :still], turn(q[..., still:], cos, sin)], axis=-1),
                np.concatenate([kv[..., :still], key], axis=-1), kv[..., still:])

    def score_scale(self, width):
        c = self.c
        if self.gemma:
            return c["query_pre_attn_scalar"] ** -0.5
        if self.kind == "granite":
            return c["attention_multiplier"]
        scaling = c.get("rope_scaling") or {}
        stretch = scaling.get("mscale_all_dim", 0) if self.kind == "deepseek_v3" else 0
        return width ** -0.5 * (0.1 * stretch * math.log(scaling["factor"]) + 1 if stretch else 1) ** 2

    def attention(self, y, layer):
        n, dtype = len(y), y.dtype.type
        angle, factor = self.angles(n, layer)
        cos, sin = (dtype(factor) * part(angle).astype(dtype)[:, None] for part in (np.cos, np.sin))
        q, k, v = self.heads_of(y, layer, cos, sin)
        scale, window, cap = dtype(self.score_scale(q.shape[-1])), self.window(layer), self.c.get("attn_logit_softcapping")
        out = np.empty((n, self.heads, v.shape[-1]), dtype)
        for head in range(self.heads):
            kv = head * k.shape[1] // self.heads
            for t in range(n):
                seen = slice(max(0, t - window + 1), t + 1)
                score = k[seen, kv] @ q[t, head] * scale
                if cap and self.kind == "gemma2":
                    score = dtype(cap) * np.tanh(score / dtype(cap))
                weight = np.exp(score - score.max())
                out[t, head] = (weight / weight.sum()) @ v[seen, kv]
        return self.linear(out.reshape(n, -1), "model.layers.%d.self_attn.o_proj" % layer)

    def act(self, x):
        if self.gemma or self.c.get("hidden_act") == "gelu_pytorch_tanh":
            return x / 2 * (1 + np.tanh(x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x ** 3)))
        return x / (1 + np.exp(-x))

    def mlp(self, y, p, names=("gate_proj", "up_proj", "down_proj")):
        if p + "gate_up_proj.weight" in self.w:
            gate, up = np.split(self.linear(y, p + "gate_up_proj"), 2, axis=1)
        else:
            gate, up = self.linear(y, p + names[0]), self.linear(y, p + names[1])
        return self.linear(self.act(gate) * up, p + names[2])

    def chosen(self, logits, bias):
        """{expert: weight} of one token."""
        c, count = self.c, self.c["num_experts_per_tok"]
        if bias is None:
            p = np.exp(logits - logits.max())
            p = p / p.sum()
            best = sorted(range(len(p)), key=lambda e: (-p[e], e))[:count]
            total = p[best].sum() if self.kind == "mixtral" or c.get("norm_topk_prob") else 1
            return {e: p[e] / total for e in best}
        p = 1 / (1 + np.exp(-logits))
        score, size = p + bias, len(p) // c["n_group"]
        groups = [np.sort(score[g * size:(g + 1) * size])[-2:].sum() for g in range(c["n_group"])]
        kept = sorted(range(c["n_group"]), key=lambda g: (-groups[g], g))[:c["topk_group"]]
        best = sorted((e for e in range(len(p)) if e // size in kept), key=lambda e: (-score[e], e))[:count]
        total = p[best].sum() + 1e-20 if c["norm_topk_prob"] else 1
        return {e: p[e] / total * c["routed_scaling_factor"] for e in best}

    def experts(self, y, layer):
        p, names = "model.layers.%d.mlp." % layer, ("gate_proj", "up_proj", "down_proj")
        if self.kind == "mixtral":
            p, names = "model.layers.%d.block_sparse_moe." % layer, ("w1", "w3", "w2")
        bias = self.w.get(p + "gate.e_score_correction_bias")
        out = np.zeros_like(y)
        for t, logits in enumerate(self.linear(y, p + "gate")):
            for expert, weight in sorted(self.chosen(logits, bias).items()):
                out[t] += weight * self.mlp(y[t:t + 1], p + "experts.%d." % expert, names)[0]
        if p + "shared_experts.gate_proj.weight" in self.w:
            out += self.mlp(y, p + "shared_experts.")
        return out

    def norm_if(self, x, name):
        return self.norm(x, name) if name + ".weight" in self.w else x

    def block(self, x, layer):
        p, c = "model.layers.%d." % layer, self.c
        after = self.kind == "olmo2" or self.gemma  # norms of what is added to x
        part = self.attention(self.norm_if(x, p + "input_layernorm"), layer)
        if after:
            part = self.norm(part, p + "post_attention_layernorm")
        x = x + x.dtype.type(c.get("residual_multiplier", 1)) * part
        before = "pre_feedforward_layernorm" if after else "post_attention_layernorm"
        y = self.norm_if(x, p + before)
        routed = p + "mlp.gate.weight" in self.w or p + "block_sparse_moe.gate.weight" in self.w
        part = self.experts(y, layer) if routed else self.mlp(y, p + "mlp.")
        if after:
            part = self.norm(part, p + "post_feedforward_layernorm")
        return x + x.dtype.type(c.get("residual_multiplier", 1)) * part

    def logits(self, ids, dtype=np.float64):
        """Row t: the logits after ids[0..t]."""
        c = self.c
        x = self.w["model.embed_tokens.weight"][np.array(ids)].astype(dtype)
        x = x * dtype(math.sqrt(c["hidden_size"]) if self.gemma else c.get("embedding_multiplier", 1))
        for layer in range(self.layers):
            x = self.block(x, layer)
        x = self.norm(x, "model.norm")
        z = self.linear(x, "model.embed_tokens" if self.tied or "lm_head.weight" not in self.w else "lm_head")
        z, cap = z / dtype(c.get("logits_scaling", 1)), c.get("final_logit_softcapping")
        return dtype(cap) * np.tanh(z / dtype(cap)) if cap else z

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
