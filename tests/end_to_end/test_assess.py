"""assess and budgets: divergences against recipes that keep all but one step, widths against all there are, ranks, resumes."""
import json
import os

import h5py
import numpy as np

import helpers

FITTED, JUDGED, LENGTH = 4, 2, 48
WIDTHS = (2, 3, 4)


class Assess(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = helpers.temporary_folder(cls)
        ids = os.path.join(cls.folder, "all.i32")
        helpers.succeed("tokenize", helpers.MODEL, "--text", helpers.CALIBRATION, "-o", ids)
        tokens = np.fromfile(ids, "<i4")[: (FITTED + JUDGED) * LENGTH]
        cls.all = helpers.write_ids(os.path.join(cls.folder, "both.i32"), tokens)
        cls.fitted = helpers.write_ids(os.path.join(cls.folder, "fitted.i32"), tokens[: FITTED * LENGTH])
        cls.judged = helpers.write_ids(os.path.join(cls.folder, "judged.i32"), tokens[FITTED * LENGTH:])
        cls.one = os.path.join(cls.folder, "one")
        helpers.succeed(*cls.arguments(cls.one))
        with open(os.path.join(cls.one, "assessment.json")) as f:
            cls.found = json.load(f)

    @classmethod
    def arguments(cls, out, *more):
        return helpers.with_options(["assess", helpers.MODEL, "--token-file", cls.all, "--sequences", FITTED, "--length", LENGTH, "-o",
                                     out, "--group-size", 64, "--beam", 2, "--widths", "2,3,4", "--judged-windows", JUDGED], *more)

    def quantize(self, name, *more):
        helpers.succeed(*helpers.with_options(
            ["quantize", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "-o", self.path(name), "--group-size", 64,
             "--beam", 2, "--held-out", 0, "--first-tokens", 0], *more))
        return self.path(name)

    def recipe(self, rules):
        with open(self.path("recipe.json"), "w") as f:
            json.dump({"rules": rules}, f)
        return self.path("recipe.json")

    def test_divergence_is_that_of_a_model_with_one_step_rounded(self):
        for block, step, names in ((0, 3, ["mlp.down_proj"]), (4, 0, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])):
            for w, bits in ((0, 2), (2, 4)):
                with self.subTest(block=block, bits=bits):
                    out = self.quantize("%d-%d" % (block, bits), "--bits", bits, "--alpha", "fixed:0", "--recipe", self.recipe(
                        [{"modules": names, "blocks": str(block), "bits": bits}, {"modules": "*", "keep": True}]))
                    figures = helpers.succeed("evaluate", out, "--token-file", self.judged, "--length", LENGTH, "--reference",
                                              helpers.MODEL, "--json").json()
                    found = self.found["blocks"][block]["steps"][step]
                    self.assertEqual(found["divergence"][w]["bits"], bits)
                    kl = figures["kl"]
                    self.assertLess(abs(found["divergence"][w]["kl"] - kl), 1e-6 + 1e-4 * kl)
                    records = {m["name"]: m for r in helpers.manifest(out) for m in r.get("modules", [])}
                    self.assertEqual(len(records), len(names))
                    for module in found["units"][0]["modules"]:
                        width = module["widths"][w]
                        for key in ("objective", "output_error"):
                            self.assertAlmostEqual(width[key] / records[module["name"]][key], 1.0, places=9)
                        self.assertGreater(width["nearest_objective"], width["objective"])

    def test_weights_are_described(self):
        module = self.found["blocks"][2]["steps"][1]["units"][0]["modules"][0]
        self.assertEqual(module["name"], "model.layers.2.self_attn.o_proj")
        kind, shape, data = helpers.read_safetensors(os.path.join(helpers.MODEL, "model.safetensors"))[module["name"] + ".weight"]
        self.assertEqual(kind, "BF16")
        w = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        for key, value in (("least", w.min()), ("largest", w.max()), ("rms", np.sqrt((w ** 2).mean())),
                           ("kurtosis", (w ** 4).mean() / (w ** 2).mean() ** 2)):
            self.assertAlmostEqual(module["weights"][key], value, places=9)

    def test_bytes_do_not_depend_on_ranks_and_stops(self):
        out = self.path("resumed")
        helpers.succeed(*self.arguments(out), ranks=3, timeout=600)
        whole = os.path.join(out, "assessment.json")
        self.assertEqual(helpers.sha256(whole), helpers.sha256(os.path.join(self.one, "assessment.json")))
        for name in ("assess-00004.json", "assess-00005.json", "assessment.json"):
            os.remove(os.path.join(out, name))
        result = helpers.succeed(*self.arguments(out), ranks=2, timeout=600)
        self.assertIn("block 4/6  assessed before", result.stderr)
        self.assertEqual(helpers.sha256(whole), helpers.sha256(os.path.join(self.one, "assessment.json")))
        result = helpers.run(*self.arguments(out, "--group-size", 32))
        self.assertEqual(result.code, 64, result)
        self.assertIn("was made with other options", result.stderr)

    def points(self):
        """[(bytes, divergence) of each width] of every step, counted here."""
        out = []
        for block in self.found["blocks"]:
            for step in block["steps"]:
                modules = [m for unit in step["units"] for m in unit["modules"]]
                out.append([(sum(m["rows"] * (m["columns"] * bits // 8 + m["columns"] // 64 * 3) for m in modules),
                             self.share(bits) * step["divergence"][w]["kl"]) for w, bits in enumerate(WIDTHS)])
        return out

    def share(self, bits):
        """What the whole model has of the sum of divergences, with this width everywhere."""
        w = WIDTHS.index(bits)
        total, = [row["kl"] for row in self.found["uniform"] if row["bits"] == bits]
        return total / sum(step["divergence"][w]["kl"] for block in self.found["blocks"] for step in block["steps"])

    def test_uniform_runs_are_those_of_quantize(self):
        for bits in WIDTHS:
            found, = [row["kl"] for row in self.found["uniform"] if row["bits"] == bits]
            out = self.quantize("uniform-%d" % bits, "--bits", bits, *(["--first-tokens", 1] if bits == 2 else []))
            self.assertEqual(helpers.weights(os.path.join(self.one, "uniform-%d" % bits)), helpers.weights(out))
            figures = helpers.succeed("evaluate", out, "--token-file", self.judged, "--length", LENGTH, "--reference", helpers.MODEL,
                                      "--json").json()
            self.assertLess(abs(found - figures["kl"]), 1e-6 + 1e-4 * found)

    def test_budget_is_kept_and_widths_are_near_the_best(self):
        weights = sum(m["rows"] * m["columns"] for b in self.found["blocks"] for s in b["steps"] for u in s["units"]
                      for m in u["modules"])
        for target in (2.5, 2.875, 3.375, 3.9):
            with self.subTest(target=target):
                out = self.quantize("budget-%s" % target, "--target-bits", target, "--assessment",
                                    os.path.join(self.one, "assessment.json"))
                with open(os.path.join(out, "snrq.json")) as f:
                    configuration = json.load(f)
                records = {m["name"]: m for r in helpers.manifest(out) for m in r.get("modules", [])}
                stored, predicted = 0, 0.0
                for block in self.found["blocks"]:
                    for step in block["steps"]:
                        modules = [m for unit in step["units"] for m in unit["modules"]]
                        bits, = {records[m["name"]]["bits"] for m in modules}
                        predicted += self.share(bits) * step["divergence"][WIDTHS.index(bits)]["kl"]
                        stored += sum(m["rows"] * (m["columns"] * bits // 8 + m["columns"] // 64 * 3) for m in modules)
                self.assertLessEqual(8 * stored / weights, target)
                self.assertAlmostEqual(configuration["budget"]["bits_per_weight"], 8 * stored / weights, places=9)
                self.assertAlmostEqual(configuration["budget"]["predicted_kl"], predicted, places=9)
                best = {0: 0.0}  # bytes -> least divergence, over all choices
                for choices in self.points():
                    sums = {}
                    for size, kl in best.items():
                        for more, cost in choices:
                            if size + more <= target * weights / 8:
                                sums[size + more] = min(sums.get(size + more, 1e9), kl + cost)
                    best = sums
                self.assertLessEqual(predicted, 1.02 * min(best.values()))
                # The recipe that is stored makes the same by itself.
                again = self.quantize("again-%s" % target, "--recipe", self.recipe(configuration["recipe"]))
                self.assertEqual(helpers.weights(again), helpers.weights(out))

    def test_size_counts_all_of_the_output(self):
        assessment = os.path.join(self.one, "assessment.json")
        size = 850000
        out = self.quantize("size", "--target-size", size, "--assessment", assessment)
        stored = 0
        for name in os.listdir(out):
            if name.endswith(".h5"):
                with h5py.File(os.path.join(out, name)) as f:
                    datasets = []
                    f.visititems(lambda _, thing: datasets.append(thing) if isinstance(thing, h5py.Dataset) else None)
                    stored += sum(d.size * d.dtype.itemsize for d in datasets)
        self.assertLessEqual(stored, size)
        self.assertGreater(stored, 0.99 * size)

    def test_what_is_refused(self):
        assessment = os.path.join(self.one, "assessment.json")
        base = ["quantize", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "-o", self.path("no"), "--beam", 2]
        damaged = self.path("damaged.json")
        with open(assessment) as f, open(damaged, "w") as g:
            g.write(f.read().replace('"kl"', '"cost"'))
        other = helpers.copy_model(self.path("other"), rms_norm_eps=1e-4)
        for more, code, words in (
                (["--group-size", 64, "--target-bits", 2, "--assessment", assessment], 64, "the budget is too small: with 2 bits"),
                (["--group-size", 32, "--target-bits", 3, "--assessment", assessment], 64, "another --group-size"),
                (["--group-size", 64, "--method", "rtn", "--target-bits", 3, "--assessment", assessment], 64, "another --method"),
                (["--group-size", 64, "--target-bits", 3, "--assessment", damaged], 65, "kl"),
                (["--group-size", 64, "--target-bits", 3, "--assessment", os.path.join(helpers.MODEL, "config.json")], 65,
                 "is no assessment.json"),
                (["--group-size", 64, "--target-bits", 3, "--assessment", self.path("absent")], 66, "absent")):
            with self.subTest(words=words):
                arguments = [a for i, a in enumerate(base + more) if not (a == "--beam" or (base + more)[i - 1] == "--beam")] \
                    if "rtn" in more else base + more
                result = helpers.run(*arguments)
                self.assertEqual(result.code, code, result)
                self.assertIn(words, result.stderr)
                self.assertFalse(os.path.exists(self.path("no")))
        base[1] = other
        result = helpers.run(*base, "--group-size", 64, "--target-bits", 3, "--assessment", assessment)
        self.assertEqual(result.code, 64, result)
        self.assertIn("another model", result.stderr)
        for widths in ("3,2", "1,2", "2;3", "9", ""):
            result = helpers.run(*self.arguments(self.path("widths"), "--widths", widths))
            self.assertEqual(result.code, 64, result)


if __name__ == "__main__":
    helpers.main()
