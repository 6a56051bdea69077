"""--keep-activations: a run that resumes reads activations instead of replaying blocks, and ends with the same bytes."""
import json
import os
import re
import shutil
import sys

import h5py
import numpy as np

import helpers

sys.path.insert(0, helpers.DATA)
import forward_reference

OPTIONS = "--bits 3 --group-size 64 --beam 8 --grid minmax --refine 0 --sequences 5 --length 64"
WINDOWS, LENGTH, HIDDEN, BLOCKS = 5, 64, 128, 6
LOGS = "run.jsonl", "status.json"


def arguments(out, *more):
    return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 *OPTIONS.split()], *more)


def kept(out):
    """The blocks after which activations are there."""
    names = os.listdir(out) if os.path.isdir(out) else []
    return [int(name[12:17]) for name in sorted(names) if re.fullmatch(r"activations-\d{5}\.h5", name)]


def committed(out):
    return sum("block" in record for record in helpers.manifest(out))


def content(out):
    """Checksums of all files but the logs."""
    return {name: helpers.sha256(os.path.join(out, name)) for name in sorted(os.listdir(out)) if name not in LOGS}


def events(out, what):
    with open(os.path.join(out, "run.jsonl")) as f:
        found = [json.loads(line) for line in f]
    return [e["block"] for e in found if e["event"] == "activations" and e["what"] == what]


