"""Quantized embeddings and heads, by a recipe and by --preset: nearest values, the same on any number of ranks and after a
kill, in evaluations and exports; the types of presets beside those of llama.cpp's llama_model_quantize()."""
import json
import os
import shutil

import h5py
import numpy as np

import helpers
import small_models
import test_export_gguf as gguf

LLAMA = dict(small_models.LLAMA_WITH_BIASES, num_hidden_layers=1, hidden_size=256, intermediate_size=256, head_dim=64,
             attention_bias=False, mlp_bias=False, rope_scaling=None)
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]

# Types of attn_v, ffn_down, attn_output and attn_k, layer by layer, of embeddings and output, as llama_model_quantize() of
# llama-cpp-py-sync 0.11739 says for a model of 9 layers with 4 query heads on one key head, and one with 8 experts.
NINE = {"q2_k": ["q4_k", "q3_k", "q3_k", "q2_k"],
        "q2_k_s": ["q4_k", "q4_k " + 8 * "q2_k ", "q2_k", "q2_k"],
        "q3_k_m": ["q5_k q5_k " + 7 * "q4_k ", "q4_k", "q4_k", "q3_k"],
        "q4_k_s": [4 * "q5_k " + 5 * "q4_k ", "q5_k " + 8 * "q4_k ", "q4_k", "q4_k"],
        "q4_k_m": 2 * ["q6_k q4_k q4_k q6_k q4_k q4_k q6_k q6_k q6_k"] + ["q4_k", "q4_k"]}
EXPERTS = {"q2_k": ["q8_0", "q3_k", "q5_k", "q8_0"], "q4_k_m": ["q8_0", "q4_k q4_k q6_k q6_k", "q5_k", "q8_0"]}


