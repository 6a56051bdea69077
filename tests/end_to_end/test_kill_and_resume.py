"""A run that was killed goes on where it stopped, on any number of ranks, and ends with the same bytes."""
import json
import os
import shutil
import subprocess
import time

import helpers

# A block takes about half a second, so that a kill after one block comes well before the next is complete.
OPTIONS = "--bits 3 --group-size 64 --method ksnrq --alpha chained --grid mse --sequences 4 --length 64"
BLOCKS = 6


def arguments(out, *more):
    return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 *OPTIONS.split()], *more)


def committed_blocks(out):
    return sum("block" in record for record in helpers.manifest(out))


def has_record(out, name):
    return any(record.get("file") == name for record in helpers.manifest(out))


class KillAndResume(helpers.Test):
    @classmethod
    def setUpClass(cls):
        """An undisturbed run, and one that was killed after its second block."""
        super().setUpClass()
        cls.common = helpers.temporary_folder(cls)
        cls.undisturbed = os.path.join(cls.common, "undisturbed")
        helpers.succeed(*arguments(cls.undisturbed), ranks=1)
        cls.expected = helpers.weights(cls.undisturbed)
        cls.unfinished = os.path.join(cls.common, "unfinished")
        helpers.kill_when(lambda: committed_blocks(cls.unfinished) >= 2, *arguments(cls.unfinished), ranks=2)

    def copy_of_unfinished(self):
        return shutil.copytree(self.unfinished, self.path("out"))

    def check_no_file_without_record(self, out):
        for name in helpers.weights(out):
            self.assertTrue(has_record(out, name), name)
        result = helpers.run("verify", out, "--json")
        self.assertEqual(result.code, 0, result)
        self.assertFalse(result.json()["complete"])

    def check_resumes(self, out, ranks):
        """Goes on without doing again what was done, to the bytes of the undisturbed run."""
        done = committed_blocks(out)
        before = {name: os.stat(os.path.join(out, name)).st_mtime_ns for name in helpers.weights(out)
                  if has_record(out, name)}
        result = helpers.run(*arguments(out), ranks=ranks)
        self.assertEqual(result.code, 0, result)
        self.assertEqual(result.stderr.count("replayed"), done, result)
        self.assertEqual(helpers.weights(out), self.expected)
        for name, time_ns in before.items():
            self.assertEqual(os.stat(os.path.join(out, name)).st_mtime_ns, time_ns, name)
        self.assertTrue(helpers.succeed("verify", out, "--json").json()["complete"])
        for name in os.listdir(out):
            self.assertFalse(name.endswith(".tmp") or name.startswith("snrq.lock"), name)

    def test_killed_after_each_block_in_turn(self):
        out = self.path("out")
        helpers.kill_when(lambda: has_record(out, "rest.h5"), *arguments(out), ranks=2)
        self.check_no_file_without_record(out)
        for block, ranks in zip(range(BLOCKS - 1), (1, 3, 2, 1, 4)):
            with self.subTest(block=block, ranks=ranks):
                helpers.kill_when(lambda: committed_blocks(out) > block, *arguments(out), ranks=ranks)
                self.check_no_file_without_record(out)
                self.assertLess(committed_blocks(out), BLOCKS)
        self.check_resumes(out, 2)

    def test_killed_on_two_ranks_resumed_on_one(self):
        self.check_resumes(self.copy_of_unfinished(), 1)

    def test_killed_on_two_ranks_resumed_on_three(self):
        self.check_resumes(self.copy_of_unfinished(), 3)

    def test_leftovers_of_a_kill_are_removed(self):
        """Killed while a file is written, between its rename and its record, and while the record is written."""
        out = self.copy_of_unfinished()
        next_block = os.path.join(out, "block-%05d.h5" % committed_blocks(out))
        with open(next_block, "wb") as f:
            f.write(b"renamed, but never recorded")
        with open(next_block + ".tmp", "wb") as f:
            f.write(b"half")
        with open(os.path.join(out, "manifest.jsonl"), "ab") as f:
            f.write(b'{"block": 7, "bytes": 106')
        self.assertEqual(helpers.run("verify", out).code, helpers.BAD_DATA)
        self.check_resumes(out, 2)

    def test_other_options_are_refused(self):
        out = self.copy_of_unfinished()
        before = helpers.weights(out), helpers.manifest(out)
        for options, was in (("--bits 4", "3"), ("--method snrq --beam 1", "ksnrq"), ("--alpha corr", "chained"),
                             ("--sequences 5", "4")):
            option, now = options.removeprefix("--").split()[:2]
            with self.subTest(option=option):
                result = helpers.run(*arguments(out, *options.split()), ranks=2)
                self.assertEqual(result.code, helpers.USAGE, result)
                self.assertRegex(result.stderr, r"\b%s\b.*\b%s\b.*\b%s\b" % (option, was, now))
        self.assertEqual((helpers.weights(out), helpers.manifest(out)), before)

    def test_other_text_is_refused(self):
        out = self.copy_of_unfinished()
        words = arguments(out)
        words[words.index(helpers.CALIBRATION)] = helpers.HELDOUT
        result = helpers.run(*words)
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("calibration.fingerprint", result.stderr)

    def test_damaged_committed_block_is_not_built_on(self):
        out = self.copy_of_unfinished()
        helpers.flip_bit(os.path.join(out, "block-00001.h5"), -1000)
        result = helpers.run(*arguments(out), ranks=2)
        self.assertEqual(result.code, helpers.BAD_DATA, result)
        self.assertIn("block-00001.h5", result.stderr)

    def test_finished_output_is_left_alone(self):
        before = {name: os.stat(os.path.join(self.undisturbed, name)).st_mtime_ns
                  for name in os.listdir(self.undisturbed)}
        result = helpers.run(*arguments(self.undisturbed), ranks=2)
        self.assertEqual(result.code, 0, result)
        self.assertIn("complete already", result.stderr)
        after = {name: os.stat(os.path.join(self.undisturbed, name)).st_mtime_ns
                 for name in os.listdir(self.undisturbed)}
        self.assertEqual(after, before)

    def test_two_runs_do_not_share_an_output(self):
        out = self.path("out")
        first = helpers.start(*arguments(out), ranks=2)
        try:
            limit = time.monotonic() + 60
            while not has_record(out, "rest.h5") and time.monotonic() < limit:
                time.sleep(0.01)
            second = helpers.run(*arguments(out), ranks=1)
            self.assertIsNone(first.poll(), "the first run was over too early")
            self.assertEqual(second.code, helpers.CANNOT_WRITE, second)
            self.assertIn("in use by process", second.stderr)
            self.assertEqual(first.wait(timeout=120), 0)
        finally:
            if first.poll() is None:
                helpers.stop(first)
            first.stderr.close()
        self.assertEqual(helpers.weights(out), self.expected)

    def test_lock_of_a_killed_process_that_nobody_has_waited_for(self):
        """Where the first process of a container does not collect orphans, killed ranks stay listed for ever."""
        out = self.copy_of_unfinished()
        lock = os.path.join(out, "snrq.lock")
        with open(lock) as f:
            holder = json.load(f)
        dead = subprocess.Popen(["sleep", "60"])
        try:
            with open("/proc/%d/stat" % dead.pid) as f:
                holder["pid"], holder["process"] = dead.pid, int(f.read().rsplit(")", 1)[1].split()[19])
            dead.kill()
            with open(lock, "w") as f:
                json.dump(holder, f)
            self.check_resumes(out, 1)
        finally:
            dead.wait()

    def test_manifest_says_what_was_committed(self):
        records = helpers.manifest(self.undisturbed)
        self.assertTrue(records[-1]["complete"])
        for record in records[:-1]:
            path = os.path.join(self.undisturbed, record["file"])
            self.assertEqual(record["bytes"], os.path.getsize(path))
        with open(os.path.join(self.undisturbed, "status.json")) as f:
            self.assertIsInstance(json.load(f), dict)


if __name__ == "__main__":
    helpers.main()
