"""What the end-to-end tests share: running the program, files made for one test, and the exit code for CTest.

A test is a unittest class; `helpers.main()` at the end of its file runs it. Exit code 0: passed, 77: every test was
skipped, else failed. From the environment: SNRQ (the program), SNRQ_TEST_DATA (tests/data), SNRQ_SHARED (larger models
and reference figures; may be absent).
"""
import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("SNRQ_TEST_DATA") or os.path.join(os.path.dirname(HERE), "data")
MODEL = os.path.join(DATA, "model")
CALIBRATION = os.path.join(DATA, "calibration.txt")
HELDOUT = os.path.join(DATA, "heldout.txt")
SHARED = os.environ.get("SNRQ_SHARED", "")
SANITIZED = "ASAN_OPTIONS" in os.environ

USAGE, BAD_DATA, NO_INPUT, BUSY, CANNOT_WRITE, IO_ERROR, STOPPED, HUNG = 64, 65, 66, 69, 73, 74, 75, 76
TIME = r"\d\d:\d\d:\d\d "  # before a line of a run


def shared(*parts):
    """A path below SNRQ_SHARED; skips the test if it does not exist."""
    path = os.path.join(SHARED, *parts)
    if not SHARED or not os.path.exists(path):
        raise unittest.SkipTest("SNRQ_SHARED has no %s" % os.path.join(*parts))
    return path


def command(arguments, ranks):
    """The program on `ranks` ranks; 0: started by itself, without mpirun."""
    program = os.environ.get("SNRQ") or shutil.which("snrq")
    if not program:
        raise RuntimeError("SNRQ is not set and there is no snrq in PATH")
    launch = [] if ranks == 0 else [shutil.which("mpirun") or "mpiexec", "-n", str(ranks)]
    return launch + [program] + [str(a) for a in arguments]


@functools.lru_cache(maxsize=None)
def sessions():
    """Where MPI keeps what a run needs while it goes on."""
    folder = tempfile.mkdtemp(prefix="mpi-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def environment(threads):
    """For one run: its TMPDIR is its own, so that several may go on at a time."""
    changed = dict(os.environ, TMPDIR=tempfile.mkdtemp(prefix="", dir=sessions()))
    for name in ("OMPI_MCA_orte_tmpdir_base", "PRTE_MCA_prte_tmpdir_base"):  # they would be taken instead
        changed.pop(name, None)
    # Without mpirun, a process need not start the daemon through which it could start others.
    changed.setdefault("OMPI_MCA_ess_singleton_isolated", "1")
    changed.setdefault("OPENBLAS_NUM_THREADS", "1")
    changed.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait do not take cores from other ranks
    # When a rank fails, mpirun ends the others; by default it lets a second pass first.
    changed.setdefault("OMPI_MCA_odls_base_sigkill_timeout", "0")
    changed["OMP_NUM_THREADS"] = str(threads)
    return changed


class Result:
    def __init__(self, code, stdout, stderr, words):
        self.code, self.stdout, self.stderr, self.words = code, stdout, stderr, words

    def json(self):
        return json.loads(self.stdout)

    def __str__(self):
        return "\n%s\nexit code %d\n%s%s" % (" ".join(self.words), self.code, self.stdout, self.stderr)


def stop(process):
    """Ends a run: mpirun takes its ranks along when it is asked to end."""
    process.terminate()
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def run(*arguments, ranks=0, threads=1, timeout=120):
    """Runs the program to its end; a run that takes longer than `timeout` seconds is an error."""
    words = command(arguments, ranks)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(threads))
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        stop(process)
        raise AssertionError("still running after %d s: %s" % (timeout, " ".join(words)))
    return Result(process.returncode, stdout.decode(), stderr.decode(errors="replace"), words)


def succeed(*arguments, **how):
    result = run(*arguments, **how)
    if result.code != 0:
        raise AssertionError(str(result))
    return result


def with_options(words, *more):
    """The words of a command line with these options; what is there of them already goes, for none may be given twice."""
    names = [str(word) for word in more if str(word).startswith("--")]
    kept, skip = [], False
    for word in words:
        if skip or word in names:
            skip = not skip
        else:
            kept.append(word)
    return [*kept, *more]


def quantize(out, *options, model=MODEL, ranks=1, sequences=4, length=64, **how):
    """A short quantization run of the bundled model that must succeed. Returns `out`."""
    words = ["quantize", model, "--calibration", CALIBRATION, "-o", out, "--sequences", sequences, "--length", length]
    succeed(*with_options(words, *options), ranks=ranks, **how)
    return out


def start(*arguments, ranks=1, threads=1):
    """Starts the program in the background, for runs that are to be killed. Few words on stderr fit in the pipe."""
    return subprocess.Popen(command(arguments, ranks), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, env=environment(threads))


def kill_ranks(process):
    """SIGKILL to every process that mpirun has started, as when the machine is taken away."""
    with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
        children = [int(pid) for pid in f.read().split()]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)


