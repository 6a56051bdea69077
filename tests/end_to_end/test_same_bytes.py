"""A checkpoint has the same bytes for any number of ranks and threads, and so has an evaluation.

The settings are spread over few runs; each run is compared with one on other numbers of ranks.
"""
import helpers

BEAM = "--bits 3 --group-size 64 --method ksnrq --beam 4 --alpha fixed:0.5 --grid minmax"


class SameBytes(helpers.Test):
    def check(self, options, *ways, sequences=3, **common):
        """ways: (ranks, threads) of each run."""
        expected = None
        for ranks, threads in ways:
            with self.subTest(ranks=ranks, threads=threads):
                out = helpers.quantize(self.path("%d-%d" % (ranks, threads)), *options.split(), ranks=ranks,
                                       threads=threads, sequences=sequences, **common)
                found = helpers.weights(out)
                self.assertEqual(len(found), 7)
                expected = expected or found
                self.assertEqual(found, expected)

    def test_beam_search(self):
        self.check(BEAM, (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), sequences=5)

    def test_threads(self):
        self.check(BEAM + " --refine 1", (1, 1), (1, 2), (2, 2))

    def test_more_ranks_than_sequences(self):
        self.check(BEAM, (1, 1), (4, 1), sequences=2)

    def test_rtn_8_bits_per_channel_asymmetric_mse(self):
        self.check("--method rtn --bits 8 --group-size channel --asymmetric --grid mse", (1, 1), (3, 1))

    def test_ldlq_5_bits_odd_group_permuted_hessian_refined(self):
        self.check("--method ldlq --bits 5 --group-size 40 --groups permuted --grid hessian --refine 2", (1, 1), (2, 1))

    def test_snrq_2_bits_sampled_asymmetric_natural_order(self):
        self.check("--method snrq --bits 2 --group-size 24 --alpha sampled:5 --asymmetric --order natural "
                   "--scale-type f32 --seed 7", (1, 1), (4, 1))

    def test_ksnrq_4_bits_chained_odd_group_mse_bf16(self):
        self.check("--method ksnrq --beam 3 --bits 4 --group-size 100 --alpha chained --grid mse --scale-type bf16",
                   (2, 1), (3, 1))

    def test_snrq_6_bits_corr_per_channel_permuted_hessian(self):
        self.check("--method snrq --bits 6 --group-size channel --alpha corr --groups permuted --grid hessian",
                   (1, 1), (3, 1))

    def test_ksnrq_7_bits_asymmetric_refined_regridded_consecutive_windows(self):
        self.check("--method ksnrq --beam 2 --bits 7 --group-size 32 --asymmetric --windows consecutive --refine 1 "
                   "--regrid 2", (1, 1), (2, 1))

    def test_evaluation(self):
        out = helpers.quantize(self.path("out"), *"--bits 2 --method rtn --group-size 32".split())
        first = None
        for ranks in (1, 2, 3):
            with self.subTest(ranks=ranks):
                logprobs = self.path("%d.npy" % ranks)
                result = helpers.succeed("evaluate", out, "--text", helpers.HELDOUT, "--sequences", 5, "--length", 64,
                                         "--reference", helpers.MODEL, "--logprobs", logprobs, "--json", ranks=ranks)
                found = (result.stdout, helpers.sha256(logprobs))
                first = first or found
                self.assertEqual(found, first)


if __name__ == "__main__":
    helpers.main()
