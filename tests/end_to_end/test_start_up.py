"""Commands of one process start no MPI: they work where MPI cannot start, and at once. Ranks agree on instructions."""
import json
import os
import subprocess
import time
import unittest

import helpers

ONE_PROCESS = [["--version"], ["--help"], ["quantize", "--help"], ["inspect", helpers.MODEL]]


def without_mpi(*arguments, stdout=subprocess.PIPE, **variables):
    """Runs the program where starting MPI fails: no transport, no HOME, no folder for temporary files."""
    environment = {"PATH": "/nowhere", "TMPDIR": "/nowhere", "OMPI_MCA_pml": "none", "OMPI_MCA_btl": "none",
                   "OMP_NUM_THREADS": "1", **variables}
    for name in ("LD_LIBRARY_PATH", "LSAN_OPTIONS", "ASAN_OPTIONS", "UBSAN_OPTIONS", "OMPI_ALLOW_RUN_AS_ROOT",
                 "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        if name in os.environ:
            environment[name] = os.environ[name]
    words = helpers.command(arguments, 0)
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                          timeout=60, check=False)
    return helpers.Result(done.returncode, (done.stdout or b"").decode(), done.stderr.decode(errors="replace"), words)


class StartUp(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.out = os.path.join(helpers.temporary_folder(cls), "out")
        helpers.quantize(cls.out, *"--bits 4 --group-size 32 --method rtn".split(), ranks=2)

    def check(self, *arguments, code=0):
        result = without_mpi(*arguments)
        self.assertEqual(result.code, code, result)
        return result

    def test_mpi_cannot_start_there(self):
        result = without_mpi("evaluate", self.out, "--text", helpers.HELDOUT, "--sequences", 1, "--length", 16)
        self.assertNotEqual(result.code, 0, result)

    def test_help_version_and_usage_errors(self):
        for arguments in ONE_PROCESS[:3]:
            self.assertIn("snrq", self.check(*arguments).stdout)
        self.assertIn("usage:", self.check(code=helpers.USAGE).stderr)
        self.assertIn("--nonsense", self.check("quantize", "--nonsense", code=helpers.USAGE).stderr)
        self.assertIn("unknown command", self.check("nonsense", code=helpers.USAGE).stderr)

    def test_inspect_verify_and_status(self):
        for arguments in (["inspect", helpers.MODEL, "--json"], ["inspect", self.out, "--json"],
                          ["verify", self.out, "--json"]):
            self.assertEqual(self.check(*arguments).json(), helpers.succeed(*arguments, ranks=2).json())
        self.assertIn("complete", self.check("status", self.out).stdout)
        self.check("inspect", self.path("none"), code=helpers.NO_INPUT)

    def test_tokenize(self):
        alone, ranks = self.path("alone"), self.path("ranks")
        self.check("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", alone)
        helpers.succeed("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", ranks, ranks=2)
        self.assertEqual(helpers.sha256(alone), helpers.sha256(ranks))

    def test_exports_are_the_same_as_on_ranks(self):
        for name in ("gptq", "gguf", "safetensors"):
            with self.subTest(format=name):
                alone, ranks = self.path(name + "-alone"), self.path(name + "-ranks")
                self.check("export", self.out, "--format", name, "-o", alone)
                helpers.succeed("export", self.out, "--format", name, "-o", ranks, ranks=2)
                self.assertEqual(sorted(os.listdir(alone)), sorted(os.listdir(ranks)))
                for file in os.listdir(alone):
                    self.assertEqual(helpers.sha256(os.path.join(alone, file)), helpers.sha256(os.path.join(ranks, file)))
                self.assertIn("all equal", self.check("verify", self.out, "--export", alone).stdout)

    def test_answers_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            for arguments in ONE_PROCESS:
                result = without_mpi(*arguments, stdout=full)
                self.assertEqual(result.code, helpers.IO_ERROR, result)
                self.assertIn("cannot be written", result.stderr)

    def test_it_takes_no_time(self):
        """Starting MPI takes half a second and more; here the fastest of some runs counts, on a machine that others use."""
        if helpers.SANITIZED:
            raise unittest.SkipTest("sanitizers are slow to start")
        for arguments in (*ONE_PROCESS, ["inspect", self.out], ["status", self.out]):
            seconds = []
            for _ in range(10):
                started = time.monotonic()
                self.check(*arguments)
                seconds.append(time.monotonic() - started)
            print("%.3f s: %s" % (min(seconds), arguments[0]))
            self.assertLess(min(seconds), 0.2, arguments)

    def kernels(self):
        return self.check("--version").stdout.splitlines()[1].split()[0]

    def test_instructions_are_named(self):
        name = self.kernels()
        with open("/proc/cpuinfo") as f:
            flags = next((line.split() for line in f if line.startswith("flags")), [])
        needs = {"generic": [], "avx2": ["avx2", "fma"], "avx512": ["avx512f", "avx512bw", "avx512dq", "avx512vl"]}
        self.assertLessEqual(set(needs[name]), set(flags))
        plan = helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--length", 32,
                               "--sequences", 2, "--dry-run").stderr
        self.assertRegex(plan, r"(?m)^placement .*, %s instructions$" % name)
        with open(os.path.join(self.out, "run.jsonl")) as f:
            start = json.loads(f.readline())
        self.assertEqual((start["event"], start["instructions"]), ("start", name))

    def test_instructions_that_the_program_does_not_have(self):
        result = without_mpi("inspect", helpers.MODEL, SNRQ_CPU="vax")
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("vax", result.stderr)

    def test_ranks_whose_blas_has_other_kernels(self):
        """As on nodes with different CPUs."""
        if "BLAS kernels" not in self.check("--version").stdout:
            raise unittest.SkipTest("this BLAS does not tell its kernels")
        helpers.need_several_programs()
        mpirun, _, one, *program = helpers.command(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o",
                                                    self.path("out"), "--length", 32, "--sequences", 2], 1)
        words = [mpirun, "-n", one, "env", "OPENBLAS_CORETYPE=Nehalem", *program, ":", "-n", one, "env",
                 "OPENBLAS_CORETYPE=Haswell", *program]
        done = subprocess.run(words, env=helpers.environment(1), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              timeout=60, check=False)
        said = done.stderr.decode()
        self.assertEqual(done.returncode, helpers.USAGE, said)
        for word in ("rank 1: the ranks use different instructions", "Nehalem", "Haswell", "OPENBLAS_CORETYPE"):
            self.assertIn(word, said)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    helpers.main()
