"""Kills runs at random moments, goes on with them on other numbers of ranks, and looks at what they leave.

    kills.py [--kills N] [--seed S] [--jobs N] [--only TEXT] [--list]

Every command that writes is started again and again: all its ranks, or one of them, are killed (SIGKILL) after a random
share of the time that it takes undisturbed, a few times in a row, each time on another number of ranks. Then it is left
alone. It must end with exit code 0 and the bytes of the undisturbed run. In between, `snrq verify` must find nothing
wrong in what quantize has committed. The last lines say how many kills each command has survived, and what it had written
by then.

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

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "end_to_end"))
import helpers  # noqa: E402
import small_models  # noqa: E402

COMMON = ["--sequences", 4, "--length", 64, "--group-size", 64, "--bits", 3]
MOST_IN_A_ROW, LIMIT_SECONDS = 6, 600
RANKS = (0, 0, 1, 2, 3)  # 0: without mpirun
TABLES = (".h5", ".gguf", ".safetensors", ".json", ".tsv", ".ids")


class Command:
    """A command that writes `out`, and the bytes that it leaves undisturbed."""

    def __init__(self, name, words, ranks=RANKS):
        self.name, self.words, self.ranks = name, words, ranks
        self.expected, self.begins, self.seconds = None, 0.0, {}
        self.lock = threading.Lock()

    def arguments(self, out):
        return [out if word == "OUT" else word for word in self.words()]

    def learn(self, folder):
        """Its bytes, when it begins to write, and how long it takes; once."""
        with self.lock:
            if self.expected is not None:
                return
            place = tempfile.mkdtemp(dir=folder)
            out, started = os.path.join(place, "out"), time.monotonic()
            process = helpers.start(*self.arguments(out), ranks=self.ranks[0])
            try:
                while process.poll() is None and not os.listdir(place):
                    time.sleep(0.002)
                self.begins = time.monotonic() - started
                said = process.communicate(timeout=LIMIT_SECONDS)[1]
            finally:
                if process.poll() is None:
                    helpers.stop(process)
            if process.returncode != 0:
                raise AssertionError("undisturbed: exit code %d\n%s" % (process.returncode, said.decode(errors="replace")))
            self.seconds = dict.fromkeys(self.ranks, time.monotonic() - started)
            self.expected = contents(out)
            shutil.rmtree(place)


    def took(self, ranks, seconds):
        """On so many ranks, when nobody killed it: what is expected of the next one."""
        with self.lock:
            self.seconds[ranks] = 0.5 * (self.seconds[ranks] + seconds)


def contents(out):
    """Checksums of what a command promises: data files and the manifest, not logs with times in them."""
    if os.path.isfile(out):
        return {"": helpers.sha256(out)}
    found = {}
    for folder, _, names in os.walk(out):
        for name in names:
            if name.endswith(TABLES) and name not in ("status.json", "snrq.json"):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, out)] = helpers.sha256(path)
    return found


class Inputs:
    """Models, texts and quantized models, each made when it is first asked for."""

    def __init__(self, folder):
        self.folder, self.made, self.lock = folder, {}, threading.RLock()

    def get(self, name, make):
        """The path of what make(path) writes."""
        with self.lock:
            if name not in self.made:
                path = os.path.join(self.folder, name)
                make(path)
                self.made[name] = path
            return self.made[name]

    def ids(self):
        return self.get("windows.ids", lambda path: helpers.write_ids(path, [7 * i * i % 61 for i in range(1024)]))

    def model(self, name):
        small = dict(small_models.LLAMA_WITH_BIASES, hidden_size=32, intermediate_size=64, head_dim=8)
        wide = dict(small, hidden_size=256, intermediate_size=256, head_dim=64, num_attention_heads=2)
        configurations = {"small": small, "tiny": dict(small, num_hidden_layers=2), "wide": dict(wide, num_hidden_layers=2),
                          "experts": small_models.QWEN3_MOE, "mixtral": small_models.MIXTRAL}
        return self.get(name, lambda path: small_models.write(path, configurations[name]))

    def text(self, model, sequences=4, length=32):
        return [self.model(model), "--token-file", self.ids(), "--length", length, "--sequences", sequences]

    def recipe(self):
        def write(path):
            with open(path, "w") as f:
                f.write('{"rules": [{"modules": "model.embed_tokens", "bits": 8}, {"modules": "*down_proj", "keep": true},'
                        ' {"modules": "*", "blocks": "1", "bits": 4}]}')
        return self.get("recipe.json", write)

    def done(self):
        return self.get("done", lambda path: helpers.quantize(path, *COMMON, "--method", "rtn"))

    def quantized(self, how, what):
        """The wide model with --format or --preset."""
        words = ["quantize", *self.text("wide"), how, what, "--method", "rtn"]
        return self.get(what, lambda path: helpers.succeed(*words, "-o", path))

    def assessment(self):
        words = ["assess", *self.text("tiny"), *ASSESSED, "--no-uniform"]
        return os.path.join(self.get("assessment", lambda path: helpers.succeed(*words, "-o", path)), "assessment.json")

    def case(self):
        """A layer for `round`."""
        def write(path):
            draw = np.random.default_rng(3)
            x, zero = draw.standard_normal((512, 128)), np.zeros((128, 128))
            layer = {"W": draw.standard_normal((192, 128)), "H": x.T @ x, "D": zero, "E": zero}
            helpers.write_safetensors(path, {name: ("F32", list(values.shape), values.astype("<f4").tobytes())
                                             for name, values in layer.items()})
        return self.get("case.safetensors", write)


ASSESSED = ["--group-size", 32, "--widths", "3,4", "--group-sizes", "32", "--judged-windows", 2, "--method", "ldlq"]


def quantizing(inputs):
    """[(what is said behind `quantize`, words)]"""
    small = lambda model, *more: ["quantize", *inputs.text(model), *more, "-o", "OUT"]
    tuned = lambda *more: ["quantize", *inputs.text("mixtral", 16, 20), "--bits", 3, "--group-size", 16, "--held-out", 1,
                           "--tune", 3, *more, "-o", "OUT"]
    three = ("--bits", 3, "--group-size", 32, "--beam", 2)
    rows = [("of a text", lambda: ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, *COMMON,
                                   "--method", "ldlq", "-o", "OUT"]),
            ("", lambda: small("small", *three)),
            ("--method gptq", lambda: small("small", *three[:4], "--method", "gptq")),
            ("--keep-activations", lambda: small("small", *three, "--keep-activations")),
            ("--layer-groups 2", lambda: small("small", *three, "--layer-groups", 2)),
            ("of experts", lambda: small("experts", "--group-size", 16, "--beam", 2, "--regrid", 0)),
            ("--recipe", lambda: small("small", *three, "--recipe", inputs.recipe())),
            ("--sensitivity auto", lambda: small("small", *three, "--sensitivity", "auto")),
            ("--tune", lambda: tuned("--method", "rtn")),
            ("--tune --keep-activations --sensitivity auto",
             lambda: tuned("--method", "ldlq", "--sensitivity", "auto", "--keep-activations")),
            ("--target-bits", lambda: small("tiny", "--group-size", 32, "--target-bits", 4, "--method", "ldlq")),
            ("--target-bits --tune", lambda: small("tiny", "--group-size", 32, "--target-bits", 4, "--method", "ldlq",
                                                   "--held-out", 1, "--tune", 2)),
            ("--target-bits --assessment", lambda: small("tiny", "--group-size", 32, "--target-bits", 4, "--method", "ldlq",
                                                         "--assessment", inputs.assessment()))]
    for name in ("q4_k", "iq4_xs", "mxfp4", "nvfp4", "fp8_block"):
        rows.append(("--format " + name, lambda name=name: small("wide", "--format", name, "--method", "ldlq")))
    rows.append(("--preset q3_k_m", lambda: small("wide", "--preset", "q3_k_m", "--method", "ldlq")))
    return rows


def exporting(inputs):
    """[(what is said behind `export`, words)]"""
    rows = [("--format " + form, lambda form=form: ["export", inputs.done(), "--format", form, "-o", "OUT"])
            for form in ("safetensors", "gptq", "compressed-tensors", "gguf")]
    for form, how, what in (("gguf", "--preset", "q4_k_m"), ("gguf", "--format", "iq4_xs"), ("fp8", "--format", "fp8_block"),
                            ("compressed-tensors", "--format", "nvfp4"), ("compressed-tensors", "--format", "mxfp4")):
        rows.append(("--format %s of %s" % (form, what), lambda form=form, how=how, what=what: [
            "export", inputs.quantized(how, what), "--format", form, "-o", "OUT"]))
    return rows


def commands(folder):
    inputs = Inputs(folder)
    of_text = ["--calibration", helpers.CALIBRATION, "-o", "OUT"]
    listed = [Command("quantize " + name if name else "quantize", words, (2, 3) if "groups" in name else RANKS)
              for name, words in quantizing(inputs)]
    listed += [Command("export " + name, words) for name, words in exporting(inputs)]
    return listed + [
        Command("evaluate --logprobs", lambda: ["evaluate", inputs.done(), "--text", helpers.HELDOUT, "--sequences", 3,
                                                "--length", 64, "--logprobs", "OUT"]),
        Command("assess", lambda: ["assess", *inputs.text("tiny"), *ASSESSED, "-o", "OUT"]),
        Command("sensitivity", lambda: ["sensitivity", helpers.MODEL, *of_text, "--sequences", 3, "--length", 64]),
        Command("tokenize", lambda: ["tokenize", helpers.MODEL, "--text", helpers.CALIBRATION, "-o", "OUT"], ranks=(0, 1, 2)),
        Command("report", lambda: ["report", inputs.done(), "-o", "OUT"], ranks=(0, 1, 2)),
        Command("round", lambda: ["round", inputs.case(), "--bits", 3, "--group-size", 32, "-o", "OUT"]),
    ]


def children(process):
    try:
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
            return [int(pid) for pid in f.read().split()]
    except FileNotFoundError:
        return []


def is_alive(pid):
    """It has not ended, whether or not somebody has taken note of that."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def kill(process, everything, chooser):
    """All ranks, or one of them: mpirun ends the others. Did mpirun itself end?"""
    pids = children(process) or [process.pid]
    for pid in pids if everything or not pids else [chooser.choice(pids)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    limit = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            process.wait(timeout=20)
            return True
        except subprocess.TimeoutExpired:
            # That of Open MPI 4.1.4 may wait in PMIx_server_finalize() for ever, when it has lost a rank that was starting.
            if not any(map(is_alive, children(process))):
                process.kill()
                process.wait()
                return False
            if time.monotonic() > limit:
                helpers.stop(process)
                raise AssertionError("a run whose rank was killed does not end")


def moment(command, ranks, chooser):
    """Seconds until a kill: mostly while the command writes, for starting MPI takes much of a small run's time."""
    seconds = command.seconds[ranks]
    begin = 0.0 if chooser.random() < 0.1 else min(0.9 * command.begins, 0.5 * seconds)
    return begin + chooser.random() * (seconds - begin)


def started_and_killed(command, out, chooser):
    """Was the run killed before it had ended? None: and mpirun had to be killed as well."""
    ranks, started = chooser.choice(command.ranks), time.monotonic()
    process = helpers.start(*command.arguments(out), ranks=ranks)
    try:
        try:
            process.wait(moment(command, ranks, chooser))
            command.took(ranks, time.monotonic() - started)
        except subprocess.TimeoutExpired:
            pass
        alive = process.poll() is None
        if alive and not kill(process, chooser.random() < 0.5, chooser):
            alive = None
    finally:
        process.stderr.close()
    return alive


def reached(command, out):
    """What a command that was killed has written."""
    if os.path.isfile(out) or contents(out) == command.expected:
        return "all"
    names = os.listdir(out) if os.path.isdir(out) else os.listdir(os.path.dirname(out))
    if not names:
        return "nothing"
    if any(name.endswith((".tuning", ".next")) for name in names):
        return "tuning"
    return "assessment" if names == ["assessment"] else "some"


def check_committed(command, out):
    if not command.name.startswith("quantize") or not os.path.exists(os.path.join(out, "snrq.json")):
        return
    result = helpers.run("verify", out, "--json", timeout=LIMIT_SECONDS)
    # A file gets its name before its record: the one that was killed between the two is made again.
    problems = [file["problem"] for file in result.json()["files"] if not file["ok"]]
    if any("it was never finished" not in problem for problem in problems):
        raise AssertionError("after a kill: %s" % result)


def survive(command, folder, seed):
    """A command, killed a few times in a row, then left alone. What it had written whenever it was killed."""
    command.learn(folder)
    chooser = random.Random(seed)
    place = tempfile.mkdtemp(dir=folder)
    out, kills = os.path.join(place, "out"), []
    for _ in range(chooser.randint(1, MOST_IN_A_ROW)):
        killed = started_and_killed(command, out, chooser)
        if killed is not False:
            kills.append(reached(command, out) + ("" if killed else ", mpirun hung"))
        check_committed(command, out)
        # An export does not write over what is complete.
        if contents(out) == command.expected and command.name.startswith("export"):
            shutil.rmtree(place)
            return kills
    ranks, started = chooser.choice(command.ranks), time.monotonic()
    result = helpers.run(*command.arguments(out), ranks=ranks, timeout=LIMIT_SECONDS)
    command.took(ranks, time.monotonic() - started)
    if result.code != 0:
        raise AssertionError("after kills (written: %s), seed %d: %s" % (", ".join(kills), seed, result))
    if contents(out) != command.expected:
        raise AssertionError("after kills (written: %s), seed %d: other bytes in %s" % (", ".join(kills), seed, place))
    shutil.rmtree(place)
    return kills


def print_table(listed, survived, runs):
    columns = ["nothing", "assessment", "some", "tuning", "all"]
    print("%-56s %6s %6s  written by then: %s" % ("command", "ended", "kills", " ".join("%10s" % c for c in columns)))
    for command in listed:
        counts = survived[command.name]
        print("%-56s %6d %6d                   %s" % (command.name, runs[command.name], sum(counts.values()),
                                                      " ".join("%10d" % counts[c] for c in columns)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="at least so many kills [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="commands at the same time [%(default)s]")
    parser.add_argument("--only", default="", help="commands whose name contains this")
    parser.add_argument("--list", action="store_true", help="only name the commands")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="snrq-kills-")
    listed = [command for command in commands(folder) if options.only in command.name]
    if options.list:
        print("\n".join(command.name for command in listed))
        return
    survived, runs, lock = collections.defaultdict(collections.Counter), collections.Counter(), threading.Lock()
    failures, started, total, hung = [], time.monotonic(), 0, 0

    def campaign(job):
        nonlocal total, hung
        seed = options.seed + job
        while total < options.kills and not failures:
            command = listed[random.Random(seed).randrange(len(listed))]
            try:
                kills = survive(command, folder, seed)
            except AssertionError as error:
                failures.append("%s: %s" % (command.name, error))
                return
            with lock:
                survived[command.name].update(kill.split(",")[0] for kill in kills)
                hung += sum("hung" in kill for kill in kills)
                runs[command.name] += 1
                total += len(kills)
                print("%6.0f s %5d kills  seed %d, %s: %s" % (time.monotonic() - started, total, seed, command.name,
                                                             ", ".join(kills)), flush=True)
            seed += options.jobs

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(campaign, range(options.jobs)))
    print_table(listed, survived, runs)
    print("%d kills, %d failures, %.0f s; %d times an mpirun hung whose ranks had all ended" %
          (total, len(failures), time.monotonic() - started, hung))
    for failure in failures:
        print(failure)
    if not failures:
        shutil.rmtree(folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