class Tables(gguf.ExportTest):
    def model(self, **changed):
        model = self.path("model")
        shutil.rmtree(model, ignore_errors=True)
        small_models.write(model, dict(LLAMA, **changed))
        return model

    def recipe(self, *rules):
        with open(self.path("recipe.json"), "w") as f:
            json.dump({"rules": rules}, f)
        return self.path("recipe.json")

    def arguments(self, model, out, *options):
        ids = helpers.write_ids(self.path("ids"), np.arange(4000) * 7 % 64)
        return ["quantize", model, "--token-file", ids, "-o", out, "--sequences", 2, "--length", 32, "--held-out", 0, *options]

    def quantize(self, model, *options, name="out", ranks=1):
        out = self.path(name)
        shutil.rmtree(out, ignore_errors=True)
        helpers.succeed(*self.arguments(model, out, *options), ranks=ranks)
        return out

    def both(self, format_of_embedding="q4_k", **of_head):
        return self.recipe({"modules": "embed_tokens", "format": format_of_embedding},
                           dict({"modules": [HEAD, "*.o_proj"]}, **(of_head or {"format": "q6_k"})))

    def values_of(self, out):
        with h5py.File(os.path.join(out, "tables.h5"), "r") as f:
            return {name: gguf.dequantize(f[name]) for name in f}

    def test_values_are_the_nearest(self):
        model = self.model()
        for kind, head in (("q4_k", {"format": "q6_k"}), ("iq4_nl", {"bits": 8, "group-size": 32, "asymmetric": True})):
            out = self.quantize(model, "--bits", 3, "--group-size", 64, "--recipe", self.both(kind, **head))
            weights = helpers.read_safetensors(os.path.join(model, "model.safetensors"))
            with h5py.File(os.path.join(out, "tables.h5"), "r") as f:
                self.assertEqual(set(f), {EMBEDDING, HEAD})
                for name in f:
                    module, found = f[name], gguf.dequantize(f[name])
                    _, shape, data = weights[name + ".weight"]
                    wanted = np.frombuffer(data, "<f4").reshape(shape)
                    levels = np.arange(1 << module.attrs["bits"])
                    if kind == "iq4_nl" and name == EMBEDDING:
                        levels = np.array(IQ4)
                    group = module["g_idx"][...]
                    scale, zero = module["scales"][...].astype(float)[:, group], module["zeros"][...][:, group]
                    least = module["minima"][...].astype(float)[:, group] if "minima" in module else 0
                    distance = np.min([np.abs(scale * (level - zero.astype(float)) - least - wanted) for level in levels], axis=0)
                    self.assertTrue((np.abs(found - wanted) <= distance + 1e-6 * np.abs(wanted).max()).all(), name)
                    self.assertLess(np.square(found - wanted).mean(), 0.02 * np.square(wanted).mean(), name)

    def test_ranks_kills_and_layers_without_them(self):
        model = self.model(num_hidden_layers=3)
        more = ["--format", "q4_0", "--method", "rtn", "--recipe", self.both()]
        expected = helpers.weights(self.quantize(model, *more))
        for ranks in (2, 3):
            self.assertEqual(helpers.weights(self.quantize(model, *more, ranks=ranks)), expected)
        out = self.path("killed")
        helpers.kill_when(lambda: any("tables" in record for record in helpers.manifest(out)), *self.arguments(model, out, *more),
                          ranks=2)
        helpers.succeed(*self.arguments(model, out, *more), ranks=1)
        self.assertEqual(helpers.weights(out), expected)
        rest = helpers.weights(self.quantize(model, "--format", "q4_0", "--method", "rtn"))
        star = helpers.weights(self.quantize(model, *more[:4], "--recipe", self.recipe({"modules": "*", "format": "q5_0"})))
        self.assertNotIn("tables.h5", star)
        self.assertEqual(star["rest.h5"], rest["rest.h5"])

    def test_evaluation_and_exports(self):
        out = self.quantize(self.model(), "--format", "q3_k", "--recipe", self.both())
        values = self.values_of(out)
        directory = self.export(out)
        helpers.succeed("verify", out, "--export", directory)
        _, weights = gguf.read_gguf(os.path.join(directory, "model.gguf"))
        for name, source, kind in (("token_embd.weight", EMBEDDING, "Q4_K"), ("output.weight", HEAD, "Q6_K")):
            self.assertEqual(weights[name][0], kind)
            self.assertTrue(gguf.same(weights[name][1], values[source]), name)
        dense = self.path("dense")
        helpers.succeed("export", out, "--format", "safetensors", "--weights", "f32", "-o", dense)
        helpers.succeed("verify", out, "--export", dense)
        figures = [json.loads(helpers.succeed("evaluate", path, "--token-file", self.path("ids"), "--sequences", 2, "--length", 32,
                                              "--json").stdout)["mean_token_loss"] for path in (out, dense)]
        self.assertAlmostEqual(*figures, delta=1e-6)
        result = helpers.run("export", out, "--format", "gguf", "-o", self.path("no"), "--embedding-type", "q8_0")
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("leave --embedding-type out", result.stderr)

    def test_the_head_as_codes(self):
        """In compressed-tensors: 8 bits in words, F16 scales; embeddings are dense beside them."""
        recipe = self.recipe({"modules": "embed_tokens", "format": "q4_k"}, {"modules": HEAD, "bits": 8, "group-size": 64})
        out = self.quantize(self.model(), "--bits", 4, "--group-size", 32, "--method", "rtn", "--recipe", recipe)
        values, seen = self.values_of(out), []
        for ranks in (1, 2):
            directory = self.path("head-%d" % ranks)
            helpers.succeed("export", out, "--format", "compressed-tensors", "--head", "codes", "-o", directory, ranks=ranks)
            helpers.succeed("verify", out, "--export", directory, ranks=ranks)
            seen.append(helpers.sha256(os.path.join(directory, "model.safetensors")))
        self.assertEqual(*seen)
        tensors = helpers.read_safetensors(os.path.join(directory, "model.safetensors"))
        read = lambda name, kind: np.frombuffer(tensors[name][2], kind).reshape(tensors[name][1][0], -1)
        codes = read(HEAD + ".weight_packed", "u1").astype(np.float32) - 128
        found = np.repeat(read(HEAD + ".weight_scale", "<f2").astype(np.float32), 64, axis=1) * codes
        self.assertTrue(np.array_equal(found, values[HEAD]))
        self.assertTrue(np.array_equal(read(EMBEDDING + ".weight", "<f4"), values[EMBEDDING]))
        with open(os.path.join(directory, "config.json")) as f:
            described = json.load(f)["quantization_config"]
        self.assertEqual(described["ignore"], [])
        self.assertEqual([g["weights"]["num_bits"] for g in described["config_groups"].values() if HEAD in g["targets"]], [8])
        with open(os.path.join(directory, "model.safetensors"), "r+b") as f:
            data = f.read()
            at = data.index(tensors[HEAD + ".weight_packed"][2])
            f.seek(at + 1)
            f.write(bytes([data[at + 1] ^ 1]))
        result = helpers.run("verify", out, "--export", directory)
        self.assertEqual(result.code, helpers.BAD_DATA, result)
        self.assertIn("lm_head", result.stderr)
        for head, words in (({"format": "q6_k"}, "has F32 scales"), ({"format": "q4_1"}, "export to gguf"), (None, "is not quantized")):
            recipe = ["--recipe", self.recipe(dict({"modules": HEAD}, **head))] if head else []
            out = self.quantize(self.model(), "--bits", 4, "--group-size", 32, "--method", "rtn", *recipe)
            result = helpers.run("export", out, "--format", "compressed-tensors", "--head", "codes", "-o", self.path("no"))
            self.assertEqual(result.code, helpers.USAGE, result)
            self.assertIn(words, result.stderr)

    def test_the_stream_starts_from_rounded_embeddings(self):
        """Where blocks keep their weights, all of the mismatch is from there."""
        model = self.model()
        out = self.quantize(model, "--bits", 8, "--group-size", 32, "--recipe", self.recipe({"modules": EMBEDDING, "bits": 2}))
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            self.assertGreater(f["model.layers.0.self_attn.q_proj"].attrs["model_error"], 0.05)
        out = self.quantize(model, "--bits", 8, "--group-size", 32)
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            self.assertLess(f["model.layers.0.self_attn.q_proj"].attrs["model_error"], 0.01)

    def test_tied_weights_are_one(self):
        model = self.model(tie_word_embeddings=True)
        result = helpers.run(*self.arguments(model, self.path("x"), "--recipe", self.recipe({"modules": HEAD, "bits": 4})))
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn('no module with "lm_head"', result.stderr)
        out = self.quantize(model, "--preset", "q2_k", "--method", "rtn")
        with h5py.File(os.path.join(out, "tables.h5"), "r") as f:
            self.assertEqual({name: f[name].attrs["format"] for name in f}, {EMBEDDING: b"q6_k"})

    def check_preset(self, model, preset, expected, layers):
        out = self.quantize(model, "--preset", preset, "--method", "rtn", "--grid", "minmax")
        kinds, tables = {}, {}
        for record in helpers.manifest(out):
            for module in record.get("modules", []):
                kinds.setdefault(module["name"].split(".")[-1], []).append(module["format"])
            tables.update((table["name"], table["format"]) for table in record.get("tables", []))
        usual = preset[:4]
        self.assertEqual(tables, {EMBEDDING: usual, HEAD: "q6_k"})
        down = "w2" if "w2" in kinds else "down_proj"
        for kind, types in zip(("v_proj", down, "o_proj", "k_proj"), expected):
            types, found = types.split(), kinds[kind]
            each = len(found) // layers
            wanted = [t for t in (types if len(types) > 1 else layers * types) for _ in range(each)]
            self.assertEqual(found, wanted, (preset, kind))
        for kind in {"q_proj", "gate_proj", "up_proj", "w1", "w3"} & set(kinds):
            self.assertEqual(set(kinds[kind]), {usual}, (preset, kind))

    def test_presets_have_the_types_of_llama_quantize(self):
        model = self.model(num_hidden_layers=9, num_key_value_heads=1)
        for preset, expected in NINE.items():
            self.check_preset(model, preset, expected, 9)
        shutil.rmtree(model)
        small_models.write(model, dict(small_models.MIXTRAL, num_hidden_layers=4, hidden_size=256, intermediate_size=256,
                                       num_local_experts=8))
        for preset, expected in EXPERTS.items():
            self.check_preset(model, preset, expected, 4)

    def test_presets_of_narrow_models(self):
        """As llama_model_quantize() does with SmolLM2: Q4_0 for Q2_K and Q3_K, Q8_0 for Q6_K where 256 does not divide rows."""
        out = self.quantize(self.model(hidden_size=320), "--preset", "q2_k", "--method", "rtn", "--grid", "minmax")
        found = {module["name"].split(".")[-1]: module["format"] for record in helpers.manifest(out)
                 for module in record.get("modules", []) + record.get("tables", [])}
        narrow = dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens"), "q4_0")
        self.assertEqual(found, dict(narrow, o_proj="q3_k", down_proj="q3_k", lm_head="q8_0"))

    def test_refusals(self):
        for more, message in ((["--format", "q4_k"], "leave out --format"), (["--bits", 3], "says it"),
                              (["--recipe", self.recipe({"modules": "*", "bits": 3})], "leave out --recipe")):
            result = helpers.run(*self.arguments(self.model(), self.path("x"), "--preset", "q4_k_m", *more))
            self.assertEqual(result.code, helpers.USAGE, result)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    helpers.main()
