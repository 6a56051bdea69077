#!/usr/bin/env python3
"""Plans of large models on many nodes, as docs/scaling.md has them.

    make_plans.py SNRQ MACHINE.json [-o TABLE.csv] [--picture FILE.svg] [--network SECONDS,BYTES] [--cores N]

For each model a config.json is written, and a checkpoint whose header is right and whose weights are a hole in the file.
Then `snrq plan --json` is asked for growing numbers of nodes, with the layer groups that it finds best. MACHINE.json is from
`snrq bench machine -o`. The picture needs matplotlib.
"""
import argparse
import csv
import json
import os
import struct
import subprocess
import sys
import tempfile

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "rms_norm_eps": 1e-5,
         "rope_theta": 500000.0, "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "num_key_value_heads": 8}
QWEN = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 151936, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True}
MODELS = {
    "Llama-3.1-8B": dict(LLAMA, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32),
    "Llama-3.1-70B": dict(LLAMA, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64),
    "Llama-3.1-405B": dict(LLAMA, hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128),
    "Mixtral-8x7B": dict(LLAMA, architectures=["MixtralForCausalLM"], model_type="mixtral", vocab_size=32000, hidden_size=4096,
                         intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_local_experts=8,
                         num_experts_per_tok=2),
    "Qwen3-30B-A3B": dict(QWEN, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=48,
                          num_attention_heads=32),
    "Qwen3-235B-A22B": dict(QWEN, hidden_size=4096, intermediate_size=12288, moe_intermediate_size=1536, num_hidden_layers=94,
                            num_attention_heads=64),
    "DeepSeek-V3": {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 129280,
                    "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
                    "num_attention_heads": 128, "num_key_value_heads": 128, "n_routed_experts": 256, "n_shared_experts": 1,
                    "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "first_k_dense_replace": 3, "q_lora_rank": 1536,
                    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
                    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
                    "max_position_embeddings": 4096, "torch_dtype": "bfloat16"},
}
NODES = (1, 4, 16, 64, 256)
SEQUENCES, LENGTH = 128, 2048


def attention(c):
    heads, hidden = c["num_attention_heads"], c["hidden_size"]
    if c["model_type"] == "deepseek_v3":
        still, turned, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        return {"q_a_proj.weight": (c["q_lora_rank"], hidden), "q_a_layernorm.weight": (c["q_lora_rank"],),
                "q_b_proj.weight": (heads * (still + turned), c["q_lora_rank"]),
                "kv_a_proj_with_mqa.weight": (c["kv_lora_rank"] + turned, hidden), "kv_a_layernorm.weight": (c["kv_lora_rank"],),
                "kv_b_proj.weight": (heads * (still + value), c["kv_lora_rank"]), "o_proj.weight": (hidden, heads * value)}
    head = c.get("head_dim") or hidden // heads
    queries, keys = heads * head, c["num_key_value_heads"] * head
    shapes = {"q_proj.weight": (queries, hidden), "k_proj.weight": (keys, hidden), "v_proj.weight": (keys, hidden),
              "o_proj.weight": (hidden, queries)}
    if c["model_type"] == "qwen3_moe":
        shapes.update({"q_norm.weight": (head,), "k_norm.weight": (head,)})
    return shapes


def mlp(c, layer):
    hidden = c["hidden_size"]
    experts = c.get("num_local_experts") or c.get("num_experts") or c.get("n_routed_experts", 0)
    if not experts or layer < c.get("first_k_dense_replace", 0):
        middle = c["intermediate_size"]
        return {"mlp.gate_proj.weight": (middle, hidden), "mlp.up_proj.weight": (middle, hidden),
                "mlp.down_proj.weight": (hidden, middle)}
    middle = c.get("moe_intermediate_size", c["intermediate_size"])
    start, names = ("block_sparse_moe", "w1 w3 w2") if c["model_type"] == "mixtral" else ("mlp", "gate_proj up_proj down_proj")
    shapes = {start + ".gate.weight": (experts, hidden)}
    parts = ["experts.%d" % e for e in range(experts)]
    if c["model_type"] == "deepseek_v3":
        shapes["mlp.gate.e_score_correction_bias"] = (experts,)
        parts.append("shared_experts")
    for part in parts:
        for name, shape in zip(names.split(), ((middle, hidden), (middle, hidden), (hidden, middle))):
            shapes["%s.%s.%s.weight" % (start, part, name)] = shape
    return shapes


def write_model(directory, c):
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], c["hidden_size"]), "model.norm.weight": (c["hidden_size"],),
              "lm_head.weight": (c["vocab_size"], c["hidden_size"])}
    for layer in range(c["num_hidden_layers"]):
        parts = {"self_attn." + name: shape for name, shape in attention(c).items()}
        parts.update(mlp(c, layer))
        parts.update({"input_layernorm.weight": (c["hidden_size"],), "post_attention_layernorm.weight": (c["hidden_size"],)})
        shapes.update({"model.layers.%d.%s" % (layer, name): shape for name, shape in parts.items()})
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(directory)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(c, f)
    with open(os.path.join(directory, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    return directory


def plan(args, model, ids, nodes, ranks_per_node, threads):
    command = [args.snrq, "plan", model, "--token-file", ids, "--sequences", SEQUENCES, "--length", LENGTH, "--held-out", 0,
               "--bits", 3, "--group-size", 128, "--layer-groups", "auto", "--plan-ranks", nodes * ranks_per_node,
               "--plan-nodes", nodes, "--threads", threads, "--machine", args.machine, "--network", args.network, "--json",
               "--ignore-memory"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def draw(rows, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot
    matplotlib.rcParams["svg.hashsalt"] = "snrq"
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    styles = ["-o", "--s", ":^", "-.v", "-D", "--P", ":X"]
    for style, model in zip(styles, dict.fromkeys(row["model"] for row in rows)):
        mine = [row for row in rows if row["model"] == model]
        axes.loglog([row["cores"] for row in mine], [row["hours"] for row in mine], style, label=model, color="black",
                    markersize=4, linewidth=1)
    axes.set_xlabel("cores")
    axes.set_ylabel("hours")
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description="Plans of large models on many nodes.")
    parser.add_argument("snrq")
    parser.add_argument("machine")
    parser.add_argument("-o", default="plans.csv")
    parser.add_argument("--picture")
    parser.add_argument("--network", default="2e-6,12.5e9")
    parser.add_argument("--cores", type=int, default=64, help="of a node [64]")
    parser.add_argument("--ranks", type=int, default=16, help="of a node [16]")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ids = os.path.join(folder, "ids.i32")
        with open(ids, "wb") as f:
            f.write(struct.pack("<i", 7) * (SEQUENCES * LENGTH))
        for name, config in MODELS.items():
            model = write_model(os.path.join(folder, name), config)
            for nodes in NODES:
                found = plan(args, model, ids, nodes, args.ranks, args.cores // args.ranks)
                cost = found["cost"]
                rows.append({"model": name, "nodes": nodes, "cores": nodes * args.cores, "ranks": found["ranks"],
                             "layer_groups": found["layer_groups"], "hours": found["seconds"] / 3600,
                             "efficiency": cost["efficiency"], "node_gb": found["node_bytes"] / 1e9,
                             "sent_gb_per_rank": sum(phase["bytes_per_rank"] for phase in cost["phases"].values()) / 1e9,
                             "limit": cost["limit"]})
                print(rows[-1], flush=True)
    with open(args.o, "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows({key: "%.4g" % value if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    if args.picture:
        draw(rows, args.picture)


if __name__ == "__main__":
    main()
