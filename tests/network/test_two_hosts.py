"""A run on two hosts, of which the network counts the bytes: the plan's are within 5 %, and the result is the same.

The hosts are network namespaces of this machine: opt-in (`ctest -C network -L network`), since it needs root.
"""
import os
import subprocess
import sys
import unittest

import helpers

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import messages  # noqa: E402
import two_hosts  # noqa: E402

REASON = two_hosts.why_not()
RATE, DELAY = 1e9, 1e-4
WORDS = ["--sequences", 8, "--length", 128, "--bits", 3, "--group-size", 64]


@unittest.skipIf(REASON, REASON)
class Network(helpers.Test):
    def setUp(self):
        super().setUp()
        hosts = two_hosts.TwoHosts(os.environ["SNRQ_WIRE"], self.path("."), RATE, DELAY)
        self.hosts = hosts.__enter__()
        self.addCleanup(hosts.__exit__)

    def quantize(self, model, text, hosts=2):
        """A run with a rank on each host: what its ranks counted, and what the hosts sent in all."""
        out, counts = self.path("out-%d" % hosts), self.path("counts")
        environment = helpers.environment(1)
        environment.update(SNRQ_COUNT_FILE=counts, SNRQ_COUNT_DEVICE=two_hosts.DEVICE,
                           LD_PRELOAD=os.environ["SNRQ_COUNT_MESSAGES"])
        words = [os.environ["SNRQ"], "quantize", model, "--calibration", text, "-o", out, *WORDS]
        exported = ("SNRQ_COUNT_FILE", "SNRQ_COUNT_DEVICE", "LD_PRELOAD", "OMP_NUM_THREADS")
        before = self.hosts.sent()
        result = subprocess.run(self.hosts.command(words, hosts, exported), env=environment, stdin=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, timeout=600)
        self.assertEqual(result.returncode, 0, result.stderr.decode(errors="replace"))
        sent = [after - first for after, first in zip(self.hosts.sent(), before)]
        return out, messages.read(counts), sent

    def plan(self, model, text):
        network = "%g,%g" % (DELAY, RATE / 8)
        return helpers.succeed("plan", model, "--calibration", text, *WORDS, "--plan-ranks", 2, "--plan-nodes", 2, "--network",
                               network, "--json").json()["cost"]["phases"]

    def check(self, model, text):
        out, ranks, sent = self.quantize(model, text)
        self.assertEqual(len(ranks), 2)
        planned = {phase: 2 * cost["bytes_per_rank"] for phase, cost in self.plan(model, text).items()}
        counted = {phase: sum(rank.device[phase] for rank in ranks) for phase in messages.PHASES}
        for phase, bytes_ in counted.items():
            print("%-8s planned %10.3f MB, counted %10.3f MB" % (phase, planned.get(phase, 0.0) / 1e6, bytes_ / 1e6))
        for phase in ("gram", "factor", "search"):
            self.assertLess(abs(planned[phase] / counted[phase] - 1.0), 0.05, phase)
        # mpirun talks, too, before and after the run.
        self.assertLess(abs(sum(planned.values()) / sum(sent) - 1.0), 0.05)
        return out

    def test_bytes_of_the_bundled_model(self):
        out = self.check(helpers.MODEL, helpers.CALIBRATION)
        alone = self.path("alone")
        helpers.quantize(alone, *WORDS)
        self.assertEqual(helpers.weights(out), helpers.weights(alone))

    def test_bytes_of_stories3m(self):
        model, text = helpers.shared("data", "models", "stories3M"), helpers.shared("data", "text", "tinystories-train.txt")
        self.check(model, text)


if __name__ == "__main__":
    helpers.main()
