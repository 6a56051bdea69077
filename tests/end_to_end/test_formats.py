"""Formats of --format: quantized, exported and read by the numpy reader of test_export_gguf.py, on any number of ranks
the same; what narrow models get; what is refused; that the error is below that of plain rounding."""
import json
import os
import shutil

import h5py
import numpy as np

import helpers
import small_models
import test_export_gguf as gguf

FORMATS = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"]
FLOATS = ["nvfp4", "fp8_block"]  # what GGUF files do not have here
NARROW = {"q2_k": "Q4_0", "q3_k": "Q4_0", "q4_k": "Q5_0", "q5_k": "Q5_1", "q6_k": "Q8_0", "iq4_xs": "IQ4_NL"}


class Formats(gguf.ExportTest):
    def wide(self):
        config = dict(small_models.LLAMA_WITH_BIASES, num_hidden_layers=1, hidden_size=256, intermediate_size=512, head_dim=64)
        model = small_models.write(self.path("model"), config)
        ids = helpers.write_ids(self.path("ids"), np.arange(4000) * 7 % config["vocab_size"])
        return model, ids

    def round(self, model, ids, *options, ranks=1, name="out"):
        out = self.path(name)
        shutil.rmtree(out, ignore_errors=True)
        helpers.succeed("quantize", model, "--token-file", ids, "-o", out, "--sequences", 4, "--length", 64, *options,
                        ranks=ranks)
        return out

    def test_every_format(self):
        model, ids = self.wide()
        for name in FORMATS:
            with self.subTest(format=name):
                out = self.round(model, ids, "--format", name)
                self.check(out, name.upper())
                with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
                    module = f["model.layers.0.mlp.down_proj"]
                    self.assertEqual(module.attrs["format"].decode(), name)
                    known = name in ("q4_0", "q5_0", "q8_0", "q3_k", "q6_k")
                    self.assertEqual(f.attrs["format_version"], 1 if known else 2)

    def test_same_bytes(self):
        model, ids = self.wide()
        for name in ("q2_k", "iq4_xs", "mxfp4", "nvfp4", "fp8_block"):
            seen = set()
            for ranks in (1, 3):
                out = self.round(model, ids, "--format", name, "--beam", 4, ranks=ranks)
                with open(os.path.join(out, "block-00000.h5"), "rb") as f:
                    seen.add(f.read())
            self.assertEqual(len(seen), 1, name)

    def objective(self, out):
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            return {name: f[name].attrs["output_error"] for name in f}

    def test_below_plain_rounding(self):
        model, ids = self.wide()
        fixed = ["--alpha", "fixed:0", "--shrink", "0"]
        for name in ("q4_1", "q2_k", "q3_k", "q4_k", "iq4_xs", "mxfp4", *FLOATS):  # of each kind of scale and level one
            ours = self.objective(self.round(model, ids, "--format", name, *fixed))
            plain = self.objective(self.round(model, ids, "--format", name, "--method", "rtn"))
            # the first unit: its input does not depend on what was rounded before
            module = "model.layers.0.self_attn.q_proj"
            self.assertLess(ours[module], 0.9 * plain[module], name)

    def test_narrow_models(self):
        for name, kind in NARROW.items():
            out = self.path("out")
            shutil.rmtree(out, ignore_errors=True)
            result = helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out, "--format",
                                     name, "--sequences", 2, "--length", 32, "--method", "rtn")
            self.check(out, kind)  # inputs of 128 and 384
            self.assertRegex(result.stderr, r"(\d+) of \1 modules become " + kind.lower())
            self.assertRegex(result.stderr, r"formats +\d+ modules " + kind.lower())

    def test_refusals(self):
        result = helpers.run("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", self.path("x"),
                             "--format", "q4_0", "--target-bits", 3, "--assessment", self.path("a"))
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("leave one of the two out", result.stderr)
        result = helpers.run("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", self.path("x"),
                             "--format", "q4_k", "--bits", 3)
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("the format says it", result.stderr)
        result = helpers.run("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", self.path("x"),
                             "--format", "gguf")
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("q4_0", result.stderr)
        out = self.quantize("--format", "q4_1")
        for kind in ("gptq", "compressed-tensors"):
            result = helpers.run("export", out, "--format", kind, "-o", self.path("refused"))
            self.assertEqual(result.code, helpers.USAGE, result)
            self.assertIn("export to gguf", result.stderr)
        directory = self.path("dense")
        helpers.succeed("export", out, "--format", "safetensors", "--weights", "f32", "-o", directory)
        helpers.succeed("verify", out, "--export", directory)

    def test_row_feedback(self):
        model, ids = self.wide()
        file = self.path("sensitivity.h5")
        helpers.succeed("sensitivity", model, "--token-file", ids, "--sequences", 4, "--length", 64, "-o", file)
        for name in ("q4_k", "nvfp4"):
            how = ["--format", name, "--beam", 4, "--sensitivity", file]
            seen = [self.round(model, ids, *how, ranks=ranks, name="out-%d" % ranks) for ranks in (1, 2)]
            blocks = [helpers.sha256(os.path.join(out, "block-00000.h5")) for out in seen]
            self.assertEqual(blocks[0], blocks[1], name)
            alone = self.round(model, ids, *how[:4])
            self.assertNotEqual(blocks[0], helpers.sha256(os.path.join(alone, "block-00000.h5")))

    def test_mixed_floats(self):
        model, ids = self.wide()
        recipe = self.path("recipe")
        with open(recipe, "w") as f:
            json.dump({"rules": [{"modules": "*down_proj", "format": "nvfp4"}]}, f)
        out = self.round(model, ids, "--format", "mxfp4", "--recipe", recipe, "--method", "rtn")
        directory = self.path("mixed")
        helpers.succeed("export", out, "--format", "compressed-tensors", "-o", directory)
        helpers.succeed("verify", out, "--export", directory)
        for kind, words in (("gguf", "GGUF has no type for nvfp4"), ("fp8", "--format fp8_block"), ("gptq", "compressed")):
            result = helpers.run("export", out, "--format", kind, "-o", self.path("refused"))
            self.assertEqual(result.code, helpers.USAGE, result)
            self.assertIn(words, result.stderr)

    def test_rows_of_blocks_share_scales(self):
        """FP8: modules of 256 and 512 rows, in blocks of 128 of their own; powers of 2 that hold the largest weight."""
        model, ids = self.wide()
        out = self.round(model, ids, "--format", "fp8_block", "--method", "rtn", ranks=3)
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            for module in f.values():
                scales, codes = module["scales"][...], module["codes"][...].astype(int)
                blocks = scales.reshape(-1, min(128, len(scales)), scales.shape[1])
                self.assertTrue(np.all(blocks == blocks[:, :1]))
                self.assertTrue(np.all(np.frexp(scales)[0] == 0.5))
                levels = np.abs(codes - 126).reshape(*blocks.shape[:2], -1, 128).max((1, 3))
                self.assertTrue(np.all((levels >= 118) & (levels <= 126)))  # from 224 on, rounded
            tensor = {name: module.attrs.get("tensor_scale") for name, module in f.items()}
            self.assertEqual(set(tensor.values()), {None})

    def test_rows_shorter_than_a_block(self):
        model = small_models.write(self.path("model"), small_models.MISTRAL_WITH_WINDOW)  # inputs of 48 and 64
        ids = helpers.write_ids(self.path("ids"), np.arange(400) * 7 % 64)
        out = self.round(model, ids, "--format", "fp8_block", "--beam", 2)
        for name in ("fp8", "compressed-tensors", "safetensors"):
            helpers.succeed("export", out, "--format", name, "-o", self.path(name))
            self.assertIn("all equal", helpers.succeed("verify", out, "--export", self.path(name)).stdout)

    def test_modules_of_a_unit_share_their_number(self):
        model, ids = self.wide()
        out = self.round(model, ids, "--format", "nvfp4", "--method", "rtn", ranks=2)
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            of = lambda name: f["model.layers.0." + name].attrs["tensor_scale"]
            self.assertEqual(len({of("self_attn.%s_proj" % x) for x in "qkv"}), 1)
            self.assertEqual(of("mlp.gate_proj"), of("mlp.up_proj"))
            largest = max(f["model.layers.0.self_attn.%s_proj" % x]["scales"][...].max() for x in "qkv")
            self.assertTrue(112 <= largest / of("self_attn.q_proj") <= 240)

    def test_widths_as_formats(self):
        model, ids = self.wide()
        plain = ["--method", "rtn", "--group-size", 64]
        expected = helpers.weights(self.round(model, ids, "--bits", 3, *plain))
        self.assertEqual(helpers.weights(self.round(model, ids, "--format", "int3", *plain)), expected)
        recipe = self.path("recipe")
        with open(recipe, "w") as f:
            json.dump({"rules": [{"modules": "*", "format": "int3", "group-size": 64}]}, f)
        found = helpers.weights(self.round(model, ids, "--format", "q4_k", "--method", "rtn", "--recipe", recipe))
        self.assertEqual(found, expected)

    def case(self, weights, columns):
        """A case of `snrq round`, and its H."""
        x = np.random.default_rng(3).standard_normal((2 * columns, columns)) @ np.diag(np.linspace(0.2, 2, columns))
        h = (x.T @ x / len(x)).astype(np.float32)
        tensors = {"W": weights, "H": h}
        helpers.write_safetensors(self.path("case"), {name: ("F32", list(a.shape), a.astype("<f4").tobytes())
                                                      for name, a in tensors.items()})
        return self.path("case"), h.astype(float)

    def read_result(self, path):
        kinds = {"F32": "<f4", "I32": "<i4", "U8": "u1"}
        return {name: np.frombuffer(data, kinds[kind]).reshape(shape)
                for name, (kind, shape, data) in helpers.read_safetensors(path).items()}

    def test_round_does_as_quantize(self):
        """Of a method that looks at no data, the unit of gate and up."""
        model, ids = self.wide()
        names = ["model.layers.0.mlp.%s_proj" % kind for kind in ("gate", "up")]
        stored = helpers.read_safetensors(os.path.join(model, "model.safetensors"))
        weights = np.concatenate([np.frombuffer(stored[n + ".weight"][2], "<f4").reshape(stored[n + ".weight"][1]) for n in names])
        case, _ = self.case(weights, weights.shape[1])
        for name in ("q2_k", "nvfp4", "fp8_block"):  # minima, a number of the unit, scales that rows share
            how = ["--format", name, "--method", "rtn", "--grid", "mse"]
            out = self.round(model, ids, *how)
            helpers.succeed("round", case, *how, "-o", self.path("result"), ranks=2)
            found = self.read_result(self.path("result"))
            with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
                for part in ("scales", "zeros", "minima"):
                    self.assertEqual(part in found, part in f[names[0]], name)
                    if part in found:
                        rows = np.concatenate([f[n][part][...] for n in names])
                        self.assertTrue(np.array_equal(found[part], rows.astype(found[part].dtype)), (name, part))
                bits = f[names[0]].attrs["bits"]
                packed = np.concatenate([f[n]["codes"][...] for n in names])
                stream = np.unpackbits(packed, axis=1, bitorder="little")[:, : weights.shape[1] * bits]
                codes = stream.reshape(len(stream), weights.shape[1], bits) @ (1 << np.arange(bits))
                self.assertTrue(np.array_equal(found["codes"], codes), name)

    def test_round_with_formats(self):
        """The objective is that of the weights which the result stands for, and below that of nearest values."""
        weights = np.random.default_rng(4).standard_normal((24, 256)).astype(np.float32)
        case, h = self.case(weights, 256)
        h += 0.01 * np.trace(h) / 256 * np.eye(256)
        for name in ("q4_k", "mxfp4"):
            objective = {}
            for method in (["rtn"], ["ksnrq", "--alpha", "fixed:0"]):
                seen = set()
                for ranks in (1, 2) if name == "q4_k" and method[0] == "ksnrq" else (1,):
                    printed = helpers.succeed("round", case, "--format", name, "--grid", "hessian", "--method", *method, "--json",
                                              "-o", self.path("result"), ranks=ranks).json()
                    seen.add(helpers.sha256(self.path("result")))
                self.assertEqual(len(seen), 1)
                found = self.read_result(self.path("result"))
                book = gguf.BOOKS.get(name.encode())
                level = book[found["codes"]] if book is not None else found["codes"] - found["zeros"][:, found["g_idx"]]
                value = found["scales"][:, found["g_idx"]] * level
                if "minima" in found:
                    value = value - found["minima"][:, found["g_idx"]]
                miss = value.astype(float) - weights
                objective[method[0]] = printed["objective"]
                self.assertAlmostEqual(printed["objective"] / np.sum(miss @ h * miss), 1, delta=1e-4)
            self.assertLess(objective["ksnrq"], 0.8 * objective["rtn"], name)
        for columns, code, words in ((96, 0, "it becomes q5_0"), (40, helpers.USAGE, "W has 40 inputs")):
            case, _ = self.case(weights[:, :columns], columns)
            result = helpers.run("round", case, "--format", "q4_k", "--alpha", "fixed:0")
            self.assertEqual(result.code, code, result)
            self.assertIn(words, result.stderr)

    def test_widths_without_groups(self):
        model = helpers.shared("data", "models", "stories260K")
        result = helpers.run("quantize", model, "--calibration", helpers.CALIBRATION, "-o", self.path("x"), "--format",
                             "q4_k", "--sequences", 2, "--length", 32)
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("172 inputs", result.stderr)


if __name__ == "__main__":
    helpers.main()