class KeepActivations(helpers.Test):
    @classmethod
    def setUpClass(cls):
        """An undisturbed run without the option, and one with it that was killed after its third block."""
        super().setUpClass()
        cls.common = helpers.temporary_folder(cls)
        undisturbed = os.path.join(cls.common, "undisturbed")
        helpers.succeed(*arguments(undisturbed))
        cls.expected = content(undisturbed)
        cls.undisturbed = undisturbed
        cls.unfinished = os.path.join(cls.common, "unfinished")
        helpers.kill_when(lambda: 2 in kept(cls.unfinished), *arguments(cls.unfinished, "--keep-activations"), ranks=2)
        for block in kept(cls.unfinished)[:-1]:  # if it was killed before it removed these
            os.remove(os.path.join(cls.unfinished, "activations-%05d.h5" % block))

    def copy_of_unfinished(self):
        return shutil.copytree(self.unfinished, self.path("out"))

    def check_resumes(self, out, ranks, *more, reads=True):
        """Goes on after the newest activations (or the first block), to the same bytes; nothing kept is left."""
        done, newest, before = committed(out), max(kept(out), default=-1), len(events(out, "read"))
        self.assertLess(done, BLOCKS)
        result = helpers.succeed(*arguments(out, *more), ranks=ranks)
        self.assertEqual(events(out, "read")[before:], [newest] if reads else [], result)
        self.assertEqual(result.stderr.count("activations read"), int(reads), result)
        self.assertEqual(result.stderr.count("earlier, replayed"), done - (newest + 1 if reads else 0), result)
        self.assertEqual(content(out), self.expected)
        return result

    def test_undisturbed_run_has_the_same_bytes(self):
        out = self.path("out")
        helpers.succeed(*arguments(out, "--keep-activations"), ranks=2)
        self.assertEqual(content(out), self.expected)
        self.assertEqual(events(out, "kept"), list(range(BLOCKS - 1)))

    def test_unfinished_run_keeps_its_last_activations(self):
        self.assertIn(committed(self.unfinished) - kept(self.unfinished)[0], (1, 2))
        files = [f["file"] for f in helpers.succeed("verify", self.unfinished, "--json").json()["files"]]
        self.assertIn("activations-%05d.h5" % kept(self.unfinished)[0], files)

    def test_first_tokens_stand_alone(self):
        """Each row of the window behind the sixteen is what the reference makes of one token alone."""
        out = self.path("out")
        helpers.kill_when(lambda: kept(out), *arguments(out, "--keep-activations", "--sequences", "16", "--first-tokens", "1"), ranks=2)
        block = max(kept(out))
        with h5py.File(os.path.join(out, "activations-%05d.h5" % block), "r") as file:
            full = file["full"][:]
        self.assertEqual(full.shape, (16 + 2, LENGTH, HIDDEN))  # sixteen, first tokens, held out
        model = forward_reference.Model(helpers.MODEL)
        alone = model.w["model.embed_tokens.weight"]
        for layer in range(block + 1):
            alone = np.concatenate([model.block(alone[t:t + 1], layer) for t in range(len(alone))])
        nearest = np.array([[np.abs(alone - row).max(axis=1).min() for row in window] for window in full])
        self.assertLess(nearest[16].max(), 1e-3)
        for window in (*range(16), 17):
            self.assertLess(nearest[window, 0], 1e-3)
            self.assertGreater(np.median(nearest[window, 1:]), 1e-2)

    def test_resumed_on_three_ranks(self):
        self.check_resumes(self.copy_of_unfinished(), 3, "--keep-activations")

    def test_resumed_on_one_rank_without_the_option(self):
        self.check_resumes(self.copy_of_unfinished(), 1)

    def test_blocks_after_the_activations_are_replayed(self):
        """The option is given, then not, then again: what was kept stays good."""
        out = self.copy_of_unfinished()
        newest, done = kept(out), committed(out)
        helpers.kill_when(lambda: committed(out) > done, *arguments(out), ranks=1)
        self.assertEqual(kept(out), newest)
        self.check_resumes(out, 4, "--keep-activations")

    def test_newest_activations_are_read(self):
        """Killed between the rename of a file and the removal of the one before."""
        out = self.copy_of_unfinished()
        shutil.copy(os.path.join(out, "activations-%05d.h5" % kept(out)[0]),
                    os.path.join(out, "activations-00000.h5"))
        self.check_resumes(out, 2)

    def test_damaged_activations_are_not_used(self):
        out = self.copy_of_unfinished()
        name = "activations-%05d.h5" % kept(out)[0]
        helpers.flip_bit(os.path.join(out, name), -os.path.getsize(os.path.join(out, name)) // 2, 3)
        result = helpers.run("verify", out)
        self.assertEqual(result.code, helpers.BAD_DATA, result)
        self.assertIn(name, result.stderr)
        result = self.check_resumes(out, 2, "--keep-activations", reads=False)
        self.assertRegex(result.stderr, "note: activations cannot be read: .*%s.*replayed" % name)
        self.assertEqual(result.stderr.count("cannot be read"), 1, result)

    def test_cut_activations_are_not_used(self):
        out = self.copy_of_unfinished()
        with open(os.path.join(out, "activations-%05d.h5" % kept(out)[0]), "r+b") as f:
            f.truncate(1000)
        self.check_resumes(out, 3, reads=False)

    def test_missing_activations_are_not_missed(self):
        out = self.copy_of_unfinished()
        os.remove(os.path.join(out, "activations-%05d.h5" % kept(out)[0]))
        result = self.check_resumes(out, 2, reads=False)
        self.assertNotIn("cannot be read", result.stderr)

    def test_activations_after_another_block_are_not_used(self):
        """A file that is whole, but not what its name says."""
        out = self.copy_of_unfinished()
        newest = kept(out)[0]
        os.rename(os.path.join(out, "activations-%05d.h5" % newest), os.path.join(out, "activations-00000.h5"))
        result = self.check_resumes(out, 2, reads=False)
        self.assertIn("belongs to block %d" % newest, result.stderr)

    def test_nothing_is_replayed_when_only_the_end_is_missing(self):
        out = shutil.copytree(self.undisturbed, self.path("out"))
        helpers.drop_records(out, 1)
        result = helpers.succeed(*arguments(out, "--keep-activations"), ranks=2)
        self.assertNotIn("replayed", result.stderr)
        self.assertEqual(content(out), self.expected)

    def test_full_disk_costs_the_activations_only(self):
        """There is room for the activations after a block, but not for those after the next one beside them."""
        with helpers.file_system(self.path("small"), "size=3000k") as small:
            out, options = os.path.join(small, "out"), ("--sequences", "16")
            result = helpers.succeed(*arguments(out, "--keep-activations", *options), ranks=2)
            self.assertEqual(events(out, "kept"), [0])
            self.assertEqual(events(out, "not kept"), [1])
            self.assertEqual(result.stderr.count("activations cannot be kept"), 1, result)
            self.assertEqual(kept(out), [])
            helpers.succeed(*arguments(self.path("large"), *options))
            self.assertEqual(content(out), content(self.path("large")))

    def test_plan_tells_the_size(self):
        for more, expected in (((), 0), (("--keep-activations",), WINDOWS * (2 * LENGTH * HIDDEN * 4 + 16))):
            result = helpers.succeed(*arguments(self.path("out"), "--dry-run", "--json", "--held-out", "0", *more))
            self.assertEqual(result.json()["activation_bytes"], expected)
            self.assertEqual("activations  0.3 MB" in result.stderr, expected > 0, result)


if __name__ == "__main__":
    helpers.main()
