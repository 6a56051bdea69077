"""snrq plan and snrq bench machine: what they say, and whether runs and plans have the same phases."""
import json
import os

import numpy as np

import helpers
import small_models


class Plan(helpers.Test):
    def plan(self, *more, ranks=1):
        return helpers.succeed("plan", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--sequences", 4, "--length", 64,
                               "--json", *more, ranks=ranks).json()

    def machine(self, **changed):
        """A machine of round numbers: a billion multiply-adds a second, everything else a thousand times as fast."""
        rates = ("forward_dense forward_codes attention gram_tokens gram_pieces factor_cube factor_rows grid search_rows "
                 "search_cells").split()
        machine = {"format": "snrq machine 1", "seconds": dict(dict.fromkeys(rates, 0.0), forward_dense=1e-9, forward_codes=1e-9),
                   "ranks": 1, "nodes": 1, "threads": 1, "cores": 2, "latency": 0.0, "bandwidth": 1e18, "read": 1e18,
                   "write": 1e18}
        machine.update(changed)
        path = self.path("machine.json")
        with open(path, "w") as f:
            json.dump(machine, f)
        return path

    def test_a_run_and_its_plan_have_the_same_phases(self):
        out = helpers.quantize(self.path("out"), "--bits", 3, ranks=2)
        with open(os.path.join(out, "run.jsonl")) as f:
            timers, = (event for event in map(json.loads, f) if event["event"] == "timers")
        phases = self.plan("--plan-ranks", 2, "--tune", 1)["cost"]["phases"]
        self.assertEqual(set(phases), set(timers["phases"]) - {"rest"})
        self.assertEqual(phases.pop("backward")["seconds"], 0.0)  # --sensitivity auto has it
        for name, cost in phases.items():
            self.assertGreater(cost["seconds"], 0.0, name)

    def test_products_of_the_forward_pass_are_counted(self):
        """6 blocks of 128 x (128 + 2 x 64 + 128 + 3 x 384) weights, 4 + held-out windows of 64 tokens, two streams."""
        machine = self.machine()
        plan = self.plan("--machine", machine, "--threads", 1, "--held-out", 0, "--network", "0,1e18")
        weights = 6 * 128 * (128 + 2 * 64 + 128 + 3 * 384)
        self.assertAlmostEqual(plan["cost"]["phases"]["forward"]["seconds"], 2 * 4 * 64 * weights * 1e-9, places=9)
        self.assertEqual(plan["cost"]["phases"]["gram"]["seconds"], 0.0)
        # An assessment: two quantizations, and 5 variants of 6 blocks through those behind them, for 8 windows in place of 2 x 4.
        forward = plan["cost"]["phases"]["forward"]["seconds"]
        search = plan["cost"]["phases"]["search"]["seconds"] / (8 * 4) + 2 * plan["cost"]["phases"]["factor"]["seconds"]
        for options, judged, variants, choices, uniform in (
                ([], 8, 5, 12, 3), (["--no-uniform"], 8, 5, 12, 0), (["--no-uniform", "--judged-windows", 3, "--widths", "3,4,5"], 3, 5, 9, 0),
                (["--alone", "modules", "--group-sizes", "64", "--widths", "3,8"], 8, 10, 4, 1)):
            found = self.plan("--machine", machine, "--threads", 1, "--held-out", 0, "--network", "0,1e18", *options)["cost"]["assess"]
            walk = (forward * (1 + judged / 4) + sum(plan["cost"]["phases"][p]["seconds"] for p in ("gram", "factor"))) * (uniform > 0)
            self.assertAlmostEqual(found["seconds"], (2 + uniform) * plan["seconds"] + choices * search + walk +
                                   forward / 6 * variants * judged / 8 * (6 + 5 + 4 + 3 + 2 + 1), places=9)
            self.assertAlmostEqual(found["rank_bytes"], plan["rank_bytes"] + 64 * 128 * 4 * (
                judged * (8 + (uniform > 0)) + 4 * (1 + (uniform > 0))), places=3)
        halves = self.plan("--machine", machine, "--threads", 1, "--held-out", 0, "--plan-ranks", 2)
        self.assertAlmostEqual(halves["cost"]["phases"]["forward"]["seconds"], 4 * 64 * weights * 1e-9, places=9)

    def test_fits_of_formats_have_their_own_rates(self):
        """Blocks of 128 x (128 + 2 x 64 + 128 + 3 x 384) weights, a third of the last in down_proj."""
        machine, recipe = self.machine(fits={"q4_0": 1e-6, "q3_k": 5e-6}), self.path("recipe.json")
        with open(machine) as f:
            rates = json.load(f)
        rates["seconds"]["grid"] = 1e-7
        with open(machine, "w") as f:
            json.dump(rates, f)
        with open(recipe, "w") as f:
            json.dump({"rules": [{"modules": "*.down_proj", "bits": 3}]}, f)
        down, rest = 6 * 128 * 384, 6 * 128 * (128 + 2 * 64 + 128 + 2 * 384)
        for more, expected in ((["--format", "q4_0", "--recipe", recipe], 1e-6 * rest + 1e-7 * down), (["--bits", 3], 1e-7 * (rest + down)),
                               (["--format", "q5_0"], 1e-7 * (rest + down))):
            plan = self.plan("--machine", machine, "--threads", 1, *more)
            self.assertAlmostEqual(plan["cost"]["phases"]["grid"]["seconds"], expected, places=9)

    def test_trials_have_whole_super_blocks(self):
        """Of a machine that is measured: the fit takes longer than that of integers, whatever the machine."""
        model, ids = small_models.write(self.path("wide"), dict(small_models.LLAMA_WITH_BIASES, num_hidden_layers=1, hidden_size=256,
                                                                intermediate_size=256, head_dim=64)), self.path("windows.npy")
        np.save(ids, np.zeros(192, np.int32))
        grid = [helpers.succeed("plan", model, "--token-file", ids, "--length", 32, "--sequences", 6, "--held-out", 0, "--json",
                                *more).json()["cost"]["phases"]["grid"]["seconds"] for more in (["--format", "q3_k"], ["--bits", 3])]
        self.assertGreater(grid[0], 2 * grid[1])

    def test_tokens_that_top_up_experts_are_counted(self):
        """4 experts of 3 x 32 x 48 weights, to which half of the 192 tokens are sent; at least so many are asked for."""
        model, ids = small_models.write(self.path("mixture"), small_models.MIXTRAL), self.path("windows.npy")
        np.save(ids, np.zeros(192, np.int32))
        words = ["plan", model, "--token-file", ids, "--length", 32, "--sequences", 6, "--held-out", 0, "--group-size", 16,
                 "--machine", self.machine(), "--threads", 1, "--json"]
        few, more = (helpers.succeed(*words, "--expert-tokens", tokens).json()["cost"]["phases"]["forward"]["seconds"]
                     for tokens in (96, 144))
        self.assertAlmostEqual(more - few, 2 * 48 * 3 * 4 * (3 * 32 * 48) * 1e-9, places=9)

    def test_messages_are_counted(self):
        """H and D of a unit are added up as 64-bit integers, both as whole matrices where they are narrow; norms and agreements
        are less than a hundredth. Each of two ranks sends as many bytes as there are."""
        plan = self.plan("--machine", self.machine(), "--plan-ranks", 2, "--alpha", "fixed:0.5", "--compensate", 0)
        expected = 6 * 8 * 2 * (3 * 128 ** 2 + 384 ** 2)
        found = plan["cost"]["phases"]["gram"]["bytes_per_rank"]
        self.assertGreater(found, expected)
        self.assertLess(found, 1.01 * expected)
        alone = self.plan("--machine", self.machine(), "--plan-ranks", 1)
        self.assertEqual(sum(cost["bytes_per_rank"] for cost in alone["cost"]["phases"].values()), 0.0)

    def test_a_slower_network_takes_longer(self):
        machine = self.machine()
        fast, slow = (self.plan("--machine", machine, "--plan-ranks", 2, "--network", network)["seconds"]
                      for network in ("1e-6,1e9", "1e-3,1e6"))
        self.assertGreater(slow, 10 * fast)

    def test_best_layout_is_told(self):
        best = self.plan("--plan-ranks", 4, "--plan-nodes", 2)["cost"]["best"]
        self.assertGreaterEqual(best["ranks_per_node"], 1)
        self.assertGreater(best["seconds"], 0.0)
        text = helpers.succeed("plan", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--sequences", 4, "--length", 64).stderr
        for words in ("MB per rank", "efficiency", "limit", "best "):
            self.assertIn(words, text)

    def test_a_machine_is_measured_once_and_used_again(self):
        path = self.path("measured.json")
        result = helpers.run("bench", "machine", "-o", path, ranks=2, timeout=300)
        self.assertIn(result.code, (0, 65), result.stderr)  # 65: other programs slow one of the ranks down
        self.assertIn("VALID" if result.code == 0 else "the machine is not even", result.stderr)
        with open(path) as f:
            machine = json.load(f)
        self.assertEqual((machine["ranks"], machine["nodes"]), (2, 1))
        for name, seconds in machine["seconds"].items():
            if name == "search_cells":  # what is left of another rate, may be nothing
                self.assertGreaterEqual(seconds, 0, name)
            else:
                self.assertGreater(seconds, 0, name)
        first, second = (self.plan("--machine", path, "--plan-ranks", 2)["cost"] for _ in range(2))
        self.assertEqual(first, second)

    def test_bad_input(self):
        cases = ((["--network", "fast"], 64, "expected seconds and bytes per second"),
                 (["--network", "1e-6"], 64, "expected seconds and bytes per second"),
                 (["--machine", self.path("absent.json")], 66, "absent.json"),
                 (["--machine", self.machine(format="another")], 65, "is not a file of `snrq bench machine"),)
        for words, code, message in cases:
            result = helpers.run("plan", helpers.MODEL, "--calibration", helpers.CALIBRATION, *words)
            self.assertEqual(result.code, code, result)
            self.assertIn(message, result.stderr)
        for changed, message in (({"bandwidth": 0.0}, '"bandwidth"'), ({"seconds": {}}, '"forward_dense"'), ({"ranks": "2"}, '"ranks"')):
            result = helpers.run("plan", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--machine", self.machine(**changed))
            self.assertEqual(result.code, 65, result)
            self.assertIn(message, result.stderr)
        result = helpers.run("bench", "engine")
        self.assertEqual(result.code, 64)
        self.assertIn("expected machine, found 'engine'", result.stderr)
        result = helpers.run("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", self.path("out"), "--network", "0,1")
        self.assertEqual(result.code, 64)
        self.assertIn("only a plan needs a network", result.stderr)


if __name__ == "__main__":
    helpers.main()
