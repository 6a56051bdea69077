"""Perplexities of stories3M next to published code, on the same tokens (golden/e2e/INDEX.md of SNRQ_SHARED).

Agreement: 0.1 % in full precision, 3 % at 3 bits, 10 % at 2 bits, beyond the spread of the reference's seeds.
"""
import os

import helpers

SETTING = "--group-size 64 --scale-type f32 --grid minmax --refine 0 --symmetric".split()
OF_METHOD = {"rtn": [], "snrq": "--groups permuted --alpha fixed:0.5".split(),
             "ksnrq": "--groups permuted --alpha fixed:0.5 --beam 8".split()}


class ReferenceFigures(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = helpers.shared("data", "models", "stories3M")
        cls.tokens = helpers.shared("golden", "e2e")

    def perplexity(self, path):
        tokens = os.path.join(self.tokens, "stories3M-evaluation.i32")
        return helpers.succeed("evaluate", path, "--token-file", tokens, "--length", 256, "--json",
                               ranks=2).json()["perplexity"]

    def check(self, bits, method, expected, tolerance):
        tokens = os.path.join(self.tokens, "stories3M-calibration-0.i32")
        out = self.path("out")
        helpers.succeed("quantize", self.model, "--token-file", tokens, "--length", 256, "--sequences", 128, "-o", out,
                        "--bits", bits, "--method", method, *SETTING, *OF_METHOD[method], ranks=2, timeout=240)
        found = self.perplexity(out)
        print("%d bits, %s: perplexity %.3f, expected %.3f" % (bits, method, found, expected))
        self.assertLess(abs(found / expected - 1), tolerance)

    def test_full_precision(self):
        self.assertLess(abs(self.perplexity(self.model) / 6.4181 - 1), 1e-3)

    def test_ksnrq_at_3_bits(self):
        self.check(3, "ksnrq", 10.587, 0.03 + 0.057 / 10.587)


if __name__ == "__main__":
    helpers.main()
