#!/usr/bin/env python3
"""How long `snrq round` takes for one layer in all, reading and writing included.

    round_layer.py [--size MxN] [--threads T] [--ranks P] [--runs R] [--snrq PROGRAM] [--before PROGRAM]

Prints medians of R runs. --before: another build takes turns with this one, and the ratio of both is printed; that of
two programs on one machine is the figure to trust. The last column is how many times longer the official code took for
a layer of 2048 x 2048 at 3 bits on two threads of another machine (greedy 0.88 s, K = 8 36 s), where version 0.1.0 took
0.35 and 0.6 s.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "end_to_end"))
import helpers

OFFICIAL = {"greedy": 0.88, "K = 8": 36.0}
PLAIN = "--refine 0 --regrid 0 --grid minmax".split()
CASES = (("greedy", "greedy", ["--method", "ldlq"]),
         ("greedy, shifted", "greedy", ["--method", "snrq", *PLAIN]),
         ("K = 8", "K = 8", ["--beam", "8", *PLAIN, "--alpha", "fixed:0"]),
         ("K = 8, shifted", "K = 8", ["--beam", "8", *PLAIN]),
         ("K = 8, defaults", "K = 8", ["--beam", "8"]))


def write_case(path, rows, columns):
    """W, H of inputs with loud columns, D of a mismatch."""
    random = np.random.default_rng(1)
    tokens = 2 * columns
    x = random.standard_normal((tokens, columns), np.float32) * np.exp(random.standard_normal(columns, np.float32))
    h = 2 / tokens * (x.T @ x)
    d = 2 / tokens * (0.1 * random.standard_normal(x.shape, np.float32)).T @ x
    w = 0.02 * random.standard_normal((rows, columns), np.float32)
    tensors = {"W": w, "H": (h + h.T) / 2, "D": d}
    helpers.write_safetensors(path, {name: ("F32", list(t.shape), t.astype("<f4").tobytes())
                                     for name, t in tensors.items()})


def seconds(program, ranks, threads, case, result, options):
    words = ["mpirun", "-n", str(ranks), program, "round", case, "--bits", "3", *options, "-o", result, "--json"]
    done = subprocess.run(words, env=helpers.environment(threads), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["total_seconds"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", default="2048x2048")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--ranks", type=int, default=1)
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--snrq", default=os.environ.get("SNRQ", "snrq"))
    p.add_argument("--before")
    a = p.parse_args()
    rows, columns = (int(n) for n in a.size.split("x"))
    programs = [a.snrq] + ([a.before] if a.before else [])
    with tempfile.TemporaryDirectory() as folder:
        case, result = os.path.join(folder, "case.safetensors"), os.path.join(folder, "result.safetensors")
        write_case(case, rows, columns)
        print("%-16s %9s%s %15s" % ("", "seconds", "    before  ratio" if a.before else "", "official, times"))
        for name, official, options in CASES:
            took = [[] for _ in programs]
            for _ in range(a.runs):
                for program, times in zip(programs, took):
                    times.append(seconds(program, a.ranks, a.threads, case, result, options))
            now, *before = map(statistics.median, took)
            ratio = "%15.1f" % (OFFICIAL[official] / now) if (rows, columns) == (2048, 2048) else "%15s" % "-"
            print("%-16s %9.3f%s %s" % (name, now, "".join(" %9.3f %6.2f" % (b, b / now) for b in before), ratio))


if __name__ == "__main__":
    main()
