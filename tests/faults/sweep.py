"""Fails the n-th call of each kind, n = 1, 2, 3, ... until a run passes, and looks at what is left after each fault.

    sweep.py [--quick | --all] [--jobs N] [--only TEXT]

A library (shim.c) put in front of libc makes one call of a run fail, move only half of its bytes, or the process die
around it. After each fault:

- the run has ended within a minute, with the exit code that docs/operations.md has for the fault, and a message that
  names the file and the system's reason; or it has gone on, where TOLERATED says why it may;
- the manifest is the beginning of that of an undisturbed run, every file under a final name has its record, and the
  bytes of the undisturbed run; `snrq verify` says the same;
- the same command, on another number of ranks, exits with 0 and leaves the bytes of the undisturbed run.

Environment: SNRQ (the program), SNRQ_FAULT_SHIM (the library). Only Python's own modules are needed.
"""
import argparse
import array
import collections
import concurrent.futures
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

LIMIT_SECONDS = 60
BAD_DATA, NO_INPUT, INTERNAL, CANNOT_CREATE, IO_ERROR, KILLED = 65, 66, 70, 73, 74, 128 + signal.SIGKILL
NEVER = 1 << 40

# Calls that may fail without ending a run, by file: what the run does instead.
TOLERATED = [
    ("create write sync rename close open", r"(run\.jsonl|status\.json)(\.tmp)?$", "logs never stop a run: a warning"),
    ("unlink", r"\.locktest\.\d+$", "MPI-IO's own file; removed by the next run"),
    ("unlink", r"\.tmp$", "a leftover that the next run removes"),
    ("open read unlink", r"snrq\.lock$", "a lock that cannot be removed is stale: a warning"),
    ("close", r"\.(h5|jsonl|gguf|safetensors)((\.snrq)?\.tmp)?$", "everything was made durable before"),
    ("close", r"\.locktest\.\d+$", "MPI-IO's own file, which is empty"),
    ("lock create open", r"\.h5\.tmp(\.locktest\.\d+)?$", "MPI-IO works without its locks; what it wrote is read back"),
]
HIDDEN_REASON = "cannot be opened through MPI-IO"  # which does not hand it on
LOG_WARNING, NO_SUMMARY = "warning: a log cannot be written", "warning: no summary"
SHORT_IS_LEGAL = "a short count is no error: the rest follows"


class Fault(collections.namedtuple("Fault", "call action at rank on bytes caller")):
    """Which call fails, and how; the fields are the variables of shim.c."""

    def __new__(cls, call, action, at=NEVER, rank="", on=False, bytes=0, caller=""):
        return super().__new__(cls, call, action, at, rank, on, bytes, caller)

    @property
    def kills(self):
        return self.action.startswith("kill")

    @property
    def reason(self):
        number = getattr(errno, self.action, None)
        return os.strerror(number) if number is not None else ""

    def environment(self, below, report):
        number = getattr(errno, self.action, None)
        return {"SNRQ_FAULT_REPORT": report, "SNRQ_FAULT_BELOW": ":".join(below), "SNRQ_FAULT_CALL": self.call,
                "SNRQ_FAULT_AT": str(self.at), "SNRQ_FAULT_ACTION": self.action if number is None else str(number),
                "SNRQ_FAULT_RANK": str(self.rank), "SNRQ_FAULT_ON": "1" if self.on else "",
                "SNRQ_FAULT_BYTES": str(self.bytes), "SNRQ_FAULT_CALLER": self.caller}

    def __str__(self):
        return "%s %s%s%s%s" % (self.call, self.action, "+" if self.on else "",
                                " rank %s" % self.rank if self.rank != "" else "",
                                " " + self.caller if self.caller else "")


class Injected(collections.namedtuple("Injected", "rank n call writes path")):
    """What the library did: one line of its report."""


class Problem(Exception):
    pass


# Running the program.

def children(pid):
    """All processes below `pid`."""
    found = []
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task)) as f:
                found += [int(child) for child in f.read().split()]
    except OSError:
        pass
    return found + [below for child in found for below in children(child)]


