"""MPI calls that fail: an error that names the call, the right exit code, no hang, and the run goes on afterwards."""
import os
import subprocess

import helpers
import small_models

INTERNAL = 70
MODEL = small_models.LLAMA_WITH_BIASES
LENGTH = 16


class MpiErrors(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        model = small_models.write(os.path.join(folder, "model"), MODEL)
        ids = helpers.write_ids(os.path.join(folder, "ids.i32"), small_models.windows(MODEL, 4, LENGTH))
        cls.arguments = ["quantize", model, "--token-file", ids, "--length", LENGTH, "--sequences", 4, "--bits", 3,
                         "--group-size", "channel", "--regrid", 1]
        undisturbed = os.path.join(folder, "undisturbed")
        helpers.succeed(*cls.arguments, "-o", undisturbed)
        cls.expected = helpers.weights(undisturbed)

    def run_with(self, out, **variables):
        """On two ranks that have these environment variables."""
        words = helpers.command([*self.arguments, "-o", out], 2)
        settings = ["%s=%s" % item for item in variables.items()]
        if "MPI_FAULT" in variables:
            if helpers.SANITIZED:
                raise helpers.unittest.SkipTest("the sanitizer wants to be the first library")
            settings.append("LD_PRELOAD=" + " ".join([os.environ["SNRQ_MPI_FAULTS"], os.environ.get("LD_PRELOAD", "")]))
        words[3:3] = ["env", *settings]
        done = subprocess.run(words, env=helpers.environment(1), timeout=60, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        return helpers.Result(done.returncode, done.stdout.decode(), done.stderr.decode(), words)

    def check_goes_on(self, out):
        result = self.run_with(out)
        self.assertEqual(result.code, 0, result)
        self.assertEqual(helpers.weights(out), self.expected)

    def test_a_call_that_fails_on_all_ranks(self):
        out = self.path("out")
        for fault in ("MPI_Allreduce 30", "MPI_Bcast 1", "MPI_Comm_split 2", "MPI_Win_allocate_shared 3", "MPI_Barrier 9",
                      "MPI_Iallreduce 3", "MPI_Waitall 20"):
            with self.subTest(fault=fault):
                result = self.run_with(out, MPI_FAULT=fault)
                self.assertEqual(result.code, INTERNAL, result)
                self.assertNotIn("failed without the others", result.stderr)
                self.assertIn(fault.split()[0], result.stderr)
                self.assertIn("failed: MPI_ERR_OTHER", result.stderr)
        self.check_goes_on(out)

    def test_a_call_that_fails_on_one_rank(self):
        """The other rank waits for it: the failed one says so and ends the run."""
        out = self.path("out")
        result = self.run_with(out, MPI_FAULT="MPI_Allreduce 300", MPI_FAULT_RANK=1)
        self.assertEqual(result.code, INTERNAL, result)
        self.assertIn("snrq: rank 1: ", result.stderr)
        self.assertIn("MPI_Allreduce failed: MPI_ERR_OTHER", result.stderr)
        self.assertIn("failed without the others", result.stderr)
        self.check_goes_on(out)

    def test_compared_calls(self):
        """A whole run makes the same calls on all ranks, and comparing them changes nothing."""
        out = self.path("out")
        result = self.run_with(out, SNRQ_CHECK_COLLECTIVES="1")
        self.assertEqual(result.code, 0, result)
        self.assertEqual(helpers.weights(out), self.expected)


if __name__ == "__main__":
    if "SNRQ_MPI_FAULTS" not in os.environ:
        raise SystemExit("SNRQ_MPI_FAULTS is not set: the library built from mpi_faults.c")
    helpers.main()
