"""Kills runs at random moments, goes on with them on other numbers of ranks, and looks at what they leave.

    kills.py [--kills N] [--seed S] [--jobs N] [--only TEXT]

Every command that writes is started again and again: all its ranks, or one of them, are killed (SIGKILL) after a random
share of the time that it takes undisturbed, a few times in a row, each time on another number of ranks. Then it is left
alone. It must end with exit code 0 and the bytes of the undisturbed run. In between, `snrq verify` must find nothing
wrong in what quantize has committed. The last lines say how many kills each command has survived.

Environment: SNRQ (the program), as for the tests of tests/end_to_end, whose helpers it uses. The seed decides which
commands run, on how many ranks, and when they are killed; the machine decides what they have done by then.
"""
import argparse
import collections
import concurrent.futures
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "end_to_end"))
import helpers  # noqa: E402
import small_models  # noqa: E402

COMMON = ["--sequences", 4, "--length", 64, "--group-size", 64, "--bits", 3]
MOST_RANKS, MOST_IN_A_ROW, LIMIT_SECONDS = 4, 4, 600


class Command:
    """A command that writes `out`, and the bytes that it leaves undisturbed."""

    def __init__(self, name, words, ranks=(1, 2, 3, 4)):
        self.name, self.words, self.ranks = name, words, ranks
        self.expected, self.seconds = None, 0.0

    def arguments(self, out):
        return [out if word == "OUT" else word for word in self.words]

    def learn(self, out):
        started = time.monotonic()
        helpers.succeed(*self.arguments(out), ranks=self.ranks[-1], timeout=LIMIT_SECONDS)
        self.seconds = time.monotonic() - started
        self.expected = contents(out)


def contents(out):
    """Checksums of what a command promises: data files and the manifest, not logs with times in them."""
    if os.path.isfile(out):
        return {"": helpers.sha256(out)}
    found = {}
    for folder, _, names in os.walk(out):
        for name in names:
            if name.endswith((".h5", ".gguf", ".safetensors", ".json")) and name not in ("status.json", "snrq.json"):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, out)] = helpers.sha256(path)
    return found


def commands(folder):
    """Quantized models are made once for those that read one."""
    experts = os.path.join(folder, "experts")
    small_models.write(experts, small_models.QWEN3_MOE)
    ids = helpers.write_ids(os.path.join(folder, "windows.ids"), [7 * i * i % 61 for i in range(1024)])
    done = helpers.quantize(os.path.join(folder, "done"), *COMMON)
    text = ["--calibration", helpers.CALIBRATION, "-o", "OUT"]
    model = ["quantize", helpers.MODEL, *text, *COMMON]
    small = ["quantize", experts, "--token-file", ids, "--length", 32, "--sequences", 6, "--group-size", 16, "-o", "OUT"]
    listed = [
        Command("quantize", model),
        Command("quantize --method gptq", [*model, "--method", "gptq"]),
        Command("quantize --keep-activations", [*model, "--keep-activations"]),
        Command("quantize --layer-groups 2", [*model, "--layer-groups", 2], ranks=(2, 3, 4)),
        Command("quantize, experts", small),
        Command("evaluate --logprobs", ["evaluate", done, "--text", helpers.HELDOUT, "--sequences", 6, "--length", 64,
                                        "--logprobs", "OUT"]),
        Command("sensitivity", ["sensitivity", helpers.MODEL, *text, "--sequences", 6, "--length", 64]),
        Command("tokenize", ["tokenize", helpers.MODEL, "--text", helpers.CALIBRATION, "-o", "OUT"], ranks=(1, 2)),
    ]
    for form in ("safetensors", "gptq", "compressed-tensors", "gguf"):
        listed.append(Command("export --format " + form, ["export", done, "--format", form, "-o", "OUT"]))
    return listed


def kill(process, everything, chooser):
    """All ranks, or one of them: mpirun ends the others."""
    children = "/proc/%d/task/%d/children" % (process.pid, process.pid)
    try:
        with open(children) as f:
            pids = [int(pid) for pid in f.read().split()] or [process.pid]
    except FileNotFoundError:
        pids = []
    for pid in pids if everything or not pids else [chooser.choice(pids)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        process.wait(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        helpers.stop(process)
        raise AssertionError("a run whose rank was killed does not end")


def started_and_killed(command, out, chooser):
    """Was the run killed before it had ended?"""
    process = helpers.start(*command.arguments(out), ranks=chooser.choice(command.ranks))
    try:
        time.sleep(chooser.random() * command.seconds)
        alive = process.poll() is None
        kill(process, chooser.random() < 0.5, chooser)
    finally:
        process.stderr.close()
    return alive


def check_committed(command, out):
    if command.words[0] != "quantize" or not os.path.exists(os.path.join(out, "snrq.json")):
        return
    result = helpers.run("verify", out, "--json", timeout=LIMIT_SECONDS)
    # A file gets its name before its record: the one that was killed between the two is made again.
    problems = [file["problem"] for file in result.json()["files"] if not file["ok"]]
    if any("it was never finished" not in problem for problem in problems):
        raise AssertionError("after a kill: %s" % result)


def survive(command, folder, seed):
    """A command, killed a few times in a row, then left alone. How often it was killed."""
    chooser = random.Random(seed)
    place = tempfile.mkdtemp(dir=folder)
    out, kills = os.path.join(place, "out"), 0
    for _ in range(chooser.randint(1, MOST_IN_A_ROW)):
        kills += started_and_killed(command, out, chooser)
        check_committed(command, out)
        # An export does not write over what is complete.
        if contents(out) == command.expected and command.words[0] == "export":
            shutil.rmtree(place)
            return kills
    result = helpers.run(*command.arguments(out), ranks=chooser.choice(command.ranks), timeout=LIMIT_SECONDS)
    if result.code != 0:
        raise AssertionError("after %d kills, seed %d: %s" % (kills, seed, result))
    if contents(out) != command.expected:
        raise AssertionError("after %d kills, seed %d: other bytes in %s" % (kills, seed, place))
    shutil.rmtree(place)
    return kills


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="at least so many kills [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="commands at the same time [%(default)s]")
    parser.add_argument("--only", default="", help="commands whose name contains this")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="snrq-kills-")
    listed = [command for command in commands(folder) if options.only in command.name]
    for k, command in enumerate(listed):
        command.learn(os.path.join(folder, "undisturbed-%d" % k))
    survived, runs, lock = collections.Counter(), collections.Counter(), threading.Lock()
    failures = []

    def campaign(job):
        seed = options.seed + job
        while sum(survived.values()) < options.kills and not failures:
            command = listed[random.Random(seed).randrange(len(listed))]
            try:
                kills = survive(command, folder, seed)
            except AssertionError as error:
                failures.append("%s: %s" % (command.name, error))
                return
            with lock:
                survived[command.name] += kills
                runs[command.name] += 1
            seed += options.jobs

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(campaign, range(options.jobs)))
    for command in listed:
        print("%-30s %5d kills, %5d times left alone to its end" % (command.name, survived[command.name], runs[command.name]))
    print("%d kills, %d failures" % (sum(survived.values()), len(failures)))
    for failure in failures:
        print(failure)
    if not failures:
        shutil.rmtree(folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
