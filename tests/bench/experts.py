#!/usr/bin/env python3
"""How long a block with many experts takes, beside what its work costs at the machine's rates.

    experts.py [--experts E] [--ranks P] [--threads T] [--sequences S] [--snrq PROGRAM] [OPTION of quantize ...]

The block has the shape of Qwen3-30B-A3B (hidden 2048, experts of 768, 8 to a token) and random weights. The rates are
those that `snrq plan` measures for the phases on the same ranks, just before; a share of 1 is a run that loses nothing to
anything else. Memory is that of a rank and, with the weights of the node, that of all ranks.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "end_to_end"))
import helpers
import small_models

LENGTH = 512


def config(experts):
    return dict(small_models.QWEN3_MOE, hidden_size=2048, head_dim=128, num_attention_heads=32, num_key_value_heads=4,
                num_hidden_layers=1, mlp_only_layers=[], moe_intermediate_size=768, num_experts=experts,
                num_experts_per_tok=min(8, experts), norm_topk_prob=True, max_position_embeddings=2048)


def run(a, *words):
    launch = ["mpirun", "-n", str(a.ranks), a.snrq, *words]
    return subprocess.run(launch, env=helpers.environment(a.threads), stdout=subprocess.PIPE, check=True).stdout


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--experts", type=int, default=128)
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--sequences", type=int, default=8)
    p.add_argument("--snrq", default=os.environ.get("SNRQ", "snrq"))
    a, options = p.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        model, ids, out = (os.path.join(folder, name) for name in ("model", "tokens.npy", "OUT"))
        small_models.write(model, config(a.experts))
        np.save(ids, np.random.default_rng(1).integers(0, 64, a.sequences * LENGTH, np.int32))
        words = [model, "--token-file", ids, "--sequences", str(a.sequences), "--length", str(LENGTH),
                 "--held-out", "0", *options]
        plan = json.loads(run(a, "plan", *words, "--json"))
        run(a, "quantize", *words, "-o", out)
        with open(os.path.join(out, "run.jsonl")) as f:
            timers = [event for event in map(json.loads, f) if event["event"] == "timers"][-1]
    planned = {name: phase["seconds"] for name, phase in plan["cost"]["phases"].items()}
    taken = {name: phase["mean"] for name, phase in timers["phases"].items()}
    planned["all"], taken["all"] = sum(planned.values()), sum(taken.values())
    print("%-8s %10s %9s %7s" % ("phase", "at rates", "seconds", "share"))
    for name, seconds in planned.items():
        print("%-8s %10.1f %9.1f %7.2f" % (name, seconds, taken[name], seconds / max(taken[name], 1e-9)))
    print("peak memory of a rank, with the node's weights: %.0f MB, planned %.0f + %.0f" %
          (timers["peak_memory_bytes"] / 1e6, plan["rank_bytes"] / 1e6, plan["shared_bytes"] / 1e6))


if __name__ == "__main__":
    main()
