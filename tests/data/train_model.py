#!/usr/bin/env python3
"""Train the small bundled Llama model on generated stories and write it as a
Hugging Face directory (torch is used here only).

    train_model.py --train train.txt --valid valid.txt --out model --minutes 24
    train_model.py --resume --lr 2e-3 --seed 2 ...      go on from there
    train_model.py --config config.json ...             other sizes of a Llama model
    train_model.py --report --out model --heldout heldout.txt

The tokenizer must be in the directory already (train_tokenizer.py).  The
files are written anew whenever the loss on the validation text gets better,
so stopping early leaves a usable model.  The report gives the perplexity of
the stored bf16 weights and of round-to-nearest quantized ones.
"""
import argparse
import json
import math
import os
import struct
import time

import numpy
import torch
import torch.nn.functional as F

from make_vectors import Tokenizer

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1024, "hidden_size": 128,
    "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
}
CONTEXT = 256
BOS = 1
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def new_weights(seed):
    """Parameters by their Hugging Face names."""
    c = CONFIG
    h, inter, hd = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * hd, c["num_key_value_heads"] * hd
    g = torch.Generator().manual_seed(seed)

    def normal(rows, cols, std):
        return torch.nn.Parameter(torch.randn(rows, cols, generator=g) * std)

    w = {"model.embed_tokens.weight": normal(c["vocab_size"], h, 0.05)}
    shrink = 1 / math.sqrt(2 * c["num_hidden_layers"])
    for n in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % n
        w[p + "input_layernorm.weight"] = torch.nn.Parameter(torch.ones(h))
        w[p + "self_attn.q_proj.weight"] = normal(q, h, h ** -0.5)
        w[p + "self_attn.k_proj.weight"] = normal(kv, h, h ** -0.5)
        w[p + "self_attn.v_proj.weight"] = normal(kv, h, h ** -0.5)
        w[p + "self_attn.o_proj.weight"] = normal(h, q, q ** -0.5 * shrink)
        w[p + "post_attention_layernorm.weight"] = torch.nn.Parameter(torch.ones(h))
        w[p + "mlp.gate_proj.weight"] = normal(inter, h, h ** -0.5)
        w[p + "mlp.up_proj.weight"] = normal(inter, h, h ** -0.5)
        w[p + "mlp.down_proj.weight"] = normal(h, inter, inter ** -0.5 * shrink)
    w["model.norm.weight"] = torch.nn.Parameter(torch.ones(h))
    return w


def rms_norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]) * weight


def rope_tables(length):
    """cos and sin, pair i with i + head_dim/2."""
    hd = CONFIG["head_dim"]
    freq = CONFIG["rope_theta"] ** (-torch.arange(0, hd, 2).float() / hd)
    angle = torch.arange(length).float()[:, None] * freq[None]
    return torch.cat([angle.cos()] * 2, -1), torch.cat([-angle.sin(), angle.sin()], -1)


def forward(w, ids):
    """Logits for a batch of id rows."""
    c = CONFIG
    hd, heads, kv = c["head_dim"], c["num_attention_heads"], c["num_key_value_heads"]
    batch, length = ids.shape
    cos, sin = rope_tables(length)
    mask = torch.full((length, length), -1e30).triu(1)

    def rotate(x):
        return x * cos + x.roll(hd // 2, -1) * sin

    x = F.embedding(ids, w["model.embed_tokens.weight"])
    for n in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % n
        y = rms_norm(x, w[p + "input_layernorm.weight"])
        q = F.linear(y, w[p + "self_attn.q_proj.weight"]).view(batch, length, heads, hd).transpose(1, 2)
        k = F.linear(y, w[p + "self_attn.k_proj.weight"]).view(batch, length, kv, hd).transpose(1, 2)
        v = F.linear(y, w[p + "self_attn.v_proj.weight"]).view(batch, length, kv, hd).transpose(1, 2)
        q, k = rotate(q), rotate(k)
        group = heads // kv
        q = q.reshape(batch * kv, group * length, hd) * hd ** -0.5
        k, v = k.reshape(batch * kv, length, hd), v.reshape(batch * kv, length, hd)
        score = torch.bmm(q, k.transpose(1, 2)).view(batch * kv, group, length, length) + mask
        y = torch.bmm(score.softmax(-1).view(batch * kv, group * length, length), v)
        y = y.view(batch, heads, length, hd).transpose(1, 2).reshape(batch, length, heads * hd)
        x = x + F.linear(y, w[p + "self_attn.o_proj.weight"])
        y = rms_norm(x, w[p + "post_attention_layernorm.weight"])
        y = F.silu(F.linear(y, w[p + "mlp.gate_proj.weight"])) * F.linear(y, w[p + "mlp.up_proj.weight"])
        x = x + F.linear(y, w[p + "mlp.down_proj.weight"])
    return F.linear(rms_norm(x, w["model.norm.weight"]), w["model.embed_tokens.weight"])


def to_bf16(tensor):
    """Nearest bf16 (ties to even) as uint16 bit patterns."""
    bits = tensor.detach().numpy().astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, w):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(w):
        blob = to_bf16(w[name]).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(w[name].shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".new", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    os.replace(path + ".new", path)


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    w = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        a, b = entry["data_offsets"]
        bits = numpy.frombuffer(data[8 + size + a:8 + size + b], "<u2").astype("<u4") << 16
        w[name] = torch.from_numpy(bits.view("<f4").reshape(entry["shape"]).copy())
    return w


def write_model(directory, w):
    write_safetensors(os.path.join(directory, "model.safetensors"), w)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(CONFIG, f, indent=2)
        f.write("\n")
    with open(os.path.join(directory, "generation_config.json"), "w") as f:
        json.dump({"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2,
                   "transformers_version": "4.51.0"}, f, indent=2)
        f.write("\n")


def round_to_nearest(w, bits, group=64):
    """The linear weights symmetrically quantized in groups along the inputs."""
    out = dict(w)
    for name in w:
        if not name.endswith(tuple(l + ".weight" for l in LINEARS)):
            continue
        rows, cols = w[name].shape
        v = w[name].detach().view(rows, cols // group, group)
        scale = 2 * v.abs().amax(-1, keepdim=True) / (2 ** bits - 1)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = 2 ** (bits - 1)
        codes = (torch.round(v / scale) + zero).clamp(0, 2 ** bits - 1)
        out[name] = ((codes - zero) * scale).view(rows, cols)
    return out


def nll(w, windows, batch=16):
    """Mean of -log p over every token but the first of each window."""
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(windows), batch):
            ids = windows[i:i + batch]
            logits = forward(w, ids)[:, :-1]
            total += F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="sum").item()
    return total / (len(windows) * (windows.shape[1] - 1))


