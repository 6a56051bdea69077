#!/usr/bin/env python3
"""A long search for inputs that break a reader: every fuzz target in turn, so many executions each.

    long.py FOLDER [--runs N] [--only NAME] [--jobs N]

FOLDER has the programs fuzz_NAME (the preset `fuzz`). Inputs that a search finds worth keeping are kept in
FOLDER/found/NAME, where the next one begins; an input that breaks something is written to FOLDER/broken, and belongs into
tests/fuzz/corpus/NAME once it is mended. The table says how many executions each target has survived, over all searches of
this FOLDER (FOLDER/found/NAME.count), and how many of them a second of CPU time has.

A search goes on in parts of a million executions, whose outcome is counted at once: it may be stopped at any time. Leaks are
looked for at the end of each part, and with each input that was kept.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
PART = 1_000_000

# The longest input. Most files say all that they can in a few hundred bytes.
LONGEST = {"tokenizer_json": 4200, "experiment_json": 2048, "hdf5_files": 97}
USUALLY_LONGEST = 1024

# What makes searches fast: no stack traces of allocations (an input that breaks something is run once more by hand, with
# them), little freed memory kept aside, and the plain choice of the next input.
SANITIZER = "malloc_context_size=0:quarantine_size_mb=16:thread_local_quarantine_size_kb=64"
FAST = ["-detect_leaks=0", "-entropic=0"]


def count_of(path):
    try:
        with open(path) as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def run(folder, name, *more):
    """One call of a target: what it printed, the CPU seconds that it took, and whether nothing broke."""
    found, broken = os.path.join(folder, "found", name), os.path.join(folder, "broken")
    with subprocess.Popen([os.path.join(folder, "fuzz_" + name), "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1",
                           "-max_len=%d" % LONGEST.get(name, USUALLY_LONGEST), "-artifact_prefix=%s/%s-" % (broken, name),
                           *more, found, os.path.join(CORPUS, name)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          errors="replace", env=dict(os.environ, ASAN_OPTIONS=SANITIZER)) as process:
        printed = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print("\n".join(printed.splitlines()[-40:]), file=sys.stderr)
    return printed, used.ru_utime + used.ru_stime, process.returncode == 0


def search(folder, name, runs):
    """Executions of this search and of all, CPU seconds, and whether nothing broke."""
    found = os.path.join(folder, "found", name)
    os.makedirs(found, exist_ok=True)
    os.makedirs(os.path.join(folder, "broken"), exist_ok=True)
    executed, seconds = 0, 0.0
    while executed < runs:
        printed, took, good = run(folder, name, "-runs=%d" % min(PART, runs - executed), *FAST)
        if not good:
            return executed, count_of(found + ".count"), seconds, False
        part = int(re.search(r"stat::number_of_executed_units: *(\d+)", printed).group(1))
        executed, seconds = executed + part, seconds + took
        of_all = count_of(found + ".count") + part
        with open(found + ".count", "w") as f:
            f.write("%d\n" % of_all)
    _, _, good = run(folder, name, "-runs=0")  # leaks of each input
    return executed, count_of(found + ".count"), seconds, good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--runs", type=int, default=10_000_000)
    p.add_argument("--only", default="", metavar="NAME", help="this target, or all with this in their names")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    a = p.parse_args()
    every = sorted(os.listdir(CORPUS))
    names = [name for name in every if name == a.only] or [name for name in every if a.only in name]
    if not names:
        p.error("--only: no target has '%s' in its name" % a.only)
    good = True
    print("%-20s %12s %12s %10s" % ("target", "executions", "of all", "a second"), flush=True)
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for name, (executed, of_all, seconds, whole) in zip(names, pool.map(
                lambda name: search(a.folder, name, a.runs), names)):
            good = good and whole
            print("%-20s %12d %12d %10.0f%s" % (name, executed, of_all, executed / max(seconds, 1e-9), "" if whole else "  BROKEN"),
                  flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
