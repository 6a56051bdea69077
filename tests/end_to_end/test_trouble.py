"""Numerical trouble: named, counted and handled; refused under --strict, or always where nothing can be done about it.

Models of random weights of which some are doctored. Every run is by itself and on two ranks.
"""
import json
import math
import os
import re
import tempfile

import numpy as np

import helpers
import small_models
from helpers import BAD_DATA

MODEL = small_models.LLAMA_WITH_BIASES  # F32, 40 inputs of q, k, v, gate and up, 48 of o, 56 of down
LENGTH = 32
OPTIONS = "--bits 3 --group-size channel --method snrq --asymmetric".split()
BLOCK = "model.layers.%d."


class Trouble(helpers.Test):
    def doctor(self, change=lambda tensors: None):
        """A model of which `change` alters tensors, which it gets as arrays by name."""
        model = small_models.write(self.fresh("model"), MODEL)
        path = os.path.join(model, "model.safetensors")
        tensors = {name: np.frombuffer(data, "<f4").reshape(shape).copy()
                   for name, (_, shape, data) in helpers.read_safetensors(path).items()}
        change(tensors)
        helpers.write_safetensors(path, {name: ("F32", list(values.shape), values.tobytes())
                                         for name, values in tensors.items()})
        return model

    def fresh(self, name):
        return os.path.join(tempfile.mkdtemp(dir=self.folder), name)

    def quantize(self, model, ranks, out, more=(), sequences=4, ids=None):
        if ids is None:
            ids = small_models.windows(MODEL, sequences, LENGTH)
        file = helpers.write_ids(self.path("ids.i32"), ids)
        return helpers.run("quantize", model, "--token-file", file, "--sequences", len(ids), "--length", LENGTH, "-o", out,
                           *helpers.with_options(OPTIONS, *more), ranks=ranks, timeout=60)

    def events(self, out, kind):
        with open(os.path.join(out, "run.jsonl")) as f:
            return [event for event in map(json.loads, f) if event["event"] == kind]

    def check_refused(self, model, words, committed, more=(), ranks=(0, 2), **how):
        """Ends with BAD_DATA and one message with all words, after so many blocks; nothing is left of the next."""
        for number in ranks:
            with self.subTest(ranks=number, more=more):
                out = self.fresh("out")
                result = self.quantize(model, number, out, more, **how)
                self.assertEqual(result.code, BAD_DATA, result)
                said = [line for line in result.stderr.splitlines() if line.startswith("snrq:")]
                self.assertEqual(len(said), 1, result)
                for word in words:
                    self.assertIn(word, said[0])
                blocks = {name for name in os.listdir(out) if name.startswith("block-")}
                self.assertEqual(blocks, {"block-%05d.h5" % i for i in range(committed)})
                end, = self.events(out, "end")
                self.assertEqual((end["state"], end["exit_code"]), ("failed", BAD_DATA))
                self.assertIn(end["message"], said[0])

    def check_usable(self, out):
        ids = helpers.write_ids(self.path("held-out.i32"), small_models.windows(MODEL, 2, LENGTH)[:, ::-1])
        result = helpers.succeed("evaluate", out, "--token-file", ids, "--length", LENGTH, "--json").json()
        self.assertTrue(math.isfinite(result["perplexity"]))

    def check_warned(self, model, trouble, block, modules, figures, words, more=(), committed=None, **how):
        """Told in one line and one event, counted at the end, the same bytes on one rank and two; --strict refuses."""
        weights = []
        for ranks in 0, 2:
            out = self.path("out-%d" % ranks)
            result = self.quantize(model, ranks, out, more, **how)
            self.assertEqual(result.code, 0, result)
            events = [e for e in self.events(out, "warning") if e["trouble"] == trouble]
            event = next(e for e in events if e["block"] == block)
            self.assertEqual(event["modules"], [BLOCK % block + name for name in modules])
            self.assertEqual((event["count"], event["of"], event["first"]), figures)
            for word in words:
                self.assertIn(word, event["message"])
            lines = [line for line in result.stderr.splitlines() if event["message"] in line]
            self.assertEqual(len(lines), 1, result)
            self.assertRegex(lines[0], helpers.TIME + "warning: " + re.escape(BLOCK % block))
            summary, = self.events(out, "summary")
            concerned = sum(len(e["modules"]) for e in events)
            self.assertEqual(summary["troubles"][trouble], concerned)
            self.assertIn("numerical trouble: %s in %d module" % (trouble, concerned), result.stderr)
            weights.append(helpers.weights(out))
        self.assertEqual(weights[0], weights[1])
        self.check_usable(out)
        refused = [BLOCK % block + modules[0], *words, "--strict"]
        self.check_refused(model, refused, block if committed is None else committed, [*more, "--strict"], **how)
        return out

    def dequantized(self, out):
        export = self.path("export")
        helpers.succeed("export", out, "--format", "safetensors", "--weights", "f32", "-o", export)
        tensors = helpers.read_safetensors(os.path.join(export, "model.safetensors"))
        return {name: np.frombuffer(data, "<f4").reshape(shape) for name, (_, shape, data) in tensors.items()}

    def test_no_trouble_no_word(self):
        out = self.path("out")
        result = self.quantize(self.doctor(), 2, out, ["--strict"])
        self.assertEqual(result.code, 0, result)
        self.assertNotIn("warning", result.stderr)
        self.assertNotIn("trouble", result.stderr)
        self.assertEqual(self.events(out, "warning"), [])
        self.assertEqual(self.events(out, "summary")[0]["troubles"], {})

    def test_dead_inputs(self):
        def change(tensors):
            tensors["model.layers.1.input_layernorm.weight"][[7, 30]] = 0
            tensors["model.layers.1.self_attn.k_proj.weight"][3] = 0.25
        names = ["self_attn.%s_proj" % name for name in "qkv"]
        out = self.check_warned(self.doctor(change), "dead_inputs", 1, names, (2, 40, 7),
                                ["self_attn.q_proj + k_proj + v_proj", "2 of 40 inputs", "column 7"])
        constant, = [e for e in self.events(out, "warning") if e["trouble"] == "constant_rows"]
        self.assertEqual((constant["modules"], constant["first"]), ([BLOCK % 1 + names[1]], 3))
        weights = self.dequantized(out)
        for name in names:
            found = weights["model.layers.1.%s.weight" % name]
            self.assertFalse(found[:, [7, 30]].any())
            self.assertTrue(found[:, 8].any())

    def test_fewer_tokens_than_inputs(self):
        """32 tokens: too few for all modules of the model, and told once for each kind of input."""
        out = self.check_warned(self.doctor(), "few_tokens", 0, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                                (32, 40, 0), ["32 calibration tokens for 40 inputs"], sequences=1)
        self.assertEqual(len(self.events(out, "warning")), 3 * 4)

    def test_raised_damping(self):
        """The same token throughout, without damping: H has rank one."""
        ids = np.full((2, LENGTH), 5)
        self.check_warned(self.doctor(), "raised_damping", 0, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                          (0, 0, 0), ["H was not positive definite; damping raised to"], ["--damp", "0", "--shrink", "0"], ids=ids)

    def test_rows_of_zeros(self):
        def change(tensors):
            tensors["model.layers.2.mlp.gate_proj.weight"][[3, 55]] = 0
        out = self.check_warned(self.doctor(change), "zero_rows", 2, ["mlp.gate_proj"], (2, 56, 3),
                                ["2 of 56 rows are zero", "row 3"])
        found = self.dequantized(out)["model.layers.2.mlp.gate_proj.weight"]
        self.assertEqual([r for r in range(56) if not found[r].any()], [3, 55])

    def test_constant_rows(self):
        def change(tensors):
            tensors["model.layers.0.mlp.down_proj.weight"][39] = -0.125
        self.check_warned(self.doctor(change), "constant_rows", 0, ["mlp.down_proj"], (1, 40, 39),
                          ["1 of 40 rows hold one and the same weight", "row 39"])

    def test_scales_too_small_for_their_type(self):
        def change(tensors):
            tensors["model.layers.1.self_attn.o_proj.weight"][4] *= 1e-8
        model = self.doctor(change)
        self.check_warned(model, "lost_groups", 1, ["self_attn.o_proj"], (1, 40, 4),
                          ["1 of 40 groups are too small for F16 scales", "row 4", "--scale-type bf16 or f32"],
                          ["--compensate", "0"])
        out = self.path("out-f32")
        self.assertEqual(self.quantize(model, 0, out, ["--scale-type", "f32", "--strict"]).code, 0)
        self.assertTrue(self.dequantized(out)["model.layers.1.self_attn.o_proj.weight"][4].any())

    def test_scales_too_large_for_their_type(self):
        def change(tensors):
            tensors["model.layers.1.mlp.up_proj.weight"][[9, 21]] *= 1e6
        model = self.doctor(change)
        self.check_refused(model, ["model.layers.1.mlp.up_proj", "row 9", "F16", "--scale-type bf16 or f32"], committed=1)
        out = self.path("out")
        self.assertEqual(self.quantize(model, 2, out, ["--scale-type", "bf16"]).code, 0)
        self.check_usable(out)

    def test_weights_that_are_no_numbers(self):
        def module(tensors):
            tensors["model.layers.1.mlp.down_proj.weight"][30, 50] = np.nan
        def dead(tensors):  # a NaN that calibration would never see
            tensors["model.layers.1.post_attention_layernorm.weight"][0] = 0
            tensors["model.layers.1.mlp.up_proj.weight"][2, 0] = np.inf
        def head(tensors):
            tensors["lm_head.weight"][63, 39] = -np.inf
        def bias(tensors):
            tensors["model.layers.2.self_attn.v_proj.bias"][5] = np.nan
        for change, words in ((module, ["model.layers.1.mlp.down_proj.weight", "row 30, column 50"]),
                              (dead, ["model.layers.1.mlp.up_proj.weight", "row 2, column 0"]),
                              (head, ["lm_head.weight", "row 63, column 39"]),
                              (bias, ["model.layers.2.self_attn.v_proj.bias", "not finite at 5"])):
            with self.subTest(change=change.__name__):
                self.check_refused(self.doctor(change), words, committed=1 if change in (module, dead) else 0)

    def test_activations_that_are_no_numbers(self):
        """One token's activations overflow, and only the last sequence has that token."""
        token = 63
        def change(tensors):
            tensors["model.embed_tokens.weight"][:, 0] = 0
            tensors["model.embed_tokens.weight"][token, 0] = 1
            tensors["model.layers.0.self_attn.o_proj.weight"][0] = 0
            tensors["model.layers.0.self_attn.o_proj.bias"][0] = 0
            for name in "gate", "up":
                tensors["model.layers.0.mlp.%s_proj.weight" % name][5, 0] = 1e30
        ids = small_models.windows(MODEL, 4, LENGTH) % token
        ids[3, 10] = token
        words = ["the input of model.layers.0.mlp.down_proj", "column 5", "not finite"]
        model, more = self.doctor(change), ["--scale-type", "f32"]
        self.check_refused(model, [*words, "sequence 3 of this rank"], 0, more, ranks=[0], ids=ids)
        self.check_refused(model, [*words, "rank 1", "sequence 1 of this rank"], 0, more, ranks=[2], ids=ids)

    def test_output_of_the_last_module(self):
        """Nothing comes after it in which one would notice."""
        def change(tensors):
            tensors["model.layers.2.mlp.down_proj.weight"][8, :] *= 1e38
        self.check_refused(self.doctor(change), ["model.layers.2.mlp.down_proj", "output is not finite", "sequence 0 (rank 0)"],
                           2, ["--scale-type", "f32", "--method", "rtn"])

    def test_one_layer(self):
        """`snrq round` tells of the same trouble."""
        random = np.random.default_rng(3)
        x = random.standard_normal((64, 16)).astype("<f4")
        x[:, 4] = 0
        w = random.standard_normal((8, 16)).astype("<f4")
        def write(name):
            tensors = {"W": w, "H": x.T @ x, "D": np.zeros((16, 16), "<f4")}
            helpers.write_safetensors(self.path(name), {k: ("F32", list(v.shape), v.astype("<f4").tobytes())
                                                        for k, v in tensors.items()})
            return self.path(name)
        case = write("case")
        self.assertIn("warning: W: 1 of 16 inputs are zero", helpers.succeed("round", case, *OPTIONS).stderr)
        for number in 0, 2:
            refused = helpers.run("round", case, *OPTIONS, "--strict", ranks=number)
            self.assertEqual((refused.code, refused.stdout), (BAD_DATA, ""), refused)
            self.assertIn("column 4", refused.stderr)
        w[3, 4] = np.nan  # also where nothing looks at it
        refused = helpers.run("round", write("nan"), *OPTIONS, ranks=2)
        self.assertEqual(refused.code, BAD_DATA, refused)
        self.assertIn("tensor 'W' is not finite at row 3, column 4", refused.stderr)


if __name__ == "__main__":
    helpers.main()