def file_windows(tokenizer, path):
    """<s> and the whole text in non-overlapping full windows."""
    with open(path, encoding="utf-8", newline="") as f:
        ids = [BOS] + tokenizer.encode_fast(f.read())
    count = len(ids) // CONTEXT
    return torch.tensor(ids[:count * CONTEXT]).view(count, CONTEXT)


class Batches:
    """Half of the windows start with <s> and a story, a quarter with <s> and
    any place of the stream, a quarter at any place without <s>."""

    def __init__(self, tokenizer, path, seed):
        with open(path, encoding="utf-8", newline="") as f:
            stories = f.read().rstrip("\n").split("\n\n")
        ids, self.starts, self.first = [], [], []
        for story in stories:
            self.starts.append(len(ids))
            plain = tokenizer.encode_fast(story, front=False)
            front = tokenizer.encode_fast(story)
            # only the first word differs: how far?
            common = 0
            while common < min(len(plain), len(front)) and plain[-1 - common] == front[-1 - common]:
                common += 1
            self.first.append((front[:len(front) - common], len(plain) - common))
            ids += plain + [tokenizer.vocab["<0x0A>"]] * 2
        self.ids = torch.tensor(ids)
        self.rng = numpy.random.default_rng(seed)

    def get(self, size):
        rows = []
        for _ in range(size):
            kind = self.rng.integers(4)
            if kind < 2:
                n = self.rng.integers(len(self.starts) - 10)
                front, skip = self.first[n]
                at = self.starts[n] + skip
                row = torch.cat([torch.tensor([BOS] + front), self.ids[at:at + CONTEXT]])[:CONTEXT]
            else:
                at = self.rng.integers(len(self.ids) - CONTEXT)
                row = self.ids[at:at + CONTEXT].clone()
                if kind == 2:
                    row[0] = BOS
            rows.append(row)
        return torch.stack(rows)


def train(args):
    tokenizer = Tokenizer(os.path.join(args.out, "tokenizer.json"))
    batches = Batches(tokenizer, args.train, args.seed)
    valid = file_windows(tokenizer, args.valid)[:48]
    print("%d stories, %d tokens" % (len(batches.starts), len(batches.ids)), flush=True)
    w = new_weights(args.seed)
    if args.resume:
        stored = read_safetensors(os.path.join(args.out, "model.safetensors"))
        w = {name: torch.nn.Parameter(stored[name]) for name in w}
    decayed = [p for p in w.values() if p.dim() == 2]
    others = [p for p in w.values() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": args.decay},
                                   {"params": others, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98))
    print("%d parameters" % sum(p.numel() for p in w.values()), flush=True)
    start, best, step, progress = time.time(), 1e9, 0, 0.0
    while progress < 1:
        if args.steps:
            progress = step / args.steps
        else:
            progress = (time.time() - start) / (60 * args.minutes)
        if step % 150 == 0 or progress >= 1:
            loss_valid = nll(w, valid)
            if loss_valid < best:
                best = loss_valid
                write_model(args.out, w)
            print("step %d, %.0f s: validation %.4f (perplexity %.3f)"
                  % (step, time.time() - start, loss_valid, math.exp(loss_valid)), flush=True)
        rate = args.lr * min(1, (step + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1, progress))))
        for g in optimizer.param_groups:
            g["lr"] = rate
        ids = batches.get(args.batch)
        logits = forward(w, ids)[:, :-1]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(w.values()), 1.0)
        optimizer.step()
        step += 1


def report(args):
    tokenizer = Tokenizer(os.path.join(args.out, "tokenizer.json"))
    w = read_safetensors(os.path.join(args.out, "model.safetensors"))
    windows = file_windows(tokenizer, args.heldout)
    print("%d windows of %d tokens" % windows.shape)
    print("as stored (bf16): perplexity %.4f" % math.exp(nll(w, windows)))
    for bits in (8, 4, 3, 2):
        print("round-to-nearest %d bit, group 64: perplexity %.4f" % (bits, math.exp(nll(round_to_nearest(w, bits), windows))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", help="text to train on")
    parser.add_argument("--valid", help="text to choose the best step by")
    parser.add_argument("--heldout", help="text to report on")
    parser.add_argument("--out", required=True, help="model directory with tokenizer.json")
    parser.add_argument("--config", help="config.json with other sizes than those of the bundled model")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=0, help="train this many steps instead of some minutes")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="start from the weights in --out")
    parser.add_argument("--report", action="store_true", help="only measure")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.config:
        with open(args.config, encoding="utf-8") as f:
            CONFIG.update(json.load(f))
    if args.train and not args.report:
        train(args)
    if args.heldout:
        report(args)


if __name__ == "__main__":
    main()
