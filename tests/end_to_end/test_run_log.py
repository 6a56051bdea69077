"""run.jsonl: the events and timers of a run, one JSON object per line."""
import json
import os
import re

import helpers

PHASES = ["read", "backward", "forward", "gram", "factor", "grid", "search", "tune", "write", "rest"]
STAGES = ["q,k,v", "o", "gate,up", "down"]


class RunLog(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        out = cls.out = os.path.join(helpers.temporary_folder(cls), "out")
        cls.ranks = 2
        options = "--bits 3 --method ksnrq --sequences 4 --length 64".split()
        cls.stderr = helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                     *options, ranks=cls.ranks).stderr
        with open(os.path.join(out, "run.jsonl")) as f:
            cls.events = [json.loads(line) for line in f]

    def of_kind(self, kind):
        return [event for event in self.events if event["event"] == kind]

    def test_every_event_has_a_time(self):
        times = [event["time"] for event in self.events]
        self.assertEqual(times, sorted(times))

    def test_a_stage_event_for_every_stage_of_every_block(self):
        found = [(event["block"], event["stage"]) for event in self.of_kind("stage")]
        self.assertEqual(found, [(block, stage) for block in range(6) for stage in STAGES])

    def test_stage_events_tell_of_their_modules(self):
        names = [m["name"] for event in self.of_kind("stage") for m in event["modules"]]
        self.assertEqual(len(set(names)), 6 * 7)
        self.assertTrue(all(m["objective"] > 0 for event in self.of_kind("stage") for m in event["modules"]))

    def test_timers(self):
        timers, = self.of_kind("timers")
        self.assertEqual(list(timers["phases"]), PHASES)
        for phase in timers["phases"].values():
            self.assertTrue(0 <= phase["min"] <= phase["mean"] <= phase["max"] <= timers["seconds"] * 1.001)
            self.assertIn(phase["slowest_rank"], range(self.ranks))
        accounted = sum(phase["mean"] for phase in timers["phases"].values())
        self.assertLess(abs(accounted / timers["seconds"] - 1), 0.01)
        print("not accounted for: %.2f %% of %.2f s" % (100 * timers["rest_share"], timers["seconds"]))

    def test_summary(self):
        """Kinds of modules and the worst of them, against what the stages said."""
        summary, = self.of_kind("summary")
        modules = [m for event in self.of_kind("stage") for m in event["modules"]]
        self.assertEqual((summary["modules"], summary["starts"]), (len(modules), 1))
        self.assertEqual(len(summary["kinds"]), 7)
        down = [m for m in modules if m["name"].endswith("mlp.down_proj")]
        found = summary["kinds"]["mlp.down_proj"]
        self.assertEqual(found["modules"], len(down))
        self.assertAlmostEqual(found["output_error_mean"], sum(m["output_error"] for m in down) / len(down))
        self.assertAlmostEqual(found["output_error_max"], max(m["output_error"] for m in down))
        with open(os.path.join(self.out, "manifest.jsonl")) as f:
            errors = {m["name"]: m["model_error"] for line in f for m in json.loads(line).get("modules", [])}
        self.assertEqual(summary["worst"], sorted(errors, key=errors.get, reverse=True)[:5])
        for name in summary["worst"]:
            self.assertIn(name, self.stderr)
        self.assertGreater(summary["advice"]["node_megabytes"], 20)

    def test_start_and_end(self):
        start, = self.of_kind("start")
        self.assertEqual((start["ranks"], start["nodes"], start["threads"], start["committed"]), (self.ranks, 1, 1, 0))
        end, = self.of_kind("end")
        self.assertEqual((end["state"], end["exit_code"], end["committed"]), ("complete", 0, 6))

    def test_peak_memory(self):
        timers, = self.of_kind("timers")
        self.assertGreater(timers["peak_memory_bytes"], 10e6)
        if not helpers.SANITIZED:
            self.assertLess(timers["peak_memory_bytes"], 400e6)

    def test_one_line_per_stage_whatever_the_number_of_ranks(self):
        lines = [line for line in self.stderr.splitlines() if re.match(helpers.TIME + r"block \d/6  ", line)]
        self.assertEqual(len(lines), 6 * 4)

    def test_lines_of_the_run_carry_the_time_and_those_of_the_plan_do_not(self):
        lines = self.stderr.splitlines()
        timed = [bool(re.match(helpers.TIME, line)) for line in lines]
        first = timed.index(True)
        self.assertRegex(lines[first], helpers.TIME + r"start of the run on \d{4}-\d\d-\d\d, UTC[-+]\d{4}: 0 of 6 blocks are")
        last = next(i for i in range(first, len(lines)) if not timed[i]) - 1
        self.assertRegex(lines[last], helpers.TIME + "end of the run: complete, 6 of 6 blocks are committed")
        self.assertEqual(sum(timed), last - first + 1)


if __name__ == "__main__":
    helpers.main()
