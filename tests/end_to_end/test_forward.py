"""The forward pass: log-probabilities of whole models against float64 references."""
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import helpers

TOLERANCE = 1e-4  # float32 numpy is within 2e-5 of the float64 references


class Forward(helpers.Test):
    def score(self, model, number, case):
        """One window for each of the five best next tokens: the case followed by that token."""
        ids = np.array([case["ids"] + [token] for token, _ in case["last_top5"]])
        file, logprobs = self.path("%d.i32" % number), self.path("%d.npy" % number)
        helpers.write_ids(file, ids)
        result = helpers.succeed("evaluate", model, "--token-file", file, "--length", ids.shape[1], "--logprobs",
                                 logprobs, "--json").json()
        return result, np.load(logprobs)

    def check(self, model, reference=None):
        with open(reference or os.path.join(model, "reference.json")) as f:
            cases = json.load(f)["cases"]
        with ThreadPoolExecutor(2) as pool:
            scores = list(pool.map(lambda job: self.score(model, *job), enumerate(cases)))
        for case, (result, got) in zip(cases, scores):
            expected = np.array([case["logprobs"] + [value] for _, value in case["last_top5"]])
            with self.subTest(text=case["text"][:40]):
                self.assertEqual(got.dtype, np.float32)
                self.assertEqual(got.shape, expected.shape)
                self.assertLess(np.abs(got - expected).max(), TOLERANCE)
                self.assertEqual(result["tokens"], expected.size)
                self.assertLess(abs(result["mean_token_loss"] + expected.mean()), TOLERANCE)
                self.assertAlmostEqual(result["perplexity"], np.exp(result["mean_token_loss"]), delta=1e-9)

    def test_bundled_model(self):
        self.check(helpers.MODEL, os.path.join(helpers.DATA, "reference.json"))

    def test_stories3M(self):
        self.check(helpers.shared("data", "models", "stories3M"))

    def test_stories260K(self):
        self.check(helpers.shared("data", "models", "stories260K"))

    def test_old_llama_in_shards_without_grouped_heads(self):
        self.check(helpers.shared("data", "models", "fixtures", "tiny_llama2"))


if __name__ == "__main__":
    helpers.main()
