"""Commands under valgrind, on one rank: no invalid or undefined memory is used, none is lost.

Opt-in (`cmake --workflow --preset valgrind`): a command takes tens of times as long as without it. Models are small; what the
commands compute is tested elsewhere. The table names the errors of each command, and its seconds.
"""
import json
import os
import re
import shutil
import stat
import sys
import time
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "end_to_end"))
import helpers  # noqa: E402
import small_models  # noqa: E402

FOUND = 99  # exit code of valgrind with errors
OPEN_MPI = "/usr/share/openmpi/openmpi-valgrind.supp"
# 256 columns, what K-quants need, and 64.
WIDE = dict(small_models.LLAMA_WITH_BIASES, num_hidden_layers=1, hidden_size=256, intermediate_size=64, head_dim=32,
            num_attention_heads=2, num_key_value_heads=1, attention_bias=False, mlp_bias=False, rope_scaling=None)
SMALL = dict(WIDE, num_hidden_layers=2, hidden_size=32, intermediate_size=96, head_dim=32)
DATA = ["--sequences", 2, "--length", 16]
LAYER = ["--bits", 3, "--group-size", 16, "--beam", 2]


@unittest.skipUnless(shutil.which("valgrind"), "valgrind is not there")
class Valgrind(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        cls.logs, wrapper = os.path.join(folder, "log"), os.path.join(folder, "snrq")
        suppressions = [os.path.join(os.path.dirname(HERE), "valgrind.supp")] + [p for p in (OPEN_MPI,) if os.path.exists(p)]
        with open(wrapper, "w") as f:
            f.write("#!/bin/sh\nexec valgrind --error-exitcode=%d --leak-check=full --show-leak-kinds=definite "
                    "--errors-for-leak-kinds=definite --num-callers=25 %s --log-file='%s' '%s' \"$@\"\n" % (
                        FOUND, " ".join("--suppressions='%s'" % s for s in suppressions), cls.logs, os.environ["SNRQ"]))
        os.chmod(wrapper, stat.S_IRWXU)
        cls.addClassCleanup(os.environ.__setitem__, "SNRQ", os.environ["SNRQ"])
        os.environ["SNRQ"] = wrapper
        cls.small = small_models.write(os.path.join(folder, "small"), SMALL)
        cls.wide = small_models.write(os.path.join(folder, "wide"), WIDE)
        cls.ids = helpers.write_ids(os.path.join(folder, "ids"), np.arange(4000) * 7 % SMALL["vocab_size"])

    def check(self, *words, code=0):
        """Runs a command; what valgrind found is the message of the failure."""
        began = time.monotonic()
        result = helpers.run(*words, timeout=3000)
        with open(self.logs) as f:
            log = f.read()
        errors = re.search(r"ERROR SUMMARY: (\d+)", log)
        print("%8s errors %6.0f s  snrq %s" % (errors.group(1) if errors else "no", time.monotonic() - began,
                                               " ".join(os.path.basename(str(w)) for w in words)), flush=True)
        self.assertIsNotNone(errors, log)
        self.assertEqual(int(errors.group(1)), 0, log)
        self.assertEqual(result.code, code, result)
        return result

    def quantize(self, model, name, *more):
        self.check("quantize", model, "--token-file", self.ids, "-o", self.path(name), *DATA, *more)
        return self.path(name)

    def export(self, out, *formats):
        for name in formats:
            target = self.path("%s-%s" % (os.path.basename(out), name))
            self.check("export", out, "--format", name, "-o", target)
            self.check("verify", out, "--export", target)

    def test_sensitivity_and_tuning(self):
        out = self.quantize(self.small, "out", *LAYER, "--sensitivity", "auto", "--tune", 1, "--keep-activations")
        for words in (["verify", out], ["status", out, "--full"], ["inspect", out], ["report", out, "-o", self.path("report")]):
            self.check(*words)
        self.check("evaluate", out, "--token-file", self.ids, *DATA, "--reference", self.small)
        self.export(out, "safetensors", "gptq", "compressed-tensors")
        self.check("sensitivity", self.small, "--token-file", self.ids, *DATA, "-o", self.path("sensitivity.h5"))

    def test_methods(self):
        for method in ("gptaq", "gptq", "ldlq", "snrq"):
            self.quantize(self.small, method, *LAYER[:4], "--method", method)

    def test_budgets(self):
        self.check("assess", self.small, "--token-file", self.ids, *DATA, "-o", self.path("assess"), *LAYER[2:], "--widths", "2,3",
                   "--group-sizes", "16,32", "--formats", "q4_0,mxfp4", "--judged-windows", 1)
        how = ["--assessment", self.path("assess", "assessment.json"), *LAYER[2:]]
        self.quantize(self.small, "bits", "--target-bits", 3.2, *how)
        self.quantize(self.small, "formats", "--target-bits", 4.4, "--formats", "q4_0,mxfp4", *how)
        self.check("plan", self.small, "--token-file", self.ids, *DATA, "--target-bits", 3.2, *how)

    def test_formats(self):
        for name, exports in (("q3_k", ["gguf"]), ("iq4_xs", ["gguf"]), ("nvfp4", ["compressed-tensors"]),
                              ("mxfp4", ["compressed-tensors"]), ("fp8_block", ["fp8"])):
            out = self.quantize(self.wide, name, "--format", name, "--beam", 2)
            self.export(out, "safetensors", *exports)

    def test_presets_and_gguf(self):
        text = ["--calibration", helpers.CALIBRATION, *DATA, "--method", "rtn"]
        self.check("quantize", helpers.MODEL, *text, "-o", self.path("out"), "--preset", "q2_k")
        self.export(self.path("out"), "gguf")
        self.check("quantize", self.wide, "--token-file", self.ids, *DATA, "-o", self.path("wide"), "--preset", "q2_k", "--beam", 2)
        self.export(self.path("wide"), "safetensors")

    def test_recipes(self):
        recipe = self.path("recipe.json")
        with open(recipe, "w") as f:
            json.dump({"rules": [{"modules": "model.embed_tokens", "bits": 8}, {"modules": "mlp.*", "keep": True}]}, f)
        out = self.quantize(self.small, "out", *LAYER, "--recipe", recipe)
        self.check("evaluate", out, "--token-file", self.ids, *DATA)
        self.export(out, "safetensors")
        self.check("quantize", self.small, "--token-file", self.ids, "-o", self.path("none"), "--recipe", os.devnull,
                   code=helpers.BAD_DATA)

    def test_experts(self):
        model = small_models.write(self.path("model"), dict(small_models.MIXTRAL, num_hidden_layers=1))
        self.quantize(model, "out", "--bits", 3, "--group-size", 16, "--beam", 2)

    def test_round(self):
        columns, random = 256, np.random.default_rng(3)
        x, w = random.standard_normal((2 * columns, columns)), random.standard_normal((16, columns))
        arrays = {"W": w, "H": x.T @ x / len(x), "D": 0.01 * random.standard_normal((columns, columns))}
        helpers.write_safetensors(self.path("case"), {name: ("F32", list(a.shape), a.astype("<f4").tobytes())
                                                      for name, a in arrays.items()})
        for more in (["--bits", 3, "--group-size", 64], ["--format", "q2_k"], ["--format", "nvfp4"], ["--format", "fp8_block"]):
            self.check("round", self.path("case"), "--beam", 2, *more, "-o", self.path("result"))

    def test_texts(self):
        self.check("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", self.path("ids.i32"))
        self.check("inspect", helpers.MODEL)
        self.check("evaluate", helpers.MODEL, "--text", helpers.HELDOUT, *DATA)


if __name__ == "__main__":
    helpers.main()
