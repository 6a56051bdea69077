"""Bytes and calls of a run, counted by a library between the program and MPI, against those of its plan."""
import json
import os
import shutil
import sys

import helpers
import small_models

sys.path.insert(0, os.path.join(os.path.dirname(helpers.HERE), "network"))
import messages  # noqa: E402

SHORT = ["--sequences", 8, "--length", 64, "--held-out", 0]


@helpers.unittest.skipIf(helpers.SANITIZED, "a sanitizer wants to be the first library itself")
class Traffic(helpers.Test):
    model = helpers.MODEL

    def counted(self, ranks, *options):
        name = "-".join(map(str, (ranks, *options))).replace(":", "-").replace("/", "")
        path = self.path("counts" + name)
        os.environ["SNRQ_COUNT_FILE"] = path
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = ":".join(filter(None, (os.environ["SNRQ_COUNT_MESSAGES"], before)))
        try:
            helpers.quantize(self.path("out" + name), *SHORT, *options, model=self.model, ranks=ranks)
        finally:
            del os.environ["SNRQ_COUNT_FILE"], os.environ["LD_PRELOAD"]
            if before:
                os.environ["LD_PRELOAD"] = before
        found = messages.read(path)
        self.assertEqual(len(found), ranks)
        return found

    def planned(self, ranks, *options):
        return helpers.succeed("plan", self.model, "--calibration", helpers.CALIBRATION, *SHORT, *options, "--plan-ranks", ranks,
                               "--plan-nodes", 1, "--network", "1e-6,1e9", "--json").json()["cost"]["phases"]

    def compare(self, ranks, *options):
        counted, planned = self.counted(ranks, *options), self.planned(ranks, *options)
        total = 0
        for phase in ("gram", "factor", "search"):
            found = sum(rank.payload(phase) for rank in counted) / ranks
            total += found
            self.assertLess(abs(planned[phase]["bytes_per_rank"] / found - 1.0), 0.05, (ranks, options, phase))
        everything = sum(rank.payload(phase) for rank in counted for phase in messages.PHASES[1:]) / ranks
        self.assertLess(abs(sum(cost["bytes_per_rank"] for cost in planned.values()) / everything - 1.0), 0.05)
        self.assertLess(total, everything)

    def test_bytes_are_those_of_the_plan(self):
        for ranks in (2, 4):
            self.compare(ranks, "--bits", 3, "--group-size", 64)

    def test_other_methods(self):
        for options in (("--method", "gptq"), ("--method", "gptaq", "--group-size", 32), ("--method", "rtn"),
                        ("--alpha", "corr", "--regrid", 0), ("--refine", 0)):
            self.compare(2, *options)

    def test_teams_of_experts(self):
        """Sums go to one team, and what a team works with stays within it: 6 experts on 2, 4 and 6 ranks."""
        self.model = self.path("experts")
        with open(os.path.join(helpers.MODEL, "config.json")) as f:
            vocabulary = json.load(f)["vocab_size"]
        small_models.write(self.model, dict(small_models.QWEN3_MOE, hidden_size=320, moe_intermediate_size=256,
                                            vocab_size=vocabulary, num_hidden_layers=2, mlp_only_layers=[]))
        for name in os.listdir(helpers.MODEL):
            if name.startswith("tokenizer"):
                shutil.copy(os.path.join(helpers.MODEL, name), self.model)
        for ranks in (2, 4, 6):
            self.compare(ranks, "--bits", 3, "--group-size", 64)

    def test_calls_do_not_grow_with_ranks(self):
        """What a rank asks for depends on the model alone: no rank has work for each of the others."""
        options = ("--bits", 3, "--group-size", 64)
        two, four = (self.counted(ranks, *options)[0].by_function() for ranks in (2, 4))
        for function in ("Allreduce", "Iallreduce", "Bcast", "Ibcast", "Allgather", "Barrier", "Send", "Isend", "Recv"):
            few, many = two.get(function, (0, 0)), four.get(function, (0, 0))
            self.assertLessEqual(many[0], few[0] * 1.05 + 4, function)
            self.assertLessEqual(many[1], few[1] * 1.05 + 4096, function)

    def test_messages_are_those_of_the_plan(self):
        """On two ranks, a message for each sum or broadcast, and two for sums of more than a few bytes."""
        counted, planned = self.counted(2, "--bits", 3, "--group-size", 64)[0], self.planned(2, "--bits", 3, "--group-size", 64)
        for phase in ("gram", "factor", "search"):
            found = sum(counted.calls[phase, name] for name in messages.ADDED + messages.SENT)
            self.assertLess(abs(planned[phase]["messages"] / found - 1.0), 0.25, (phase, found))


if __name__ == "__main__":
    helpers.main()
