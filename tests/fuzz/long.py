#!/usr/bin/env python3
"""A long search for inputs that break a reader: every fuzz target in turn, so many executions each.

    long.py FOLDER [--runs N] [--only TEXT] [--jobs N]

FOLDER has the programs fuzz_NAME (the preset `fuzz`). Inputs that a search finds worth keeping are kept in
FOLDER/found/NAME, where the next one begins; an input that breaks something is written to FOLDER/broken, and belongs into
tests/fuzz/corpus/NAME once it is mended. The table says how many executions each target has survived, over all searches of
this FOLDER (FOLDER/found/NAME.count).
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def count_of(path):
    try:
        with open(path) as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def search(folder, name, runs):
    """Executions of this search and of all, seconds, and whether nothing broke."""
    found, broken = os.path.join(folder, "found", name), os.path.join(folder, "broken")
    os.makedirs(found, exist_ok=True)
    os.makedirs(broken, exist_ok=True)
    began = time.monotonic()
    done = subprocess.run([os.path.join(folder, "fuzz_" + name), "-runs=%d" % runs, "-timeout=20", "-rss_limit_mb=4096",
                           "-print_final_stats=1", "-artifact_prefix=%s/%s-" % (broken, name), found,
                           os.path.join(CORPUS, name)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace")
    executed = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    executed = int(executed.group(1)) if executed else 0
    if done.returncode == 0:
        of_all = count_of(found + ".count") + executed
        with open(found + ".count", "w") as f:
            f.write("%d\n" % of_all)
    else:
        print("\n".join(done.stderr.splitlines()[-40:]), file=sys.stderr)
    return executed, count_of(found + ".count"), time.monotonic() - began, done.returncode == 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--runs", type=int, default=10_000_000)
    p.add_argument("--only", default="")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    a = p.parse_args()
    names = [name for name in sorted(os.listdir(CORPUS)) if a.only in name]
    if not names:
        p.error("--only: no target has '%s' in its name" % a.only)
    good = True
    print("%-20s %12s %12s %10s" % ("target", "executions", "of all", "a second"), flush=True)
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for name, (executed, of_all, seconds, whole) in zip(names, pool.map(
                lambda name: search(a.folder, name, a.runs), names)):
            good = good and whole
            print("%-20s %12d %12d %10.0f%s" % (name, executed, of_all, executed / seconds, "" if whole else "  BROKEN"),
                  flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
