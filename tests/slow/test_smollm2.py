"""SmolLM2 with 135 million weights from end to end: a run that is killed and goes on, evaluation, every export read back.

Skipped where SNRQ_SHARED does not have the model. Takes 95 seconds of CPU time.
"""
import math
import os
import shutil
import subprocess
import sys
import unittest

import numpy as np

import helpers

LIMIT = 900  # seconds of one command: far above what it takes


class SmolLM2(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        script = helpers.shared("data", "models", "smollm2", "expand.py")
        cls.text = helpers.shared("data", "text", "wikitext2-valid.txt")
        cls.held_out = helpers.shared("data", "text", "wikitext2-test.txt")
        cls.folder = helpers.temporary_folder(cls)
        cls.model = os.path.join(cls.folder, "model")
        subprocess.run([sys.executable, script, cls.model], check=True)
        cls.out = cls.quantize("out", cls.begin_and_kill)

    @classmethod
    def words(cls, out):
        return ["quantize", cls.model, "--calibration", cls.text, "-o", out, "--bits", 4, "--group-size", 64,
                "--method", "gptq", "--sequences", 4, "--length", 256]

    @classmethod
    def quantize(cls, name, before=None):
        """Runs `before(out)`, which leaves an unfinished run, and then to the end."""
        out = os.path.join(cls.folder, name)
        if before:
            before(out)
        helpers.succeed(*cls.words(out), ranks=2, timeout=LIMIT)
        return out

    @classmethod
    def begin_and_kill(cls, out):
        helpers.kill_when(lambda: len(helpers.manifest(out)) >= 4, *cls.words(out), ranks=2, seconds=LIMIT)
        cls.records = len(helpers.manifest(out))

    def evaluate(self, model, *more):
        words = ["evaluate", model, "--text", self.held_out, "--sequences", 4, "--length", 256, "--json", *more]
        return helpers.succeed(*words, ranks=2, timeout=LIMIT).json()

    def test_goes_on_after_a_kill(self):
        """To the same bytes as a run that nobody killed."""
        self.assertLess(self.records, 30)
        undisturbed = self.quantize("undisturbed")
        self.addCleanup(shutil.rmtree, undisturbed)
        self.assertEqual(helpers.weights(undisturbed), helpers.weights(self.out))
        helpers.succeed("verify", self.out, timeout=LIMIT)

    def test_quality(self):
        """4 bits cost a small part of the loss; what the model had learned is still there."""
        full = self.evaluate(self.model)
        quantized = self.evaluate(self.out, "--reference", self.model)
        print("perplexity %.3f, of the full model %.3f, KL %.4f" % (quantized["perplexity"], full["perplexity"], quantized["kl"]))
        self.assertLess(full["perplexity"], 40)
        self.assertLess(quantized["perplexity"], full["perplexity"] * 1.5)
        self.assertGreater(quantized["kl"], 0)
        self.assertLess(quantized["kl"], 0.5)

    def check_export(self, form, *options):
        directory = os.path.join(self.folder, form)
        helpers.succeed("export", self.out, "--format", form, "-o", directory, *options, ranks=2, timeout=LIMIT)
        helpers.succeed("verify", self.out, "--export", directory, ranks=2, timeout=LIMIT)
        self.addCleanup(shutil.rmtree, directory)
        return directory

    def test_gptq(self):
        self.check_export("gptq")

    def test_compressed_tensors(self):
        self.check_export("compressed-tensors")

    def test_gguf(self):
        self.check_export("gguf")

    def test_safetensors(self):
        """Exact weights have the losses of OUT, token by token: a linear layer multiplies by the same numbers."""
        directory = self.check_export("safetensors", "--weights", "f32")
        losses = []
        for model in (self.out, directory):
            path = os.path.join(self.folder, "logprobs.npy")
            self.evaluate(model, "--logprobs", path)
            losses.append(np.load(path))
        self.assertTrue(math.isfinite(losses[0].sum()))
        np.testing.assert_array_equal(*losses)


if __name__ == "__main__":
    helpers.main()
