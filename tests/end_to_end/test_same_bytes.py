"""A checkpoint has the same bytes for any number of ranks and threads, and so has an evaluation.

The settings are spread over few runs; each run is compared with one on other numbers of ranks.
"""
import json
import os
from concurrent.futures import ThreadPoolExecutor

import helpers
import small_models

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
        self.check(BEAM, (1, 1), (3, 1), (4, 1), (5, 1), sequences=5)

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
        self.check("--method snrq --bits 6 --group-size 100000 --alpha corr --groups permuted --grid hessian",
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


class Families(helpers.Test):
    """Every family: the checkpoint on 1 and 4 ranks, and what an evaluation of it says."""

    def quantize(self, model, tokens, ranks):
        out = self.path("out-%d" % ranks)
        helpers.succeed("quantize", model, "--token-file", tokens, "--length", 24, "--sequences", 4, "-o", out,
                        *"--bits 3 --group-size 16 --method ksnrq --beam 2".split(), ranks=ranks)
        return helpers.weights(out)

    def evaluate(self, tokens, ranks):
        logprobs = self.path("%d.npy" % ranks)
        result = helpers.succeed("evaluate", self.path("out-%d" % ranks), "--token-file", tokens, "--length", 24,
                                 "--logprobs", logprobs, "--json", ranks=ranks)
        return result.stdout, helpers.sha256(logprobs)

    def check(self, model, ids):
        tokens = helpers.write_ids(self.path("ids.i32"), ids)
        with ThreadPoolExecutor(2) as pool:
            first, other = pool.map(lambda ranks: self.quantize(model, tokens, ranks), (1, 4))
            evaluations = list(pool.map(lambda ranks: self.evaluate(tokens, ranks), (1, 4)))
        with open(os.path.join(model, "config.json")) as f:
            self.assertEqual(len(first), json.load(f)["num_hidden_layers"] + 1)
        self.assertEqual(other, first)
        self.assertEqual(evaluations[0], evaluations[1])

    def check_fixture(self, name):
        model = helpers.shared("data", "models", "fixtures", name)
        with open(os.path.join(model, "reference.json")) as f:
            ids = [token for case in json.load(f)["cases"] for token in case["ids"]]
        self.check(model, ids[:6 * 24])

    def check_small(self, config):
        self.check(small_models.write(self.path("model"), config), small_models.windows(config, 6, 24))

    def test_old_llama_in_shards(self):
        self.check_fixture("tiny_llama2")

    def test_llama3(self):
        self.check_fixture("strong_llama3")

    def test_mistral(self):
        self.check_fixture("strong_mistral")

    def test_qwen3(self):
        self.check_fixture("strong_qwen3")

    def test_phi3(self):
        self.check_fixture("tiny_phi3")

    def test_llama3_without_tokenizer(self):
        self.check_fixture("tiny_llama3")

    def test_mistral_without_tokenizer(self):
        self.check_fixture("tiny_mistral")

    def test_qwen3_without_tokenizer(self):
        self.check_fixture("tiny_qwen3")

    def test_biases(self):
        self.check_small(small_models.LLAMA_WITH_BIASES)

    def test_phi3_turned_in_part(self):
        self.check_small(small_models.PHI3_TURNED_IN_PART)


if __name__ == "__main__":
    helpers.main()
