"""The forward pass: log-probabilities of whole models against float64 references."""
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import helpers
import small_models

sys.path.insert(0, helpers.DATA)
import forward_reference

TOLERANCE = 1e-4  # float32 numpy is within 2e-5 of the float64 references


def longest_short_context(model):
    """Sequences up to this length use the short factors of longrope, longer ones the long factors; None without it."""
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    scaling = config.get("rope_scaling") or {}
    longrope = scaling.get("rope_type", scaling.get("type")) == "longrope"
    return config["original_max_position_embeddings"] if longrope else None


class Forward(helpers.Test):
    def score(self, model, number, windows):
        file, logprobs = self.path("%s.i32" % number), self.path("%s.npy" % number)
        helpers.write_ids(file, windows)
        result = helpers.succeed("evaluate", model, "--token-file", file, "--length", windows.shape[1], "--logprobs",
                                 logprobs, "--json").json()
        return result, np.load(logprobs)

    def check(self, model, reference=None):
        """Each case is scored five times, followed by each of its five best next tokens."""
        with open(reference or os.path.join(model, "reference.json")) as f:
            cases = json.load(f)["cases"]
        jobs = []
        for case in cases:
            windows = np.array([case["ids"] + [token] for token, _ in case["last_top5"]])
            expected = np.array([case["logprobs"] + [value] for _, value in case["last_top5"]])
            # One more token takes the sequence to the long factors: then the case is scored without it.
            if len(case["ids"]) == longest_short_context(model):
                windows, expected = windows[:1, :-1], expected[:1, :-1]
            jobs.append((windows, expected))
        with ThreadPoolExecutor(2) as pool:
            scores = list(pool.map(lambda job: self.score(model, job[0], job[1][0]), enumerate(jobs)))
        worst = 0.0
        for case, (_, expected), (result, got) in zip(cases, jobs, scores):
            with self.subTest(text=case["text"][:40]):
                self.assertEqual(got.dtype, np.float32)
                self.assertEqual(got.shape, expected.shape)
                worst = max(worst, np.abs(got - expected).max())
                self.assertLess(np.abs(got - expected).max(), TOLERANCE)
                self.assertEqual(result["tokens"], expected.size)
                self.assertLess(abs(result["mean_token_loss"] + expected.mean()), TOLERANCE)
                perplexity = np.exp(result["mean_token_loss"])
                self.assertAlmostEqual(result["perplexity"], perplexity, delta=1e-12 * perplexity + 1e-9)
        print("%s: largest difference of a log-probability %.1e" % (os.path.basename(model), worst))

    def check_fixture(self, name):
        self.check(helpers.shared("data", "models", "fixtures", name))

    def test_bundled_model(self):
        self.check(helpers.MODEL, os.path.join(helpers.DATA, "reference.json"))

    def test_stories3M(self):
        self.check(helpers.shared("data", "models", "stories3M"))

    def test_stories260K(self):
        self.check(helpers.shared("data", "models", "stories260K"))

    def test_old_llama_in_shards_without_grouped_heads(self):
        self.check_fixture("tiny_llama2")

    def test_llama3_scaling_of_rope(self):
        self.check_fixture("strong_llama3")

    def test_llama3_by_its_model_type_alone(self):
        self.check_fixture("tiny_llama3")

    def test_mistral_sliding_window(self):
        self.check_fixture("strong_mistral")

    def test_mistral_by_its_model_type_alone(self):
        self.check_fixture("tiny_mistral")

    def test_qwen3_head_norms_and_head_dim_in_the_newer_spelling(self):
        self.check_fixture("strong_qwen3")

    def test_qwen3_by_its_model_type_alone(self):
        self.check_fixture("tiny_qwen3")

    def test_phi3_fused_modules_longrope_and_sliding_window(self):
        self.check_fixture("tiny_phi3")

    def test_biases_of_qwen2(self):
        self.check_fixture("rand_qwen2")

    def test_olmo2_norms_behind(self):
        self.check_fixture("rand_olmo2")

    def test_gemma2_caps_and_windows_by_turns(self):
        self.check_fixture("rand_gemma2")

    def test_gemma3_two_bases_of_rope(self):
        self.check_fixture("rand_gemma3")

    def test_granite_multipliers(self):
        self.check_fixture("rand_granite")

    def test_smollm3_layers_that_do_not_turn(self):
        self.check_fixture("rand_smollm3")

    def test_mixtral(self):
        self.check_fixture("rand_mixtral")

    def test_experts_of_qwen3(self):
        self.check_fixture("rand_qwen3_moe")

    def test_olmoe(self):
        self.check_fixture("rand_olmoe")

    def test_deepseek_latent_attention_and_groups_of_experts(self):
        self.check_fixture("rand_deepseek_v3")

    def test_deepseek_in_fp8(self):
        self.check_fixture("rand_deepseek_v3_fp8")

    def check_small(self, config, *lengths, shards=1, name="model"):
        """A model made for this test, next to numpy."""
        model = small_models.write(self.path(name), config, shards)
        reference = forward_reference.Model(model)
        for length in lengths:
            with self.subTest(length=length):
                windows = small_models.windows(config, 2, length)
                _, got = self.score(model, "%s%d" % (name, length), windows)
                expected = [forward_reference.listed(reference.log_p(row), row) for row in windows]
                self.assertLess(np.abs(got - expected).max(), TOLERANCE)

    def test_llama_with_biases_and_wide_heads(self):
        self.check_small(small_models.LLAMA_WITH_BIASES, 30)

    def test_mistral_window_across_blocks_of_queries_in_shards(self):
        self.check_small(small_models.MISTRAL_WITH_WINDOW, 150, shards=3)

    def test_qwen3_window_in_upper_layers_and_biases(self):
        self.check_small(small_models.QWEN3_WITH_WINDOW, 20)

    def test_phi3_turned_in_part_with_short_and_long_factors(self):
        self.check_small(small_models.PHI3_TURNED_IN_PART, 24, 25)

    def test_small_models_of_other_families(self):
        for name in ("QWEN2_WITH_YARN", "OLMO2", "GEMMA2", "GEMMA3", "GRANITE", "SMOLLM3", "MIXTRAL", "QWEN3_MOE", "OLMOE",
                     "DEEPSEEK_V3", "DEEPSEEK_V3_HALF"):
            with self.subTest(model=name):
                self.check_small(getattr(small_models, name), 21, name=name)


if __name__ == "__main__":
    helpers.main()
