"""What each method is for: on the bundled model at 3 and 2 bits the better method has the smaller error."""
import os

import helpers

METHODS = ("rtn", "ldlq", "snrq", "ksnrq")


class Quality(helpers.Test):
    """With the same H for every method, or their objectives cannot be compared."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = helpers.temporary_folder(cls)
        cls.outs = {(bits, method): helpers.quantize(os.path.join(folder, "%d-%s" % (bits, method)), "--bits", bits,
                                                     "--method", method, "--group-size", 64, "--shrink", 0, ranks=2,
                                                     sequences=16, length=128)
                    for bits in (3, 2) for method in METHODS}

    def objective(self, bits, method):
        modules = helpers.succeed("inspect", self.outs[bits, method], "--json").json()["modules"]
        self.assertEqual(len(modules), 6 * 7)
        return sum(m["objective"] for m in modules)

    def perplexity(self, path, *options, length=128):
        result = helpers.succeed("evaluate", path, "--text", helpers.HELDOUT, "--length", length, "--json", *options,
                                 ranks=2).json()
        return result["perplexity"]

    def check_objectives(self, bits):
        found = [self.objective(bits, method) for method in METHODS]
        print("summed objective at %d bits: %s" % (bits, ", ".join("%s %.5g" % pair for pair in zip(METHODS, found))))
        self.assertEqual(found, sorted(found, reverse=True))

    def test_objectives_at_3_bits(self):
        self.check_objectives(3)

    def test_objectives_at_2_bits(self):
        self.check_objectives(2)

    def check_perplexities(self, bits):
        full = self.perplexity(helpers.MODEL, "--sequences", 64)
        rtn, ksnrq = (self.perplexity(self.outs[bits, m], "--sequences", 64) for m in ("rtn", "ksnrq"))
        print("perplexity at %d bits: fp %.4f, ksnrq %.4f, rtn %.4f" % (bits, full, ksnrq, rtn))
        self.assertLess(full, ksnrq)
        self.assertLess(ksnrq, rtn)

    def test_perplexities_at_3_bits(self):
        self.check_perplexities(3)

    def test_perplexities_at_2_bits(self):
        self.check_perplexities(2)

    def test_full_precision_is_as_documented(self):
        """The figure of tests/data/README.md, over the whole held-out text."""
        self.assertAlmostEqual(self.perplexity(helpers.MODEL, length=256), 2.1290, delta=0.0001)


if __name__ == "__main__":
    helpers.main()
