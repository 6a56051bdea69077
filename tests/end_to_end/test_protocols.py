"""Perplexity by the protocols of published results, and calibration windows drawn as their programs draw them.

Truth: Python's own `random`, and figures in SNRQ_SHARED made by transformers (data/reference/INDEX.md there).
"""
import gzip
import json
import math
import os
import random

import helpers
import numpy as np

TEXT = open(helpers.HELDOUT, encoding="utf-8").read()


def samples(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


class Protocols(helpers.Test):
    def documents(self):
        """Texts of different lengths, an empty one among them, as JSON lines in gzip. Returns the path and their ids."""
        cuts = [0, 300, 2300, 2300, 4000, 4100, 9000]
        texts = [TEXT[a:b] for a, b in zip(cuts, cuts[1:])]
        path = self.path("documents.jsonl.gz")
        with gzip.open(path, "wt", encoding="utf-8") as f:
            for text in texts:
                f.write(json.dumps({"text": text, "url": None}) + "\n")
        return path, [self.tokens(text) for text in texts]

    def tokens(self, text):
        with open(self.path("text"), "w", encoding="utf-8") as f:
            f.write(text)
        if not text:
            return [1]  # the beginning alone
        helpers.succeed("tokenize", helpers.MODEL, "--text", self.path("text"), "-o", self.path("ids"))
        return np.fromfile(self.path("ids"), dtype="<i4").tolist()

    @staticmethod
    def draw(documents, count, length, seed, last):
        """The loader of the GPTQ code (last = 1), or of the SNRQ code (last = 0)."""
        random.seed(seed)
        windows = []
        for _ in range(count):
            while True:
                i = random.randint(0, len(documents) - 1)
                if len(documents[i]) >= length:
                    break
            top = len(documents[i]) - length - last
            start = random.randint(0, top) if top > 0 or last else 0
            windows.append((i, start))
        return windows

    def test_c4_is_drawn_as_python_draws(self):
        path, documents = self.documents()
        for protocol, last in (("c4", 1), ("c4-snrq", 0)):
            helpers.succeed("evaluate", helpers.MODEL, "--protocol", protocol, "--text", path, "--length", 128,
                            "--sequences", 24, "--seed", 5, "--samples", self.path("samples"), ranks=2)
            found = [(s["doc"], s["start"]) for s in samples(self.path("samples"))]
            self.assertEqual(found, self.draw(documents, 24, 128, 5, last))

    def test_calibration_is_drawn_as_python_draws(self):
        path, documents = self.documents()
        joined = self.tokens("\n\n".join(["", TEXT[:4000], "", TEXT[4000:9000]]))
        random.seed(2)
        starts = [random.randint(0, len(joined) - 64 - 1) for _ in range(4)]
        with open(self.path("rows.jsonl"), "w", encoding="utf-8") as f:
            for text in ("", TEXT[:4000], "", TEXT[4000:9000]):
                f.write(json.dumps({"text": text}) + "\n")
        cases = {"wikitext2": (self.path("rows.jsonl"), [joined[s:s + 64] for s in starts])}
        for name, last in (("c4", 1), ("c4-snrq", 0)):
            cases[name] = path, [documents[i][s:s + 64] for i, s in self.draw(documents, 4, 64, 2, last)]
        for name, (text, windows) in cases.items():
            ids = helpers.write_ids(self.path("windows"), np.concatenate(windows))
            size = ["--sequences", 4, "--length", 64, "--bits", 3, "--method", "rtn"]
            helpers.succeed("quantize", helpers.MODEL, "--token-file", ids, *size, "-o", self.path(name + "-ids"))
            helpers.succeed("quantize", helpers.MODEL, "--calibration", text, "--sampling", name, "--seed", 2, *size, "-o",
                            self.path(name), ranks=2)
            fingerprints = [json.load(open(self.path(out, "snrq.json")))["calibration"]["fingerprint"]
                            for out in (name, name + "-ids")]
            self.assertEqual(*fingerprints, name)

    def test_joined_texts_are_tokenized_as_one(self):
        rows = ["", TEXT[:3000], "", TEXT[3000:5000]]
        with open(self.path("rows.jsonl"), "w", encoding="utf-8") as f:
            for text in rows:
                f.write(json.dumps({"text": text}) + "\n")
        for protocol, between in (("wikitext2", "\n\n"), ("c4-new", " ")):
            ids = helpers.write_ids(self.path("joined"), self.tokens(between.join(rows)))
            words = ["--length", 128, "--json"]
            found = helpers.succeed("evaluate", helpers.MODEL, "--protocol", protocol, "--text", self.path("rows.jsonl"),
                                    *words).json()
            expected = helpers.succeed("evaluate", helpers.MODEL, "--token-file", ids, *words).json()
            self.assertEqual(found["perplexity"], expected["perplexity"])
            self.assertEqual(found["windows"], expected["windows"])

    def test_several_at_once_are_what_each_is_alone_on_any_number_of_ranks(self):
        path, _ = self.documents()
        words = ["--length", 64, "--sequences", 6, "--json"]
        several = [helpers.succeed("evaluate", helpers.MODEL, "--protocol", "wikitext2,c4", "--text", helpers.HELDOUT, "--text",
                                   path, *words, ranks=ranks).stdout for ranks in (1, 3)]
        self.assertEqual(*several)
        first, second = json.loads(several[0])["evaluations"]
        self.assertEqual(first, helpers.succeed("evaluate", helpers.MODEL, "--protocol", "wikitext2", "--text",
                                                helpers.HELDOUT, *words).json())
        self.assertEqual(second, helpers.succeed("evaluate", helpers.MODEL, "--protocol", "c4", "--text", path, *words).json())

    def test_errors_are_those_of_the_windows(self):
        found = helpers.succeed("evaluate", helpers.MODEL, "--text", helpers.HELDOUT, "--length", 64, "--sequences", 9, "--json",
                                "--samples", self.path("samples"), "--reference", helpers.MODEL).json()
        losses = [s["loss"] for s in samples(self.path("samples"))]
        self.assertEqual(len(losses), 9)
        error = np.std(losses, ddof=1) / 3
        self.assertAlmostEqual(found["mean_token_loss"], np.mean(losses), delta=1e-12)
        self.assertAlmostEqual(found["mean_token_loss_stderr"], error, delta=1e-12)
        self.assertAlmostEqual(found["perplexity"], math.exp(np.mean(losses)), delta=1e-9)
        self.assertAlmostEqual(found["perplexity_stderr"], math.exp(np.mean(losses)) * error, delta=1e-9)
        self.assertEqual(found["kl_stderr"], 0)
        self.assertEqual(found["top1_agreement"], 1)

    def test_windows_may_be_longer_than_the_context(self):
        context = json.load(open(os.path.join(helpers.MODEL, "config.json")))["max_position_embeddings"]
        result = helpers.succeed("evaluate", helpers.MODEL, "--protocol", "wikitext2", "--text", helpers.HELDOUT, "--length",
                                 context + 40, "--sequences", 1, "--json")
        self.assertIn("longer than the model's context of %d" % context, result.stderr)
        self.assertEqual(result.json()["tokens"], context + 39)

    def test_what_does_not_fit_together_is_refused(self):
        text = ["--text", helpers.HELDOUT]
        for words, message in (
                (["--protocol", "ptb", *text], "expected some of consecutive, wikitext2, c4, c4-snrq, c4-new"),
                (["--protocol", "wikitext2,c4,c4-new", *text, *text], "names 3 protocols, and there are 2 texts"),
                (["--protocol", "wikitext2,c4", *text, "--logprobs", self.path("l.npy")], "--logprobs belongs to one protocol alone"),
                (["--protocol", "wikitext2", *text, "--seed", 1], "--seed 1 has no effect here"),
                (["--protocol", "c4", *text, "--seed", 1, "--length", 100000], "the longest of its 1 documents"),
                (["--samples", helpers.HELDOUT, *text], helpers.HELDOUT)):
            result = helpers.run("evaluate", helpers.MODEL, *words)
            self.assertIn(result.code, (helpers.USAGE, helpers.BAD_DATA), result)
            self.assertIn(message, result.stderr)


class Figures(helpers.Test):
    """stories3M next to transformers: every window, over some windows of every table."""

    def check(self, model, expected, count, **how):
        for table in expected["protocols"]:
            text = helpers.shared("data", "text", table["file"])
            windows = table["windows"][:count]
            found = helpers.succeed("evaluate", model, "--protocol", table["protocol"], "--text", text, "--length",
                                    table["size"], "--sequences", len(windows), "--json", "--samples", self.path("samples"),
                                    **how).json()
            lines = samples(self.path("samples"))
            self.assertEqual(len(lines), len(windows))
            for line, window in zip(lines, windows):
                self.assertLess(abs(line["loss"] - window["loss"]), 5e-6, (table["protocol"], line, window))
                for key in ("doc", "start", "rejected"):
                    self.assertEqual(line.get(key), window.get(key), (table["protocol"], line, window))
            mean = sum(w["loss"] for w in windows) / len(windows)
            self.assertLess(abs(found["perplexity"] / math.exp(mean) - 1), 1e-5)
        return len(expected["protocols"])

    def test_stories3m(self):
        with open(helpers.shared("data", "reference", "perplexity", "stories3M.json"), encoding="utf-8") as f:
            expected = json.load(f)
        self.assertEqual(self.check(helpers.shared("data", "models", "stories3M"), expected, 8), 10)


if __name__ == "__main__":
    helpers.main()
