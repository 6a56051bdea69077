"""`quantize --target-bits` in its own assessment: it stops where it is asked to, is watched, outlives kills, and goes on with
the same bytes."""
import os
import signal
import time

import helpers
import small_models

MODEL = dict(small_models.LLAMA_WITH_BIASES, num_hidden_layers=2, hidden_size=32, intermediate_size=64, head_dim=8)
BLOCKS = 2


class StopAssessment(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        model = small_models.write(os.path.join(folder, "model"), MODEL)
        ids = helpers.write_ids(os.path.join(folder, "ids.i32"), [7 * i * i % 61 for i in range(512)])
        cls.words = ["quantize", model, "--token-file", ids, "--length", 32, "--sequences", 4, "--group-size", 32, "--method", "ldlq",
                     "--held-out", 0, "--target-bits", 4]
        cls.undisturbed = os.path.join(folder, "undisturbed")
        helpers.succeed(*cls.words, "-o", cls.undisturbed, ranks=1)

    def assessed(self, out):
        """How many blocks are assessed; -1: it has not begun; None: all are, and the run has gone on."""
        folder = os.path.join(out, "assessment")
        if not os.path.isdir(folder):
            return -1
        names = os.listdir(folder)
        return None if "assessment.json" in names else sum(n.startswith("assess-") and n.endswith(".json") for n in names)

    def check_finishes(self, out, ranks):
        helpers.succeed(*self.words, "-o", out, ranks=ranks, timeout=300)
        self.assertEqual(helpers.weights(out), helpers.weights(self.undisturbed))
        for name in ("snrq.json", "manifest.jsonl", "assessment/assessment.json", "assessment/recipe.json"):
            self.assertEqual(helpers.sha256(os.path.join(out, name)), helpers.sha256(os.path.join(self.undisturbed, name)), name)

    def started(self, out, blocks, *more, ranks=2):
        """A run that has assessed so many blocks, and the process of its last rank, which is held."""
        process = helpers.start(*self.words, "-o", out, *more, ranks=ranks)
        self.addCleanup(self.end, process)
        limit = time.monotonic() + 100
        while self.assessed(out) is not None and self.assessed(out) < blocks:
            self.assertIsNone(process.poll(), "ended too early")
            self.assertLess(time.monotonic(), limit, "too slow")
            time.sleep(0.002)
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
            rank = int(f.read().split()[-1])
        os.kill(rank, signal.SIGSTOP)
        if self.assessed(out) is None:
            self.skipTest("it was too fast to be held")
        return process, rank

    @staticmethod
    def end(process):
        if process.poll() is None:
            helpers.stop(process)
        process.stderr.close()

    def test_signal(self):
        out = self.path("out")
        process, rank = self.started(out, 1)
        process.send_signal(signal.SIGUSR1)
        os.kill(rank, signal.SIGCONT)
        self.assertEqual(process.wait(timeout=100), helpers.STOPPED)
        said = process.stderr.read().decode()
        done = self.assessed(out)
        self.assertIn("signal %d" % signal.SIGUSR1, said)
        self.assertIn("%d of %d blocks are assessed and none is quantized, run the same command again to go on" % (done, BLOCKS),
                      said)
        self.assertFalse(os.path.exists(os.path.join(out, "snrq.json")))
        self.assertEqual(helpers.run("status", out).code, helpers.STOPPED)
        self.check_finishes(out, 1)

    def test_kill(self):
        out = self.path("out")
        process, _ = self.started(out, 1, ranks=3)
        helpers.kill_ranks(process)
        self.assertFalse(os.path.exists(os.path.join(out, "snrq.json")))
        self.check_finishes(out, 1)

    def test_time_and_halt_file(self):
        """The time counts from the start of the run, not from the end of the assessment."""
        out = self.path("out")
        late = helpers.run(*self.words, "-o", out, "--max-time", "0.01s", ranks=2)
        self.assertEqual(late.code, helpers.STOPPED, late)
        self.assertRegex(late.stderr, "the time is up.*; 0 of 2 blocks are assessed")
        with open(os.path.join(out, "snrq.halt"), "w"):
            pass
        halted = helpers.run(*self.words, "-o", out, ranks=2)
        self.assertEqual(halted.code, helpers.STOPPED, halted)
        self.assertIn("snrq.halt exists; delete it before the next run", halted.stderr)
        os.remove(os.path.join(out, "snrq.halt"))
        self.check_finishes(out, 2)

    def test_watchdog(self):
        out = self.path("out")
        process, _ = self.started(out, 0, "--watchdog", "2s")
        self.assertEqual(process.wait(timeout=100), helpers.HUNG)
        self.assertRegex(process.stderr.read().decode(), r"rank 0 on \S+: no progress for 2 s in phase \w+")
        self.check_finishes(out, 1)


if __name__ == "__main__":
    helpers.main()
