"""--recipe: rules for some modules, on any number of ranks, after a kill, in exports; and what is refused."""
import json
import os

import h5py

import helpers

RULES = [{"modules": "*.down_proj", "blocks": "0-1", "bits": 8, "group-size": 32},
         {"modules": ["self_attn.q_proj", "self_attn.[kv]_proj"], "blocks": "3,5", "bits": 4, "alpha": "fixed:0.25"},
         {"modules": "model.layers.5.mlp.*", "bits": 2, "method": "gptq", "group-size": "channel"}]


class Recipe(helpers.Test):
    def recipe(self, rules=RULES, name="recipe.json"):
        with open(self.path(name), "w") as f:
            f.write(rules if isinstance(rules, str) else json.dumps({"rules": rules} if isinstance(rules, list) else rules))
        return self.path(name)

    def arguments(self, out, *more):
        return helpers.with_options(["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out, "--bits", 3,
                                     "--group-size", 64, "--beam", 2, "--sequences", 4, "--length", 64], *more)

    def quantize(self, name, *more, ranks=1):
        helpers.succeed(*self.arguments(self.path(name), *more), ranks=ranks)
        return self.path(name)

    def test_the_first_rule_that_matches_counts(self):
        out = self.quantize("out", "--recipe", self.recipe())
        seen = {}
        for record in helpers.manifest(out):
            for module in record.get("modules", []):
                seen[module["name"][len("model.layers."):]] = module
        self.assertEqual(len(seen), 42)
        for name, module in seen.items():
            block, below = int(name.split(".")[0]), name.split(".", 1)[1]
            bits, size, method, alpha = 3, 64, "ksnrq", "auto"
            if below == "mlp.down_proj" and block < 2:
                bits, size = 8, 32
            elif below in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") and block in (3, 5):
                bits, alpha = 4, "fixed:0.25"
            elif below.startswith("mlp") and block == 5:
                bits, size, method = 2, module["columns"], "gptq"
            found = module["bits"], module["group_size"], module["method"]
            self.assertEqual(found, (bits, size, method), name)
            if method == "ksnrq":
                self.assertEqual(module["alpha_rule"], alpha, name)
        with open(os.path.join(out, "snrq.json")) as f:
            self.assertEqual(json.load(f)["recipe"], RULES)

    def test_bytes_do_not_depend_on_ranks_and_kills(self):
        recipe = self.recipe()
        expected = helpers.weights(self.quantize("one", "--recipe", recipe))
        out = self.path("killed")
        helpers.kill_when(lambda: os.path.exists(os.path.join(out, "block-00001.h5")), *self.arguments(out, "--recipe", recipe),
                          ranks=2)
        helpers.succeed(*self.arguments(out, "--recipe", recipe), ranks=3)
        self.assertEqual(helpers.weights(out), expected)

    def test_rules_for_everything_are_as_options(self):
        options = helpers.weights(self.quantize("options", "--bits", 4, "--group-size", 32))
        recipe = self.recipe([{"modules": "*", "bits": 4, "group-size": 32}])
        self.assertEqual(helpers.weights(self.quantize("rules", "--recipe", recipe)), options)

    def test_another_recipe_does_not_resume(self):
        out = self.quantize("out", "--recipe", self.recipe())
        same = helpers.run(*self.arguments(out, "--recipe", self.recipe(RULES, "copy.json")))
        self.assertEqual(same.code, 0, same)
        for more in (["--recipe", self.recipe(RULES[:2], "other.json")], []):
            result = helpers.run(*self.arguments(out, *more))
            self.assertEqual(result.code, 64, result)
            self.assertIn("recipe", result.stderr)

    def test_exports_hold_it_or_say_why_not(self):
        out = self.quantize("out", "--recipe", self.recipe())
        for form in ("gguf", "safetensors", "gptq", "compressed-tensors"):
            helpers.succeed("export", out, "--format", form, "-o", self.path(form))
            self.assertIn("all equal", helpers.succeed("verify", out, "--export", self.path(form)).stdout)
        out = self.quantize("five", "--recipe", self.recipe([{"modules": "*.down_proj", "bits": 5}], "five.json"))
        result = helpers.run("export", out, "--format", "gptq", "-o", self.path("none"))
        self.assertEqual(result.code, 64)
        self.assertIn("5 bits, it knows 2, 3, 4 and 8", result.stderr)

    def test_the_plan_counts_its_bits(self):
        plan = helpers.succeed("plan", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--length", 64, "--sequences", 4, "--bits",
                               3, "--group-size", 64, "--recipe", self.recipe([{"modules": "*.down_proj", "bits": 8}]), "--json").json()
        down, rest = 128 * 384, 128 * 128 * 2 + 2 * 64 * 128 + 2 * 128 * 384
        each = 24 / 64  # a scale of 16 bits and a zero of 8 for 64 weights
        self.assertAlmostEqual(plan["bits_per_weight"], (8 * down + 3 * rest) / (down + rest) + each, places=9)

    def test_kept_modules(self):
        rules = [{"modules": "*.down_proj", "blocks": "5", "keep": True}, {"modules": "*", "blocks": "3", "keep": True}]
        recipe = self.recipe(rules)
        one = self.quantize("one", "--recipe", recipe)
        kept = json.load(open(os.path.join(one, "snrq.json")))["kept"]
        self.assertEqual([name.split(".", 3)[3] for name in kept if ".3." in name],
                         ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                          "mlp.up_proj", "mlp.down_proj"])
        self.assertEqual(kept[7:], ["model.layers.5.mlp.down_proj"])
        # Their weights are those of the model, and the files of blocks are without them.
        model = helpers.read_safetensors(os.path.join(helpers.MODEL, "model.safetensors"))
        with h5py.File(os.path.join(one, "rest.h5")) as rest:
            for name in kept:
                stored = rest[name + ".weight"]
                self.assertEqual(stored.attrs["dtype"].decode() if isinstance(stored.attrs["dtype"], bytes)
                                 else stored.attrs["dtype"], "BF16")
                self.assertEqual(stored[()].tobytes(), model[name + ".weight"][2], name)
        with h5py.File(os.path.join(one, "block-00003.h5")) as block:
            self.assertEqual(len(block), 0)
        records = {m["name"]: m for r in helpers.manifest(one) for m in r.get("modules", [])}
        self.assertEqual(len(records), 42 - 8)
        # What comes before is rounded as without the recipe.
        plain = helpers.weights(self.quantize("plain"))
        self.assertEqual([h for name, h in sorted(helpers.weights(one).items()) if "0000" in name][:3],
                         [h for name, h in sorted(plain.items()) if "0000" in name][:3])
        # Inspect shows both.
        shown = helpers.succeed("inspect", one).stdout
        self.assertIn('recipe rule 1: {"blocks":"5","keep":true,"modules":"*.down_proj"}', shown)
        self.assertRegex(shown, "model.layers.5.mlp.down_proj +kept in the model's type")
        # Killed and resumed on other numbers of ranks: the same bytes.
        out = self.path("killed")
        helpers.kill_when(lambda: os.path.exists(os.path.join(out, "block-00003.h5")), *self.arguments(out, "--recipe", recipe),
                          ranks=2)
        helpers.succeed(*self.arguments(out, "--recipe", recipe), ranks=3)
        self.assertEqual(helpers.weights(out), helpers.weights(one))
        # OUT, and the dequantized checkpoint made of it, are the same model.
        helpers.succeed("export", one, "--format", "safetensors", "--weights", "f32", "-o", self.path("dense"))
        figures = [helpers.succeed("evaluate", path, "--text", helpers.CALIBRATION, "--length", 64, "--sequences", 50,
                                   "--reference", helpers.MODEL, "--json").json() for path in (one, self.path("dense"))]
        self.assertAlmostEqual(figures[0]["kl"], figures[1]["kl"], places=6)

    def test_signs_of_scales_are_free_where_a_rule_has_the_choice(self):
        """Formats, asymmetric groups and other grids have none. Rules of either kind stand beside options of the other."""
        both, above = {True, False}, {False}
        symmetric = {"modules": "*.down_proj", "asymmetric": False}
        for name, more, rule, of_rule, of_others in (
                ("from-asymmetric", ["--asymmetric"], symmetric, both, above),
                ("from-a-format", ["--format", "q4_1"], {"modules": "*.down_proj", "bits": 3, "group-size": 64, "asymmetric": False}, both, above),
                ("positive", ["--asymmetric"], {**symmetric, "scale-signs": "positive"}, above, above),
                ("to-asymmetric", [], {"modules": "*.down_proj", "asymmetric": True}, above, both),
                ("to-minmax", [], {"modules": "*.down_proj", "grid": "minmax"}, above, both)):
            with self.subTest(name):
                options = self.arguments(self.path(name), *more, "--recipe", self.recipe([rule], name + ".json"))
                if "--format" in more:
                    for option in ("--bits", "--group-size"):
                        at = options.index(option)
                        del options[at:at + 2]
                helpers.succeed(*options)
                negative = {False: set(), True: set()}
                with h5py.File(self.path(name, "block-00002.h5")) as block:
                    for module in block.values():
                        negative[module.name.endswith("down_proj")] |= set((module["scales"][...] < 0).ravel().tolist())
                self.assertEqual((negative[True], negative[False]), (of_rule, of_others))

    def test_engines_are_thought_of_before_the_run(self):
        mixture = self.recipe([{"modules": "*.down_proj", "bits": 5}, {"modules": "*.o_proj", "keep": True}])
        halves = self.recipe([{"modules": "*.up_proj", "bits": 8}], "halves.json")
        floats = self.recipe([{"modules": "*.down_proj", "format": "mxfp4"}], "floats.json")
        apart = self.recipe([{"modules": "*.o_proj", "format": "fp8_block"}], "apart.json")
        for engine, more, words in (
                ("vllm", ["--recipe", halves], "block 0: it fuses mlp.gate_proj and mlp.up_proj, which have different settings"),
                ("transformers", ["--recipe", halves, "--bits", 4], None), ("llama.cpp", ["--recipe", halves], None),
                ("gptqmodel", ["--recipe", floats], "--for gptqmodel: no format that it reads holds modules with 4 bits"),
                ("llama.cpp", ["--recipe", floats], None), ("transformers", ["--recipe", apart, "--asymmetric"], "no format holds all of them: gptq not block 0 self_attn.o_proj"),
                ("gptqmodel", ["--recipe", mixture], "--for gptqmodel: no format that it reads holds modules with 5 bits: gptq: 5 bits"),
                ("vllm", ["--recipe", mixture], None), ("llama.cpp", ["--recipe", mixture], None),
                ("llama.cpp", ["--group-size", 48], "--for llama.cpp"), ("vllm-cpu", ["--recipe", mixture], "no kernel")):
            with self.subTest(engine=engine, more=more):
                result = helpers.run(*self.arguments(self.path("none"), "--dry-run", "--for", engine, *more))
                self.assertEqual(result.code, 64 if words else 0, result)
                self.assertIn(words or "", result.stderr)

    def test_units_in_parts(self):
        """Modules that share an input, each with a width of its own: the codes of a module that all options are for."""
        alone = {}
        for bits in (2, 3, 4):
            out = self.quantize("all-%d" % bits, "--bits", bits, "--regrid", 1)
            with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
                alone[bits] = {name: f[name]["codes"][...].tobytes() for name in f}
        rules = [{"modules": ["*.k_proj", "*.gate_proj"], "bits": 2}, {"modules": "*.v_proj", "bits": 4}]
        expected = None
        for ranks in (1, 2, 3):
            out = self.quantize("parts-%d" % ranks, "--regrid", 1, "--recipe", self.recipe(rules), ranks=ranks)
            expected = expected or helpers.weights(out)
            self.assertEqual(helpers.weights(out), expected)
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            for kind, bits in (("q", 3), ("k", 2), ("v", 4)):
                name = "model.layers.0.self_attn.%s_proj" % kind
                self.assertEqual(f[name]["codes"][...].tobytes(), alone[bits][name], name)
        helpers.succeed("evaluate", out, "--text", helpers.HELDOUT, "--sequences", 2, "--length", 32)
        for form in ("gptq", "compressed-tensors", "gguf"):
            directory = self.path(form)
            helpers.succeed("export", out, "--format", form, "-o", directory)
            helpers.succeed("verify", out, "--export", directory)

    def test_bad_recipes(self):
        cases = (([], 65, "expected 1 to 10000 rules, found 0"), ({"rule": []}, 65, 'key "rules" is missing'),
                 ({"rules": [{"modules": "*"}], "more": 1}, 65, 'expected the key "rules" alone'),
                 ([7], 65, "rule 1: expected an object"), ([{"bits": 3}], 65, 'rule 1: expected "modules"'),
                 ([{"modules": []}], 65, 'rule 1: expected "modules"'), ([{"modules": [3]}], 65, "rule 1: expected patterns"),
                 ([{"modules": "*", "blocks": "3-"}], 65, 'expected "blocks" as in "0-3,7"'),
                 ([{"modules": "*", "blocks": "5-3"}], 65, 'expected "blocks" as in "0-3,7"'),
                 ([{"modules": "*", "blocks": 3}], 65, 'expected "blocks" as in "0-3,7"'),
                 ([{"bits": 3}], 65, 'a pattern or a list of them, found nothing'),
                 ('{"rules": [{"modules": "*", "bits": 3, "bits": 4}]}', 65, "found several values: the key is given twice"),
                 ('{"rules": [{"modules": "*", "alpha": 1e999}]}', 65, "found a number beyond a double"),
                 ([{"modules": "*", "sequences": 3}], 65, 'found "sequences"'),
                 ([{"modules": "*", "bits": [3]}], 65, "expected a text, a number, true or false"),
                 ([{"modules": "*"}, {"modules": "*.router"}], 64, 'rule 2 matches no module with "*.router"'),
                 ([{"modules": ["*.q_proj", "*.query"]}], 64, 'rule 1 matches no module with "*.query"'),
                 ([{"modules": "*", "keep": True}], 64, "all modules are kept: nothing is left to quantize"),
                 ([{"modules": "*", "keep": True, "bits": 3}], 65, "rule 1: a module that is kept has no other settings"),
                 ([{"modules": "*", "keep": False}], 65, "keep (true)"),
                 ([{"modules": "*", "format": "q4_k", "bits": 4}], 64, 'rule 1: "format": "q4_k" says bits; leave it out'),
                 ([{"modules": "*", "format": "int3", "bits": 4}], 64, "rule 1: --format int3 says --bits 3"),
                 ([{"modules": "*", "blocks": "6-9"}], 64, "rule 1 matches no module"),
                 ([{"modules": "*", "bits": 9}], 64, "rule 1: --bits"), ([{"modules": "*", "method": "best"}], 64, "rule 1: --method"),
                 ([{"modules": "*.q_proj", "method": "ldlq"}], 64, "read the same input; give them the same keep, method"),
                 ([{"modules": "*.up_proj", "damp": 0.1}], 64, "mlp.gate_proj and mlp.up_proj read the same input"))
        for rules, code, message in cases:
            with self.subTest(message=message):
                result = helpers.run(*self.arguments(self.path("none"), "--recipe", self.recipe(rules)))
                self.assertEqual(result.code, code, result)
                self.assertIn(message, result.stderr)
                self.assertFalse(os.path.exists(self.path("none")))
        result = helpers.run(*self.arguments(self.path("none"), "--recipe", self.path("absent.json")))
        self.assertEqual(result.code, 66, result)


if __name__ == "__main__":
    helpers.main()