def kill_tree(process):
    for pid in children(process.pid) + [process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Result:
    def __init__(self, words, code, stdout, stderr, report):
        self.words, self.stdout, self.stderr = words, stdout, stderr
        self.code = 128 - code if code < 0 else code
        self.injected, self.counted = [], {}
        for line in report.splitlines():
            kind, rank, *words = line.split(" ")
            if kind == "counted":
                self.counted[int(rank)] = {words[i]: (int(words[i + 1]), int(words[i + 2]))
                                           for i in range(0, len(words), 3)}
            else:
                self.injected.append(Injected(int(rank), int(words[0]), *line.split(" ", 5)[3:]))

    def __str__(self):
        injected = "".join("%s\n" % (i,) for i in self.injected)
        return "%s\nexit code %d\n%s%s%s" % (" ".join(self.words), self.code, injected, self.stdout[-500:],
                                             self.stderr[-1500:])


class Runner:
    """Starts the program in a folder of its own, which goes with all that MPI leaves behind."""

    def __init__(self, folder, shared):
        self.folder, self.shared, self.numbers, self.lock = folder, shared, iter(range(NEVER)), threading.Lock()
        self.environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive",
                                OMPI_MCA_odls_base_sigkill_timeout="0", OMPI_MCA_ess_singleton_isolated="1")

    def fresh(self, name):
        with self.lock:
            return os.path.join(self.folder, "%s-%d" % (name, next(self.numbers)))

    def run(self, arguments, ranks=1, fault=None, below=()):
        """One rank is started without mpirun. What MPI leaves behind goes with two folders."""
        session, shared = tempfile.mkdtemp(dir=self.folder), tempfile.mkdtemp(dir=self.shared)
        environment = dict(self.environment, OMPI_MCA_orte_tmpdir_base=session,
                           OMPI_MCA_osc_sm_backing_directory=shared, OMPI_MCA_btl_vader_backing_directory=shared)
        try:
            return self.run_in(environment, os.path.join(session, "report"), arguments, ranks, fault, below)
        finally:
            for path in (session, shared):
                shutil.rmtree(path, ignore_errors=True)

    def run_again(self, arguments, ranks=1):
        """As run(), once the run before is gone: on a busy machine a rank that mpirun killed may end after mpirun."""
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            again = self.run(arguments, ranks)
            if "in use by process" not in again.stderr or time.monotonic() > end:
                return again
            time.sleep(0.5)

    @staticmethod
    def run_in(environment, report, arguments, ranks, fault, below):
        words = [os.environ["SNRQ"], *arguments]
        added = {}
        if fault is not None:
            libraries = [os.environ["SNRQ_FAULT_SHIM"], os.environ.get("LD_PRELOAD", "")]
            added = dict(fault.environment(below, report), LD_PRELOAD=" ".join(libraries).strip())
        if ranks > 1:
            # mpirun hands them on; it is not to be disturbed itself.
            words[:0] = ["mpirun", "-n", str(ranks)] + [w for k, v in added.items() for w in ("-x", "%s=%s" % (k, v))]
        else:
            environment.update(added)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment, start_new_session=True)
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            kill_tree(process)
            stdout, stderr = process.communicate()
            raise Problem("no end within %d s\n%s%s" % (LIMIT_SECONDS, stderr.decode(errors="replace")[-1500:],
                                                        read_text(report)))
        return Result(words, process.returncode, stdout.decode(), stderr.decode(errors="replace"), read_text(report))


def read_text(path):
    try:
        with open(path) as f:
            return f.read()
    except FileNotFoundError:
        return ""


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


# The model.

