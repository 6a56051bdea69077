"""--layer-groups: bytes depend on the number of groups alone, whatever the ranks, kills and failures."""
import json
import os
import re

import helpers

OPTIONS = "--bits 3 --group-size 64 --beam 1 --refine 0 --regrid 0 --sequences 5 --length 64"
BLOCKS = 6
LOGS = "run.jsonl", "status.json"


def arguments(out, groups, *more):
    return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 *OPTIONS.split(), "--layer-groups", groups], *more)


def content(out):
    return {name: helpers.sha256(os.path.join(out, name)) for name in sorted(os.listdir(out)) if name not in LOGS}


def committed(out):
    names = os.listdir(out) if os.path.isdir(out) else []
    recorded = {record["block"] for record in helpers.manifest(out) if "block" in record} if "manifest.jsonl" in names else set()
    return recorded | {int(name[6:11]) for name in names if re.fullmatch(r"block-\d{5}\.h5\.record", name)}


def events(out):
    with open(os.path.join(out, "run.jsonl")) as f:
        return [json.loads(line) for line in f]


class LayerGroups(helpers.Test):
    def quantize(self, name, groups, ranks, *more):
        out = self.path(name)
        helpers.succeed(*arguments(out, groups, *more), ranks=ranks)
        return out

    def test_bytes_depend_on_the_number_of_groups_alone(self):
        seen = []
        for groups in (1, 2, 3, 6):
            runs = [content(self.quantize("%d-%d" % (groups, ranks), groups, ranks)) for ranks in {groups, 4, 7} if ranks >= groups]
            for run in runs[1:]:
                self.assertEqual(run, runs[0], groups)
            seen.append(runs[0]["block-%05d.h5" % (BLOCKS - 1)])
        self.assertEqual(len(set(seen)), 4)  # the last block knows how far back its group began

    def test_first_group_is_as_without_groups(self):
        whole, halves = (content(self.quantize(str(groups), groups, 2)) for groups in (1, 2))
        for block in range(BLOCKS):
            name = "block-%05d.h5" % block
            self.assertEqual(whole[name] == halves[name], block < 3, name)

    def test_a_group_begins_as_a_model_does(self):
        """At the first block of a group both streams are the same: there is no mismatch."""
        out = self.quantize("out", 3, 3)
        steps = {(e["block"], e["stage"]): e for e in events(out) if e["event"] == "stage"}
        self.assertEqual(len(steps), BLOCKS * 4)
        for block in range(BLOCKS):
            mismatch = steps[block, "q,k,v"]["units"][0]["mismatch_norm"]
            self.assertEqual(mismatch == 0.0, block in (0, 2, 4), block)

    def check_goes_on(self, *more):
        expected = content(self.quantize("undisturbed", 3, 3))
        out = self.path("killed")
        for ranks, enough in ((4, 1), (3, 3), (5, 4)):
            helpers.kill_when(lambda: len(committed(out)) >= enough, *arguments(out, 3, *more), ranks=ranks)
        helpers.succeed(*arguments(out, 3, *more), ranks=6)
        self.assertEqual(content(out), expected)

    def test_killed_groups_go_on_where_they_were(self):
        self.check_goes_on()

    def test_killed_groups_go_on_from_kept_activations(self):
        self.check_goes_on("--keep-activations")

    def test_a_failure_of_one_group_ends_all(self):
        """A weight of the last group's last block is NaN: its message and exit code, and what others committed stays."""
        model = helpers.copy_model(self.path("model"))
        file = os.path.join(model, "model.safetensors")
        tensors = helpers.read_safetensors(file)
        name = "model.layers.%d.mlp.up_proj.weight" % (BLOCKS - 1)
        kind, shape, data = tensors[name]
        os.chmod(file, 0o644)
        helpers.write_safetensors(file, {**tensors, name: (kind, shape, b"\xff" * 4 + data[4:])})
        out = self.path("out")
        words = arguments(out, 3)
        words[words.index(helpers.MODEL)] = model
        result = helpers.run(*words, ranks=4)
        self.assertEqual(result.code, 65, result)
        self.assertIn(name, result.stderr)
        self.assertIn("not finite", result.stderr)
        self.assertNotIn("another group of ranks", result.stderr)
        self.assertIn(4, committed(out))
        self.assertEqual([e["state"] for e in events(out) if e["event"] == "end"], ["failed"])

    def test_a_stop_of_one_group_stops_all(self):
        out = self.path("out")
        result = helpers.run(*arguments(out, 3, "--max-time", "0.01s"), ranks=3)
        self.assertEqual(result.code, 75, result)
        self.assertIn("the time is up", result.stderr)
        helpers.succeed(*arguments(out, 3), ranks=3)

    def test_status_knows_groups(self):
        out = self.path("out")
        helpers.kill_when(lambda: len(committed(out)) >= 2, *arguments(out, 3), ranks=3)
        found = helpers.run("status", out, "--json").json()
        text = helpers.run("status", out).stdout
        self.assertEqual(found["committed"], len(committed(out)))
        self.assertIn("group 2     blocks 3 to 4: ", text)

    def test_what_cannot_be_divided_is_refused(self):
        for groups, ranks, expected in ((7, 7, "the model has 6 blocks"), (3, 2, "a group needs a rank, there are 2")):
            result = helpers.run(*arguments(self.path("out"), groups), ranks=ranks)
            self.assertEqual(result.code, 64, result)
            self.assertIn(expected, result.stderr)
        result = helpers.run(*arguments(self.path("out"), 2, "--factor-grid", "2x2"), ranks=4)
        self.assertEqual(result.code, 64, result)
        self.assertIn("needs 4 ranks, there are 2 in a layer group", result.stderr)
        for value in ("0", "-1", "many", "1.5"):
            result = helpers.run(*arguments(self.path("out"), value))
            self.assertEqual(result.code, 64, result)
            self.assertIn("--layer-groups", result.stderr)

    def test_auto_is_stored_and_kept(self):
        out = self.quantize("out", "auto", 4, "--sequences", 1, "--held-out", 0)
        with open(os.path.join(out, "snrq.json")) as f:
            groups = json.load(f)["options"]["layer-groups"]
        self.assertGreater(groups, 1)  # one sequence: more ranks have nothing to take through a block
        same = self.quantize("same", groups, 4, "--sequences", 1, "--held-out", 0)
        self.assertEqual(content(out), content(same))
        result = helpers.succeed(*arguments(out, "auto", "--sequences", 1, "--held-out", 0), ranks=groups + 1)
        self.assertIn("complete already", result.stderr)


if __name__ == "__main__":
    helpers.main()
