"""--redo makes a damaged block and those after it again: the same bytes, whoever does it and however often it is killed."""
import os
import shutil

import helpers

OPTIONS = "--bits 3 --group-size 64 --method ksnrq --beam 4 --alpha chained --regrid 1 --sequences 4 --length 64".split()
BLOCKS = 6


def arguments(out, *more):
    return ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out, *OPTIONS, *more]


def block(out, number):
    return os.path.join(out, "block-%05d.h5" % number)


def committed(out):
    return sorted(record["block"] for record in helpers.manifest(out) if "block" in record)


class Redo(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.undamaged = os.path.join(helpers.temporary_folder(cls), "undamaged")
        helpers.succeed(*arguments(cls.undamaged), ranks=2)
        cls.expected = helpers.weights(cls.undamaged)

    def damaged(self, *numbers, name="out"):
        out = shutil.copytree(self.undamaged, self.path(name))
        for number in numbers:
            helpers.flip_bit(block(out, number), 5000)
        return out

    def check_whole(self, out):
        self.assertEqual(helpers.weights(out), self.expected)
        self.assertIn("complete", helpers.succeed("verify", out).stdout)
        self.assertEqual(helpers.succeed("status", out, "--json").json()["state"], "complete")
        self.assertNotIn("snrq.redo", os.listdir(out))

    def check_named(self, redo, *words, ranks=0):
        """What fails says what mends it."""
        result = helpers.run(*words, ranks=ranks)
        self.assertEqual(result.code, helpers.BAD_DATA, result)
        self.assertIn("with --redo %d makes" % redo, result.stderr)

    def test_a_changed_byte(self):
        out = self.damaged(3)
        self.check_named(3, "verify", out)
        self.check_named(3, *arguments(out), ranks=2)
        self.check_named(3, "evaluate", out, "--text", helpers.HELDOUT, "--sequences", 1)
        self.assertEqual(committed(out), list(range(BLOCKS)))
        result = helpers.succeed(*arguments(out, "--redo", 3), ranks=3)
        self.assertEqual(result.stderr.count("committed earlier, replayed"), 3)
        self.check_whole(out)
        with open(os.path.join(out, "manifest.jsonl"), "rb") as f, \
                open(os.path.join(self.undamaged, "manifest.jsonl"), "rb") as g:
            self.assertEqual(f.read(), g.read())

    def test_several_damaged_blocks(self):
        """The first of them is named, whatever rank finds it, and one before the blocks that are made is not passed over."""
        out = self.damaged(1, 4)
        for ranks in 1, 2, 3:
            self.check_named(1, *arguments(out), ranks=ranks)
        self.check_named(1, "verify", out)
        self.check_named(1, *arguments(out, "--redo", 4), ranks=2)
        helpers.succeed(*arguments(out, "--redo", 1), ranks=1)
        self.check_whole(out)

    def test_files_of_no_block(self):
        out = self.damaged()
        helpers.flip_bit(os.path.join(out, "rest.h5"), -9)
        os.remove(os.path.join(out, "tokenizer.json"))
        self.check_named(BLOCKS, "verify", out)
        self.check_named(BLOCKS, *arguments(out), ranks=2)
        result = helpers.succeed(*arguments(out, "--redo", BLOCKS), ranks=2)
        self.assertNotIn("objective", result.stderr)
        self.check_whole(out)

    def test_with_kept_activations(self):
        """They are read as far as they belong to blocks that stay."""
        out = self.path("out")
        helpers.kill_when(lambda: len(committed(out)) >= 4, *arguments(out, "--keep-activations"), ranks=2)
        last = committed(out)[-1]
        helpers.flip_bit(block(out, last), 5000)
        result = helpers.succeed(*arguments(out, "--redo", last, "--keep-activations"), ranks=1)
        self.assertEqual(result.stderr.count("committed earlier, activations read") + result.stderr.count("replayed"),
                         1 if "activations read" in result.stderr else last)
        self.check_whole(out)

    def test_killed_in_between(self):
        """The same command goes on; so does the one without --redo. Both on another number of ranks."""
        for name, more in ("same", ("--redo", 1)), ("plain", ()):
            with self.subTest(name):
                out = self.damaged(1, name=name)
                helpers.kill_when(lambda: committed(out)[-1:] == [2], *arguments(out, "--redo", 1), ranks=2)
                done = committed(out)
                self.assertLess(len(done), BLOCKS)
                state = helpers.run("status", out, "--json").json()
                self.assertEqual((state["state"], state["committed"]), ("killed", len(done)))
                result = helpers.succeed(*arguments(out, *more), ranks=1)
                self.assertEqual(result.stderr.count("committed earlier, replayed"), len(done))
                self.assertEqual("was begun before: it goes on" in result.stderr, bool(more))
                self.check_whole(out)

    def test_damaged_again_while_it_goes_on(self):
        out = self.damaged(1)
        helpers.kill_when(lambda: committed(out)[-1:] == [2], *arguments(out, "--redo", 1), ranks=2)
        helpers.flip_bit(block(out, 1), 5000)
        self.check_named(1, *arguments(out), ranks=1)
        helpers.succeed(*arguments(out, "--redo", 1), ranks=1)
        self.check_whole(out)

    def test_a_complete_run_again(self):
        """A second time means again, not that it goes on."""
        out = self.damaged()
        for _ in range(2):
            self.assertIn("objective", helpers.succeed(*arguments(out, "--redo", 5), ranks=2).stderr)
            self.check_whole(out)

    def check_refused(self, result, *words):
        self.assertEqual(result.code, helpers.USAGE, result)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_where_it_makes_no_sense(self):
        out = self.damaged()
        for dry in (), ("--dry-run",):
            self.check_refused(helpers.run(*arguments(out, "--redo", 7, *dry)), "a block from 0 to 5")
            nothing = self.path("nothing")
            self.check_refused(helpers.run(*arguments(nothing, "--redo", 0, *dry)), "holds no run")
            self.assertFalse(os.path.exists(nothing))
            self.check_refused(helpers.run(*helpers.with_options(arguments(out, "--redo", 2, *dry), "--bits", 4)),
                               "options.bits: the finished run has 3, this one 4")
        for value in "x", "-1", "3x":
            self.check_refused(helpers.run(*arguments(out, "--redo", value)), "expected the number of a block", value)
        words = [word for word in arguments(out, "--dry-run", "--redo", 1) if word not in ("-o", out)]
        self.check_refused(helpers.run(*words), "--redo needs -o OUT")
        self.check_whole(out)

        helpers.drop_records(out, 4)
        self.check_refused(helpers.run(*arguments(out, "--redo", 4)), "block 4", "3 blocks are committed", "leave --redo out")
        helpers.succeed(*arguments(out))
        self.check_whole(out)

    def test_dry_run_says_what_would_be_done_and_changes_nothing(self):
        out = self.damaged(3)
        before = {name: helpers.sha256(os.path.join(out, name)) for name in os.listdir(out)}
        self.check_named(3, *arguments(out, "--dry-run"), ranks=2)
        result = helpers.succeed(*arguments(out, "--dry-run", "--redo", 3), ranks=2)
        self.assertIn("would resume after block 3 of 6", result.stderr)
        self.assertEqual({name: helpers.sha256(os.path.join(out, name)) for name in os.listdir(out)}, before)


if __name__ == "__main__":
    helpers.main()
