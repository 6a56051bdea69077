"""snrq sensitivity: Grams of output gradients, against a float64 backward pass for every family."""
import json
import os
import sys

import h5py
import numpy as np

import helpers
import small_models

sys.path.insert(0, helpers.DATA)
import backward_reference
import forward_reference

TILE = 64
TOLERANCE = 1e-4  # of a Gram's entry, relative to the square roots of both diagonal ones


def tiles_of(gram):
    """Blocks of 64 rows on the diagonal, the last one padded with zeros."""
    count = -(-len(gram) // TILE)
    padded = np.zeros((count * TILE, count * TILE))
    padded[:len(gram), :len(gram)] = gram
    return np.array([padded[i * TILE:(i + 1) * TILE, i * TILE:(i + 1) * TILE] for i in range(count)])


def difference(tiles, gram):
    """Largest difference, relative to what both rows have on the diagonal."""
    expected = tiles_of(gram)
    size = np.sqrt(np.einsum("tii->ti", expected))
    scale = size[:, :, None] * size[:, None, :]
    # rows with hardly any gradient are compared with those that have the most
    return np.max(np.abs(tiles - expected) / np.maximum(scale, 1e-3 * scale.max()))


class Sensitivity(helpers.Test):
    def compute(self, model, windows, *options, name="s", **how):
        ids, out = self.path(name + ".i32"), self.path(name + ".h5")
        helpers.write_ids(ids, windows)
        result = helpers.succeed("sensitivity", model, "--token-file", ids, "--sequences", len(windows), "--length",
                                 windows.shape[1], "-o", out, *options, **how)
        return out, result

    def check(self, config, length=24):
        model = small_models.write(self.path("model"), config)
        windows = small_models.windows(config, 2, length)
        self.assertLess(backward_reference.check_by_differences(model, windows[0]), 1e-6)
        expected, squares = backward_reference.sums_of_squares(model, windows, 9)
        out, _ = self.compute(model, windows, "--seed", 9)
        modules = ["model.layers.%d.%s" % (layer, name) for layer in range(config["num_hidden_layers"])
                   for name in small_models.modules_of_block(config, layer)]
        worst, unused = 0.0, 0
        with h5py.File(out, "r") as f:
            self.assertEqual(sorted(f), sorted(modules + ["ids", "squares"]))
            np.testing.assert_array_equal(f["ids"][()], windows)
            self.assertEqual(sorted(f["squares"]), sorted(name for name in modules if ".experts." not in name))
            for name, table in f["squares"].items():
                np.testing.assert_allclose(table[()], squares[name], rtol=2e-4, atol=1e-6 * squares[name].max())
            for name in modules:
                self.assertEqual(f[name].dtype, np.float32)
                if name in expected:
                    worst = max(worst, difference(f[name][()], expected[name]))
                else:  # an expert that no token is sent to
                    self.assertTrue(".experts." in name, name)
                    self.assertTrue(np.all(f[name][()] == 0))
                    unused += 1
        print("%s: %d modules, %d of unused experts, largest difference %.1e"
              % (config["model_type"], len(modules), unused, worst))
        self.assertLess(worst, TOLERANCE)

    def test_llama_with_biases(self):
        self.check(small_models.LLAMA_WITH_BIASES)

    def test_mistral_window_across_blocks_of_queries(self):
        self.check(small_models.MISTRAL_WITH_WINDOW, 150)

    def test_qwen3(self):
        self.check(small_models.QWEN3_WITH_WINDOW)

    def test_phi3(self):
        self.check(small_models.PHI3_TURNED_IN_PART)

    def test_qwen2(self):
        self.check(small_models.QWEN2_WITH_YARN)

    def test_olmo2(self):
        self.check(small_models.OLMO2)

    def test_gemma2(self):
        self.check(small_models.GEMMA2)

    def test_gemma3(self):
        self.check(small_models.GEMMA3)

    def test_granite(self):
        self.check(small_models.GRANITE)

    def test_smollm3(self):
        self.check(small_models.SMOLLM3)

    def test_mixtral(self):
        self.check(small_models.MIXTRAL)

    def test_qwen3_moe(self):
        self.check(small_models.QWEN3_MOE)

    def test_olmoe(self):
        self.check(small_models.OLMOE)

    def test_deepseek(self):
        self.check(small_models.DEEPSEEK_V3)

    def test_deepseek_without_a_latent_vector_of_queries(self):
        self.check(small_models.DEEPSEEK_V3_HALF)

    def test_experts_in_float8(self):
        """A fixture of its own: blocks of 8-bit weights with scales."""
        model = helpers.shared("data", "models", "fixtures", "rand_deepseek_v3_fp8")
        with open(os.path.join(model, "config.json")) as f:
            windows = small_models.windows(json.load(f), 2, 24)
        expected = backward_reference.grams(model, windows, 0)
        out, _ = self.compute(model, windows)
        with h5py.File(out, "r") as f:
            for name in f:
                if name in expected:
                    self.assertLess(difference(f[name][()], expected[name]), TOLERANCE)

    def test_trained_model(self):
        """Gradients of a model that has learned something, over windows of its own text."""
        out, ids = self.path("s.h5"), self.path("ids.i32")
        options = "--sequences", 3, "--length", 64, "--seed", 4
        helpers.succeed("tokenize", helpers.MODEL, "--text", helpers.CALIBRATION, "-o", ids)
        result = helpers.succeed("sensitivity", helpers.MODEL, "--token-file", ids, "-o", out, *options, "--json")
        windows = np.fromfile(ids, "<i4")[:3 * 64].reshape(3, 64)
        expected = backward_reference.grams(helpers.MODEL, windows, 4)
        with h5py.File(out, "r") as f:
            self.assertEqual(f.attrs["format"], b"snrq-sensitivity")
            self.assertEqual([f.attrs[key] for key in ("format_version", "tokens", "length", "seed", "tile_rows")],
                             [2, 192, 64, 4, 64])
            worst = max(difference(f[name][()], expected[name]) for name in f if name in expected)
        print("largest difference %.1e" % worst)
        self.assertLess(worst, TOLERANCE)
        self.assertEqual({key: result.json()[key] for key in ("file", "modules", "windows", "length", "tokens")},
                         {"file": out, "modules": 42, "windows": 3, "length": 64, "tokens": 192})

    def test_labels_are_drawn_from_the_model(self):
        """Their mean loss is the mean entropy of its distribution, up to what chance does."""
        model = forward_reference.Model(helpers.MODEL)
        ids = self.path("ids.i32")
        helpers.succeed("tokenize", helpers.MODEL, "--text", helpers.CALIBRATION, "-o", ids)
        options = "--token-file", ids, "--sequences", 4, "--length", 128, "-o", self.path("s.h5"), "--json"
        losses = [helpers.succeed("sensitivity", helpers.MODEL, *options, "--seed", seed).json()["label_loss"]
                  for seed in range(6)]
        windows = np.fromfile(ids, "<i4")[:512].reshape(4, 128)
        lp = np.concatenate([model.log_p(row) for row in windows])
        entropy = -(np.exp(lp) * lp).sum(axis=1)
        deviation = np.sqrt(((np.exp(lp) * lp ** 2).sum(axis=1) - entropy ** 2).mean() / lp.shape[0])
        self.assertEqual(len(set(losses)), 6)
        for loss in losses:
            self.assertLess(abs(loss - entropy.mean()), 4 * deviation)

    def test_same_bytes(self):
        """On any number of ranks and threads, and however many sequences are taken at a time."""
        for name, config in (("llama", small_models.LLAMA_WITH_BIASES), ("deepseek", small_models.DEEPSEEK_V3)):
            model = small_models.write(self.path(name), config)
            windows, hashes = small_models.windows(config, 7, 40), set()
            ways = [{"ranks": ranks} for ranks in (0, 1, 2, 3, 4)] + [{"threads": 3}, {"ranks": 2, "threads": 2}]
            for number, how in enumerate(ways):
                out, _ = self.compute(model, windows, name="%s%d" % (name, number), **how)
                hashes.add(helpers.sha256(out))
            for number, memory in enumerate(("1", "100KB")):  # one sequence at a time; some
                for ranks in (1, 3):
                    out, _ = self.compute(model, windows, "--pass-memory", memory, ranks=ranks,
                                          name="%s-%d-%d" % (name, number, ranks))
                    hashes.add(helpers.sha256(out))
            self.assertEqual(len(hashes), 1, name)

    def test_progress(self):
        result = helpers.succeed("sensitivity", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--sequences", 4,
                                 "--length", 64, "-o", self.path("s.h5"))
        self.assertRegex(result.stderr, r"memory: \d+ MB per rank")
        self.assertRegex(result.stderr, r"back through block 1 of 6 done, left 0:00")
        self.assertRegex(result.stdout, r"s.h5: 42 modules, 2.0 MB; 256 tokens in 4 windows; loss of the drawn labels \d\.")

    def refuse(self, status, message, *arguments, ranks=0):
        result = helpers.run("sensitivity", *arguments, ranks=ranks)
        self.assertEqual(result.code, status, result.stderr)
        self.assertRegex(result.stderr, message)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith((".snrq", "s.h5"))], [])

    def test_bad_input(self):
        text, out = ("--calibration", helpers.CALIBRATION), ("-o", self.path("s.h5"))
        self.refuse(helpers.USAGE, "-o FILE is missing", helpers.MODEL, *text)
        self.refuse(helpers.USAGE, "either --calibration TEXT or --token-file FILE", helpers.MODEL, *out)
        self.refuse(helpers.USAGE, "--bits does not belong", helpers.MODEL, *text, *out, "--bits", 3)
        self.refuse(helpers.NO_INPUT, "nowhere", self.path("nowhere"), *text, *out)
        self.refuse(helpers.NO_INPUT, "nothing.txt", helpers.MODEL, "--calibration", self.path("nothing.txt"), *out)
        self.refuse(helpers.CANNOT_WRITE, "there is no directory", helpers.MODEL, *text, "-o", self.path("no", "s.h5"))
        self.refuse(helpers.CANNOT_WRITE, "found a directory", helpers.MODEL, *text, "-o", self.folder)
        self.refuse(helpers.CANNOT_WRITE, "not written from front to back", helpers.MODEL, *text, "-o", "-")
        quantized = self.path("OUT")
        helpers.quantize(quantized)
        self.refuse(helpers.USAGE, "expected a Hugging Face checkpoint, found the output", quantized, *text, *out, ranks=2)

    def test_what_is_there_stays_until_the_end(self):
        """A run that fails leaves the file that is there."""
        path, config = self.path("s.h5"), dict(small_models.LLAMA_WITH_BIASES)
        model = small_models.write(self.path("model"), config)
        with open(path, "w") as f:
            f.write("older")
        ids = self.path("ids.i32")
        helpers.write_ids(ids, small_models.windows(config, 2, 24))
        weights = os.path.join(model, "model.safetensors")
        with open(weights, "r+b") as f:  # the last norm becomes infinite
            f.seek(-4, os.SEEK_END)
            f.write(np.float32(np.inf).tobytes())
        result = helpers.run("sensitivity", model, "--token-file", ids, "--length", 24, "-o", path, ranks=2)
        self.assertEqual(result.code, helpers.BAD_DATA, result.stderr)
        with open(path) as f:
            self.assertEqual(f.read(), "older")
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".snrq")], [])


if __name__ == "__main__":
    helpers.main()
