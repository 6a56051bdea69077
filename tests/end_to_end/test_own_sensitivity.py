"""quantize --sensitivity auto: the run makes the file itself, what comes of it is the same, and it survives stops and kills."""
import json
import os
import shutil
import signal

import numpy as np

import helpers

TEXT = ["--calibration", helpers.CALIBRATION, "--length", 64, "--seed", 3]


def arguments(out, *more):
    return helpers.with_options(["quantize", helpers.MODEL, *TEXT, "-o", out, "--bits", 2, "--group-size", 64, "--sequences", 16,
                                 "--refine", 1, "--regrid", 1, "--beam", 2, "--sensitivity", "auto"], *more)


def events(out, kind):
    with open(os.path.join(out, "run.jsonl")) as f:
        return [event for event in map(json.loads, f) if event["event"] == kind]


class OwnSensitivity(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        cls.file, cls.out = os.path.join(folder, "auto"), os.path.join(folder, "out")
        helpers.succeed("sensitivity", helpers.MODEL, *TEXT, "--sequences", 64, "-o", cls.file)  # four times the run's
        helpers.succeed(*arguments(cls.out))
        cls.expected = helpers.weights(cls.out)

    def in_pass(self, out):
        return lambda: os.path.exists(os.path.join(out, "sensitivity.h5.tmp"))

    def test_it_is_the_file_of_the_command(self):
        self.assertEqual(self.expected["sensitivity.h5"], helpers.sha256(self.file))
        self.assertEqual([r["file"] for r in helpers.manifest(self.out) if r.get("file") == "sensitivity.h5"], ["sensitivity.h5"])
        self.assertEqual(len(events(self.out, "sensitivity")), 1)
        # A file of that name is a path: at two bits, windows of first tokens are none of the pass.
        here = os.getcwd()
        os.chdir(os.path.dirname(self.file))
        try:
            helpers.succeed(*arguments(self.path("given"), "--sensitivity", "./auto"))
        finally:
            os.chdir(here)
        given = helpers.weights(self.path("given"))
        self.assertEqual(given, {name: self.expected[name] for name in given})

    def test_stopped_and_killed_in_the_pass_and_after_it(self):
        out = self.path("out")
        process = helpers.start(*arguments(out), ranks=2)
        while not self.in_pass(out)():
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=60), helpers.STOPPED)
        process.stderr.close()
        with open(os.path.join(out, "status.json")) as f:
            self.assertEqual(json.load(f)["state"], "stopped")
        self.assertNotIn("sensitivity.h5", helpers.weights(out))
        helpers.kill_when(self.in_pass(out), *arguments(out), ranks=2)
        self.assertNotIn("sensitivity.h5", helpers.weights(out))
        helpers.kill_when(lambda: os.path.exists(os.path.join(out, "block-00000.h5")), *arguments(out), ranks=3)
        self.assertEqual(helpers.weights(out)["sensitivity.h5"], self.expected["sensitivity.h5"])
        helpers.succeed(*arguments(out), ranks=1)
        self.assertEqual(helpers.weights(out), self.expected)
        self.assertEqual(len(events(out, "sensitivity")), 1)

    def test_a_part_of_many_windows_is_enough(self):
        """The plan alone: a pass through 65536 tokens, however many windows there are."""
        ids = helpers.write_ids(self.path("ids.i32"), np.zeros(3 * 65536, np.int32))
        words = ["plan", helpers.MODEL, "--token-file", ids, "--length", 128, "--json", "--sensitivity", "auto", "--held-out", 0]
        costs = [helpers.succeed(*words, "--sequences", n).json()["cost"]["sensitivity"]["rank_bytes"] for n in (256, 512, 1536)]
        self.assertLess(costs[0], costs[1])
        self.assertEqual(costs[1], costs[2])

    def test_with_layer_groups_all_ranks_make_it(self):
        helpers.succeed(*arguments(self.path("out"), "--layer-groups", 2), ranks=3)
        self.assertEqual(helpers.weights(self.path("out"))["sensitivity.h5"], self.expected["sensitivity.h5"])

    def test_a_resume_needs_the_same_word(self):
        out = shutil.copytree(self.out, self.path("out"))
        helpers.drop_records(out, 2)
        result = helpers.run(*arguments(out, "--sensitivity", self.file))
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("sensitivity", result.stderr)

    def test_the_plan_has_it(self):
        auto = helpers.succeed("plan", *arguments(self.path("new"))[1:], "--json", "--pass-memory", "1MB").json()
        given = helpers.succeed("plan", *arguments(self.path("new"), "--sensitivity", self.file)[1:], "--json").json()
        self.assertEqual(given["cost"]["phases"]["backward"]["seconds"], 0)
        self.assertGreater(auto["cost"]["phases"]["backward"]["seconds"], 0)
        self.assertAlmostEqual(auto["seconds"], sum(p["seconds"] for p in auto["cost"]["phases"].values()), delta=1e-6)
        extra = auto["output_bytes"] - given["output_bytes"]
        self.assertLess(abs(os.path.getsize(self.file) - extra), 0.1 * extra)
        # More of the inputs of blocks at a time is more memory.
        more = helpers.succeed("plan", *arguments(self.path("new"))[1:], "--json", "--pass-memory", "20GB").json()
        self.assertGreater(more["rank_bytes"], auto["rank_bytes"])

    def test_predicted_loss_is_what_evaluate_finds(self):
        """On the calibration windows, with errors that are small: to a fifth, though errors of modules are taken as unrelated."""
        out, windows = self.path("out"), ["--sequences", 16, "--length", 64]
        result = helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--windows", "consecutive",
                                 *windows, "--held-out", 0, "--bits", 5, "--group-size", 64, "--method", "ldlq", "--refine", 0,
                                 "--regrid", 0, "--shrink", 0, "--sensitivity", "auto", "-o", out, ranks=2)
        found = helpers.succeed("evaluate", out, "--reference", helpers.MODEL, "--text", helpers.CALIBRATION, *windows,
                                "--json").json()
        modules = helpers.succeed("inspect", out, "--json").json()["modules"]
        predicted = sum(module["predicted_loss"] for module in modules)
        self.assertLess(abs(predicted - found["kl"]), 0.2 * found["kl"])
        self.assertAlmostEqual(events(out, "summary")[-1]["predicted_loss"], predicted, delta=1e-9 * predicted)
        self.assertIn("predicted", result.stderr)

    def test_what_is_refused(self):
        result = helpers.run(*arguments(self.path("out"), "--sensitivity", self.file), "--pass-memory", "1GB")
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("--sensitivity auto", result.stderr)


if __name__ == "__main__":
    helpers.main()
