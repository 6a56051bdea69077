"""Any flipped bit and any truncation of a committed file is found and named, by `snrq verify` and by a run that resumes.

flip_bits.c does it to every bit and every length of a very small output, with the functions that the commands call;
here some of the damages go through the commands themselves.
"""
import json
import os
import random
import shutil
import subprocess
import tempfile

import numpy as np

import helpers
import small_models

TINY = dict(small_models.COMMON, architectures=["Phi3ForCausalLM"], model_type="phi3", vocab_size=8, hidden_size=16,
            intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
            torch_dtype="float16")

# Files of an output that no record covers, and why nothing is lost if they are damaged.
NOT_COVERED = {"run.jsonl": "a log for programs: nothing is computed from it, and lines that are no JSON are skipped",
               "status.json": "progress for people: replaced by the next run"}


class FlippedBits(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.common = helpers.temporary_folder(cls)
        cls.ids = helpers.write_ids(os.path.join(cls.common, "ids"), np.arange(64) % 8)
        cls.finished = cls.make_output("finished", 2)

    @classmethod
    def make_output(cls, name, blocks):
        model = small_models.write(os.path.join(cls.common, name + "-model"), dict(TINY, num_hidden_layers=blocks))
        for file, text in (("generation_config.json", "{}"), ("tokenizer.json", '{"version":"1.0"}\n')):
            with open(os.path.join(model, file), "w") as f:
                f.write(text)
        out = os.path.join(cls.common, name)
        helpers.succeed(*cls.arguments(out, model))
        return out

    @classmethod
    def arguments(cls, out, model=None):
        return ["quantize", model or cls.finished + "-model", "--token-file", cls.ids, "-o", out, "--bits", 2,
                "--group-size", "channel", "--sequences", 4, "--length", 8]

    def copy_of_finished(self):
        return shutil.copytree(self.finished, self.path("out"))

    def copy_of_unfinished(self):
        """As a run leaves it that was killed when its first block was committed."""
        out = self.copy_of_finished()
        helpers.drop_records(out, 2)
        os.remove(os.path.join(out, "block-00001.h5"))
        return out

    @staticmethod
    def lines(out):
        with open(os.path.join(out, "manifest.jsonl"), "rb") as f:
            return f.read().splitlines(keepends=True)

    @staticmethod
    def cut(path, length):
        with open(path, "r+b") as f:
            f.truncate(length)

    @staticmethod
    def committed(out):
        """Checksums of everything that a record covers, and of what covers it."""
        return {name: helpers.sha256(os.path.join(out, name)) for name in sorted(os.listdir(out))
                if name not in NOT_COVERED}

    def check_found(self, result, name):
        self.assertEqual(result.code, helpers.BAD_DATA, result)
        self.assertIn(name, result.stderr, result)

    def test_every_bit_and_every_length(self):
        out = self.make_output("one-block", 1)
        if os.access("/dev/shm", os.W_OK):  # no disk that is asked to make every step durable
            memory = tempfile.mkdtemp(prefix="snrq-", dir="/dev/shm")
            self.addCleanup(shutil.rmtree, memory, ignore_errors=True)
            out = shutil.copytree(out, os.path.join(memory, "out"))
        before = self.committed(out)
        done = subprocess.run([os.environ["SNRQ_FLIP_BITS"], out, "20011"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=helpers.environment(1), check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-4000:])
        counts = json.loads(done.stdout.decode())
        for name, count in counts["files"].items():
            size = os.path.getsize(os.path.join(out, name))
            self.assertEqual(count, {"bits": 8 * size, "lengths": size}, name)
        self.assertEqual(set(counts["files"]), set(os.listdir(out)) - set(NOT_COVERED))
        self.assertEqual(self.committed(out), before)
        print("%d flipped bits and %d lengths, %d times all of verify and %d times a run that resumes" %
              (sum(f["bits"] for f in counts["files"].values()), sum(f["lengths"] for f in counts["files"].values()),
               counts["verified"], counts["resumed"]))

    def test_commands_name_the_file(self):
        out, chosen = self.copy_of_unfinished(), random.Random(5)
        self.assertEqual(helpers.run("verify", out).code, 0)
        for name in self.committed(out):
            path = os.path.join(out, name)
            with open(path, "rb") as f:
                good = f.read()
            places = [chosen.randrange(len(good) - 1)]  # the manifest's last newline has its own test
            for place in places + ["cut"]:
                if place == "cut" and name == "manifest.jsonl":
                    continue
                with self.subTest(file=name, place=place):
                    if place == "cut":
                        self.cut(path, chosen.randrange(len(good)))
                    else:
                        helpers.flip_bit(path, place, chosen.randrange(8))
                    self.check_found(helpers.run("verify", out), name)
                    self.check_found(helpers.run(*self.arguments(out), ranks=2), name)
                with open(path, "wb") as f:
                    f.write(good)
        helpers.succeed(*self.arguments(out), ranks=2)
        self.assertEqual(self.committed(out), self.committed(self.finished))

    def test_finished_run_is_not_complete_with_a_damaged_file(self):
        out = self.copy_of_finished()
        helpers.flip_bit(os.path.join(out, "rest.h5"), -1, 7)
        self.check_found(helpers.run(*self.arguments(out), ranks=2), "rest.h5")

    def test_records_that_are_cut_off_are_made_again(self):
        """What a cut leaves of the manifest is what a crash could have left: verify tells, and the run does again
        what has no record, with the same bytes."""
        lines = self.lines(self.finished)
        whole = sum(map(len, lines))
        last, block = len(lines[-1]), len(lines[-2])
        for length in (0, 20, whole - last - block, whole - last - 1, whole - last, whole - 1):
            with self.subTest(length=length):
                out = shutil.copytree(self.finished, self.path("cut-%d" % length))
                self.cut(os.path.join(out, "manifest.jsonl"), length)
                self.check_found(helpers.run("verify", out), "manifest.jsonl")
                helpers.succeed(*self.arguments(out), ranks=2)
                self.assertEqual(self.committed(out), self.committed(self.finished))

    def test_last_newline_is_the_end_of_a_record(self):
        out = self.copy_of_finished()
        helpers.flip_bit(os.path.join(out, "manifest.jsonl"), -1, 4)
        self.check_found(helpers.run("verify", out), "manifest.jsonl")
        helpers.succeed(*self.arguments(out), ranks=2)
        self.assertEqual(self.committed(out), self.committed(self.finished))


if __name__ == "__main__":
    helpers.main()