def write_model(directory, layers, hidden=32, middle=64, vocabulary=64):
    """A model of random weights whose shapes every export format takes."""
    os.makedirs(directory)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "intermediate_size": middle, "num_hidden_layers": layers, "num_attention_heads": 2,
              "num_key_value_heads": 2, "vocab_size": vocabulary, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
              "hidden_act": "silu", "rope_theta": 10000.0, "torch_dtype": "float32", "tie_word_embeddings": True}
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        block = {"self_attn.%s_proj" % name: (hidden, hidden) for name in "qkvo"}
        block.update({"mlp.gate_proj": (middle, hidden), "mlp.up_proj": (middle, hidden),
                      "mlp.down_proj": (hidden, middle), "input_layernorm": (hidden,),
                      "post_attention_layernorm": (hidden,)})
        shapes.update({"model.layers.%d.%s.weight" % (layer, name): shape for name, shape in block.items()})
    chance, header, data = random.Random(7), {}, b""
    for name, shape in shapes.items():
        if len(shape) == 2:
            values = [chance.gauss(0, 1.5 / shape[1] ** 0.5) for _ in range(shape[0] * shape[1])]
        else:
            values = [1 + 0.3 * chance.gauss(0, 1) for _ in range(shape[0])]
        values = array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(directory, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    for name, value in (("config.json", config), ("generation_config.json", {"eos_token_id": 1})):
        with open(os.path.join(directory, name), "w") as f:
            json.dump(value, f)


def write_tokens(path, count, vocabulary=64):
    chance = random.Random(11)
    with open(path, "wb") as f:
        array.array("i", [chance.randrange(vocabulary) for _ in range(count)]).tofile(f)


# What is checked.

def base(name):
    """A file's final name."""
    return re.sub(r"(\.locktest\.\d+|(\.snrq)?\.tmp)+$", "", re.sub(r"^snrq\.lock\..*", "snrq.lock", os.path.basename(name)))


def tolerated(injected, fault, stderr):
    """Why a run may go on after this fault; None if it may not."""
    if fault.action == "short":
        return SHORT_IS_LEGAL
    if LOG_WARNING in stderr and injected.call in ("open", "sync", "alloc"):
        return "logs never stop a run: its directory was not made durable, or there was no memory for a line"
    if injected.call == "alloc" and fault.caller:
        return "an entry of a log is left out"
    if NO_SUMMARY in stderr and injected.call in ("open", "read", "alloc"):
        return "the output is complete: a warning"
    for calls, pattern, why in TOLERATED:
        if injected.call in calls.split() and re.search(pattern, injected.path):
            return why
    return None


def expected_codes(injected, fault):
    if fault.kills:
        return [KILLED]
    if injected.call == "alloc":
        return [INTERNAL]
    if injected.call in ("create", "mkdir", "reserve"):
        return [CANNOT_CREATE]
    if injected.call == "close":
        return [IO_ERROR, CANNOT_CREATE]  # HDF5 closes a file it creates once before it is used
    if injected.call == "open" and fault.action == "EACCES":
        return [NO_INPUT, IO_ERROR]  # HDF5 opens what was found readable a moment before
    if injected.call == "open" and injected.writes == "w":
        return [IO_ERROR, CANNOT_CREATE]
    return [IO_ERROR]


def check_end(result, fault):
    """Exit code and message of a run with a fault."""
    serious = [i for i in result.injected if fault.kills or not tolerated(i, fault, result.stderr)]
    if result.code == 0:
        if serious:
            raise Problem("went on after the fault")
        return
    first = (serious or result.injected)[0]
    if result.code not in expected_codes(first, fault):
        raise Problem("expected exit code %s" % expected_codes(first, fault))
    if fault.kills:
        return
    words = ["allocate|memory"]
    if first.call != "alloc":
        words = ["|".join(re.escape(base(i.path)) for i in serious or result.injected),
                 "%s|%s" % (re.escape(fault.reason), HIDDEN_REASON)]
    message = [line for line in result.stderr.splitlines() if line.startswith("snrq: ")]
    for word in words:
        if not message or not re.search(word, message[-1]):
            raise Problem("the message does not say %s" % word)


OWN = {"snrq.json", "manifest.jsonl"}
LOGS = {"run.jsonl", "status.json"}


def is_unfinished(name):
    return name.endswith(".tmp") or ".locktest." in name or name.startswith("snrq.lock")


def final_files(directory):
    """Bytes of what lies under final names."""
    if not os.path.isdir(directory):
        return {}
    return {name: read_bytes(os.path.join(directory, name)) for name in sorted(os.listdir(directory))
            if not is_unfinished(name) and name not in LOGS}


def digest(files):
    whole = hashlib.sha256()
    for name, data in files.items():
        whole.update(("%s %d\n" % (name, len(data))).encode() + data)
    return whole.hexdigest()


def recorded(manifest):
    """Names of the files that a manifest knows, without a torn last line."""
    records = [json.loads(line) for line in manifest.split(b"\n")[:-1]]
    return {record["file"] for record in records if "file" in record}


class Quantize:
    """`snrq quantize` from a given state of the output directory."""

    def __init__(self, bench, ranks, start=None):
        self.bench, self.ranks, self.start = bench, ranks, start
        self.name = "quantize" if start is None else "resume"

    def prepare(self):
        out = self.bench.runner.fresh("out")
        if self.start is not None:
            shutil.copytree(self.start, out)
        return out

    def below(self, out, fault):
        inputs = [self.bench.model, self.bench.tokens]
        return inputs if fault.action == "EACCES" else [out] + inputs

    def run(self, out, fault):
        return self.bench.runner.run(self.bench.quantize_words(out), self.ranks, fault, self.below(out, fault))

    def check_left(self, out, result, fault):
        """What the run has left; a kill may come between the name of a file and its record."""
        files, reference = final_files(out), self.bench.reference
        manifest = files.get("manifest.jsonl", b"")
        torn = manifest[manifest.rfind(b"\n") + 1:]
        if not reference["manifest.jsonl"].startswith(manifest):
            raise Problem("the manifest is not the beginning of that of an undisturbed run")
        strays = [name for name in files if name not in OWN and name not in recorded(manifest)]
        for name in recorded(manifest) | (set(files) - {"manifest.jsonl"}):
            if files.get(name) != reference.get(name):
                raise Problem("%s is not that of an undisturbed run" % name)
        found = final_files(self.start) if self.start is not None else {}
        if not fault.kills and ((torn and not found) or not set(strays) <= set(found)):
            raise Problem("left a torn line" if torn else "left %s without a record" % ", ".join(strays))
        if result.code == 0 and files != reference:
            raise Problem("the output is not complete")
        self.bench.check_verify(out, files, bool(torn or [s for s in strays if s.endswith(".h5")]))

    def check_again(self, out, result, serial):
        ranks = 2 if self.ranks == 1 else 3 if serial % 8 == 0 else 1
        again = self.bench.runner.run_again(self.bench.quantize_words(out), ranks)
        if again.code != 0:
            raise Problem("the resumed run failed\n%s" % again)
        if final_files(out) != self.bench.reference:
            raise Problem("the resumed run left other bytes\n%s" % again)
        # What a run that was complete could not remove stays.
        rest = [name for name in os.listdir(out) if is_unfinished(name) and result.code != 0]
        if rest:
            raise Problem("the resumed run left %s\n%s" % (", ".join(rest), again))


class Export:
    """`snrq export`: all files under their names, or none; then the same command works."""

    def __init__(self, bench, form, ranks):
        self.bench, self.form, self.ranks, self.name = bench, form, ranks, "export " + form

    def prepare(self):
        return self.bench.runner.fresh("export")

    def below(self, out, fault):
        return [self.bench.finished] if fault.action == "EACCES" else [out, self.bench.finished]

    def words(self, out):
        return ["export", self.bench.finished, "--format", self.form, "-o", out]

    def run(self, out, fault):
        return self.bench.runner.run(self.words(out), self.ranks, fault, self.below(out, fault))

    def check_left(self, out, result, fault):
        files, reference = final_files(out), self.bench.exports[self.form]
        for name, data in files.items():
            if data != reference.get(name):
                raise Problem("%s is half-written" % name)
        if not fault.kills and files != ({} if result.code else reference):
            raise Problem("left %s" % ", ".join(files))

    def check_again(self, out, result, serial):
        if final_files(out):
            # Killed while names were given, or complete: the message says to take another directory.
            again = self.bench.runner.run_again(self.words(out))
            if again.code != CANNOT_CREATE or "is not empty" not in again.stderr:
                raise Problem("expected a refusal\n%s" % again)
            out = self.prepare()
        again = self.bench.runner.run_again(self.words(out))
        if again.code != 0 or final_files(out) != self.bench.exports[self.form]:
            raise Problem("the repeated export failed, or left other bytes\n%s" % again)
        shutil.rmtree(out)


class Read:
    """A command that only reads: right, or an error; never a wrong answer."""

    def __init__(self, bench, name, words, ranks):
        self.bench, self.name, self.words, self.ranks = bench, name, words, ranks
        self.answer = bench.must(words).stdout

    def prepare(self):
        return None

    def below(self, out, fault):
        return [self.bench.finished, self.bench.tokens]

    def run(self, out, fault):
        return self.bench.runner.run(self.words, self.ranks, fault, self.below(out, fault))

    def check_left(self, out, result, fault):
        if result.code == 0 and result.stdout != self.answer:
            raise Problem("another answer than that of an undisturbed run")

    def check_again(self, out, result, serial):
        pass


class Bench:
    """The inputs, and what undisturbed runs make of them."""

    def __init__(self, runner):
        self.runner, self.verified, self.lock = runner, {}, threading.Lock()
        self.model, self.tokens = runner.fresh("model"), runner.fresh("tokens")
        write_model(self.model, layers=2)
        write_tokens(self.tokens, 4 * 32)
        self.finished = runner.fresh("finished")
        self.must(self.quantize_words(self.finished))
        self.reference = final_files(self.finished)
        self.exports = {}
        for form in ("gptq", "gguf"):
            out = runner.fresh("export")
            self.must(["export", self.finished, "--format", form, "-o", out])
            self.exports[form] = final_files(out)
        self.questions = {"verify": ["verify", self.finished], "evaluate": [
            "evaluate", self.finished, "--token-file", self.tokens, "--length", "32", "--json"]}

    def half_done(self):
        """An output directory whose run was killed while it wrote the record of its second block: left are a lock, a
        torn line, and a file without a record."""
        out = self.runner.fresh("half")
        lines = self.reference["manifest.jsonl"].split(b"\n")
        fault = Fault("write", "kill-half", next(n for n, line in enumerate(lines, 1) if b"block-00001" in line))
        result = self.runner.run(self.quantize_words(out), 1, fault, [os.path.join(out, "manifest.jsonl")])
        if result.code != KILLED:
            raise Problem("a run could not be killed\n%s" % result)
        return out

    def must(self, words):
        result = self.runner.run(words)
        if result.code != 0:
            raise Problem("an undisturbed run failed\n%s" % result)
        return result

    def quantize_words(self, out):
        return ["quantize", self.model, "--token-file", self.tokens, "-o", out, "--bits", "4", "--group-size", "32",
                "--method", "ksnrq", "--beam", "2", "--sequences", "4", "--length", "32"]

    def check_verify(self, out, files, flawed):
        """`snrq verify`, once for each state of a directory."""
        key = digest(files)
        with self.lock:
            code = self.verified.get(key)
        if code is None:
            code = self.runner.run(["verify", out]).code
            with self.lock:
                self.verified[key] = code
        expected = NO_INPUT if "snrq.json" not in files else BAD_DATA if flawed else 0
        if code != expected:
            raise Problem("snrq verify says %d, expected %d" % (code, expected))


# The sweep.

EVERY = NEVER
# (fault, number of calls that fail in a full sweep, in a quick one): spread evenly, the first and the last among them.
FAULTS = [
    (Fault("open", "EIO"), EVERY, 3), (Fault("open", "EACCES"), 10, 1), (Fault("create", "EIO"), EVERY, 3),
    (Fault("read", "EIO"), 80, 5), (Fault("read", "short"), 40, 3), (Fault("write", "EIO"), 50, 4),
    (Fault("write", "ENOSPC", on=True), 80, 6), (Fault("write", "EDQUOT"), 25, 2), (Fault("write", "short"), 60, 4),
    (Fault("sync", "EIO"), EVERY, 4), (Fault("sync", "ENOSPC", on=True), 20, 2), (Fault("rename", "EIO"), EVERY, 4),
    (Fault("rename", "ENOSPC", on=True), 10, 1), (Fault("link", "EIO"), EVERY, 1),
    (Fault("reserve", "ENOSPC"), EVERY, 2), (Fault("reserve", "EDQUOT"), EVERY, 1),
    (Fault("truncate", "EIO"), EVERY, 1), (Fault("mkdir", "EDQUOT"), EVERY, 1), (Fault("unlink", "EIO"), EVERY, 2),
    (Fault("close", "EDQUOT"), 25, 2), (Fault("lock", "ENOLCK", on=True), 5, 1), (Fault("list", "EIO"), EVERY, 1),
    (Fault("alloc", "ENOMEM", bytes=4096), 80, 5), (Fault("alloc", "ENOMEM", caller="libjansson"), 20, 1),
    (Fault("step", "kill-before"), EVERY, 8), (Fault("step", "kill-after"), 20, 2),
    (Fault("write", "kill-half"), 40, 4), (Fault("read", "kill-before"), 10, 1),
]


def share(parts, least, rank=""):
    """The same faults in one part of the places, on one rank; of a quick sweep those that make `least` faults there."""
    return [(fault._replace(rank=rank), most if parts == 1 else -(-min(most, 60) // parts),
             few if parts == 1 else int(few >= least)) for fault, most, few in FAULTS]


def plan(bench):
    """[(what is run, [(fault, number in a full sweep, in a quick one)])]"""
    half = bench.half_done()
    jobs = [(Quantize(bench, 1), share(1, 1)), (Quantize(bench, 1, half), share(3, 4)),
            (Quantize(bench, 2), share(4, 3, 0) + share(4, 3, 1)),
            (Quantize(bench, 2, half), share(8, 6, 0) + share(8, 6, 1))]
    for form in bench.exports:
        jobs += [(Export(bench, form, 1), share(4, 4)), (Export(bench, form, 2), share(12, 6, 0) + share(12, 6, 1))]
    reads = [row for row in share(6, 5) if row[0].call in ("open", "read", "list", "alloc") and not row[0].kills]
    for name, words in bench.questions.items():
        jobs.append((Read(bench, name, words, 1), reads))
    return jobs


def spread(count, number):
    """`number` of 1 ... count, both ends included; one alone is from the middle."""
    if count <= number:
        return list(range(1, count + 1))
    if number == 1:
        return [(count + 1) // 2]
    return sorted({1 + round(i * (count - 1) / (number - 1)) for i in range(number)})


class Row:
    """Counts of a line of the printed table."""

    def __init__(self):
        self.calls = self.faults = self.tolerated = self.again = self.failed = 0


class Sweep:
    def __init__(self, bench, workers, which):
        self.bench, self.which = bench, which
        self.pool = concurrent.futures.ThreadPoolExecutor(workers)
        self.rows, self.reasons, self.problems = {}, collections.Counter(), []
        self.counts, self.lock = {}, threading.Lock()

    @staticmethod
    def name(job, fault):
        return "%s, %d rank%s: %s" % (job.name, job.ranks, "s" * (job.ranks > 1), fault)

    def inject(self, job, fault, serial):
        """One fault. False if the run passed without it: n is past the end."""
        row, result, out = self.rows[self.name(job, fault)], None, job.prepare()
        try:
            result = job.run(out, fault)
            if not result.injected:
                if result.code != 0:
                    raise Problem("failed without a fault")
                return False
            with self.lock:
                row.faults += 1
                row.tolerated += result.code == 0
                if result.code == 0:
                    self.reasons[tolerated(result.injected[0], fault, result.stderr)] += 1
            check_end(result, fault)
            job.check_left(out, result, fault)
            job.check_again(out, result, serial)
            with self.lock:
                row.again += 1
        except Exception as problem:
            with self.lock:
                row.failed += 1
                self.problems.append("%s, call %d: %s\n%s" % (self.name(job, fault), fault.at, problem, result or ""))
            if not isinstance(problem, Problem):
                raise
        finally:
            if out is not None:
                shutil.rmtree(out, ignore_errors=True)
        return True

    def past_the_end(self, job, fault, n):
        while self.inject(job, fault._replace(at=n), n):
            n += 1

    def count(self, job, fault):
        """How many calls of this kind an undisturbed run makes."""
        key = job, fault.bytes, fault.caller, fault.action == "EACCES"
        if key not in self.counts:
            out = job.prepare()
            result = job.run(out, fault._replace(at=NEVER, rank=""))
            if out is not None:
                shutil.rmtree(out, ignore_errors=True)
            if result.code != 0:
                raise Problem("an undisturbed run failed\n%s" % result)
            self.counts[key] = result.counted
        halved = fault.action in ("short", "kill-half")
        return max(counts[fault.call][halved] for rank, counts in self.counts[key].items()
                   if fault.rank in ("", rank))

    def start(self, job, fault, full, quick):
        """Puts the faults of one row into the pool. Returns what to wait for."""
        number = {"all": EVERY, "full": full, "quick": quick}[self.which]
        count = self.count(job, fault) if number else 0
        if count == 0:
            return []
        row = self.rows[self.name(job, fault)] = Row()
        row.calls = count
        waits = [self.pool.submit(self.inject, job, fault._replace(at=n), n) for n in spread(count, number)]
        if self.which != "quick":
            waits.append(self.pool.submit(self.past_the_end, job, fault, count + 1))
        return waits

    def run(self, jobs, only):
        for job, faults in jobs:
            started = time.monotonic()
            waits = [wait for row in faults if only in self.name(job, row[0]) for wait in self.start(job, *row)]
            for wait in waits:
                wait.result()
            if waits:
                print("%s, %d rank(s): %d runs, %.0f s" % (job.name, job.ranks, len(waits), time.monotonic() - started),
                      flush=True)

    @staticmethod
    def print_row(name, row):
        print("%-58s %7d %7d %9d %8d %7d" % (name, row.calls, row.faults, row.tolerated, row.again, row.failed))

    def report(self):
        for problem in self.problems:
            print("PROBLEM", problem)
        print("%-58s %7s %7s %9s %8s %7s" % ("", "calls", "faults", "tolerated", "recovered", "wrong"))
        total = Row()
        for name, row in self.rows.items():
            self.print_row(name, row)
            for field, value in vars(row).items():
                setattr(total, field, getattr(total, field) + value)
        self.print_row("all", total)
        for reason, count in self.reasons.most_common():
            print("tolerated %5d times: %s" % (count, reason))
        return total.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few faults of each kind")
    parser.add_argument("--all", action="store_true", help="every call, where the full sweep spreads its faults")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time")
    parser.add_argument("--only", default="", help="only lines of the table that contain this text")
    arguments = parser.parse_args()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder, shared = tempfile.mkdtemp(prefix="snrq-faults-"), tempfile.mkdtemp(prefix="snrq-faults-", dir=memory)
    which = "quick" if arguments.quick else "all" if arguments.all else "full"
    started, sweep = time.monotonic(), None
    try:
        bench = Bench(Runner(os.path.realpath(folder), shared))
        sweep = Sweep(bench, arguments.jobs, which)
        sweep.run(plan(bench), arguments.only)
    finally:
        if sweep is not None:
            sweep.pool.shutdown(cancel_futures=True)
        faults = sweep.report() if sweep is not None else 0
        print("%s sweep: %d faults, %d wrong, %.0f s" % (which, faults, len(sweep.problems) if sweep else 1,
                                                        time.monotonic() - started))
        for path in (folder, shared):
            shutil.rmtree(path, ignore_errors=True)
    sys.exit(1 if sweep.problems or faults == 0 else 0)


if __name__ == "__main__":
    main()