def kill_when(condition, *arguments, ranks, seconds=60):
    """Starts a run and kills all its ranks as soon as `condition` holds, which must come within `seconds`."""
    process = start(*arguments, ranks=ranks)
    try:
        limit = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None:
                raise AssertionError("the run ended (exit code %d) before it was killed: %s" %
                                     (process.returncode, process.stderr.read().decode()))
            if time.monotonic() > limit:
                raise AssertionError("what to wait for did not come within %d s" % seconds)
            time.sleep(0.002)
        kill_ranks(process)
    finally:
        if process.poll() is None:
            stop(process)
        process.stderr.close()


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def weights(out):
    """Checksums of the data files of an output directory, by name."""
    return {name: sha256(os.path.join(out, name)) for name in sorted(os.listdir(out)) if name.endswith(".h5")}


def manifest(out):
    """Records of an output directory; a last line that is not finished yet is left out."""
    try:
        with open(os.path.join(out, "manifest.jsonl"), "rb") as f:
            return [json.loads(line) for line in f.read().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def drop_records(out, count):
    """Takes the last records of a finished run back, as if it had been killed before it wrote them."""
    path = os.path.join(out, "manifest.jsonl")
    with open(path, "rb") as f:
        lines = f.read().splitlines(keepends=True)
    with open(path, "wb") as f:
        f.writelines(lines[:-count])
    os.remove(os.path.join(out, "status.json"))


def need_several_programs():
    """Skips the test where mpirun cannot start ranks of different commands; that of Open MPI 5.0.7 crashes."""
    mpirun = shutil.which("mpirun") or "mpiexec"
    words = [mpirun, "-n", "1", "true", ":", "-n", "1", "true"]
    if subprocess.run(words, env=environment(1), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise unittest.SkipTest("mpirun cannot start different commands at a time here")


def flip_bit(path, offset, bit=0):
    """Negative offsets count from the end of the file."""
    with open(path, "r+b") as f:
        f.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        at = f.tell()
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ (1 << bit)]))


def write_ids(path, ids):
    np.asarray(ids, dtype="<i4").tofile(path)
    return path


def read_safetensors_header(path):
    """(header as a dictionary, offset of the data)"""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(size).decode()), 8 + size


def read_safetensors(path):
    """{name: (type, shape, bytes)}"""
    header, start_of_data = read_safetensors_header(path)
    with open(path, "rb") as f:
        data = f.read()[start_of_data:]
    return {name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
            for name, t in header.items() if name != "__metadata__"}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def copy_model(directory, **changed):
    """A copy of the bundled model that can be damaged; `changed` are entries of config.json (None: left out)."""
    shutil.copytree(MODEL, directory)
    os.chmod(directory, 0o755)
    path = os.path.join(directory, "config.json")
    with open(path) as f:
        config = json.load(f)
    for key, value in changed.items():
        config[key] = value
        if value is None:
            del config[key]
    with open(path, "w") as f:
        json.dump(config, f)
    return directory


def temporary_folder(case):
    """A folder for all tests of a class; called in setUpClass with the class."""
    folder = tempfile.mkdtemp(prefix="snrq-")
    case.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def file_system(directory, options):
    """A small file system in memory, mounted at `directory` for a while. Skips the test where that is not allowed."""
    os.mkdir(directory)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "snrq-test", directory], check=False,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if mounted.returncode != 0:
        raise unittest.SkipTest("a file system cannot be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


# mpirun starts its daemons through this instead of ssh: every node is this machine under another name. Nodes but the
# first have an empty file system of their own at $SNRQ_TEST_PRIVATE, if that is set.
NODE_AGENT = """#!/bin/sh
host=$1
shift
exec unshare --uts --mount sh -ec '
    hostname "$0"
    [ -z "$SNRQ_TEST_PRIVATE" ] || [ "$0" = node1 ] || mount -t tmpfs snrq-test "$SNRQ_TEST_PRIVATE"
    exec sh -c "$1"' "$host" "$*"
"""


def node_launcher(nodes, folder):
    """Words that start one rank of a program on each of several nodes; `folder` gets a script. Skips the test where nodes
    cannot be made."""
    agent = os.path.join(folder, "agent.sh")
    with open(agent, "w") as f:
        f.write(NODE_AGENT)
    os.chmod(agent, 0o755)
    hosts = ["node%d" % (i + 1) for i in range(nodes)]
    words = [shutil.which("mpirun") or "mpiexec", "-n", str(nodes), "-H", ",".join(host + ":1" for host in hosts), "--mca",
             "plm_rsh_agent", agent]
    try:
        tried = subprocess.run([*words, "hostname"], env=environment(1), stdin=subprocess.DEVNULL, timeout=30, check=False,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    except subprocess.TimeoutExpired:
        tried = ""
    if sorted(tried.split()) != hosts:
        raise unittest.SkipTest("mpirun cannot start programs on nodes of other names here (unshare, hostname, mount)")
    return words


class Test(unittest.TestCase):
    """A test with a folder of its own, self.folder, that is removed at the end."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="snrq-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)


def main():
    program = unittest.main(verbosity=2, exit=False)
    result = program.result
    # A class that is skipped as a whole is in the list of the skipped, but not counted as run.
    passed = result.testsRun - sum(isinstance(test, unittest.TestCase) for test, _ in result.skipped)
    if not result.wasSuccessful() or (passed <= 0 and not result.skipped):
        sys.exit(1)
    sys.exit(0 if passed > 0 else 77)
