"""Mixtures of experts: bytes, resume, coverage, exports, and what the quantized model computes."""
import json
import os
import sys

import numpy as np

import helpers
import small_models

sys.path.insert(0, helpers.DATA)
import forward_reference

# Whole blocks of GGUF, and what llama.cpp has of the family.
WHOLE = {"hidden_size": 64, "intermediate_size": 96}
MODELS = {"MIXTRAL": WHOLE, "QWEN3_MOE": WHOLE, "OLMOE": dict(WHOLE, intermediate_size=32),
          "DEEPSEEK_V3": dict(WHOLE, q_lora_rank=32, v_head_dim=16)}
EXPORTED = dict(MODELS, QWEN3_MOE=dict(WHOLE, mlp_only_layers=[], norm_topk_prob=True),
                OLMOE=dict(WHOLE, intermediate_size=32, clip_qkv=None, norm_topk_prob=False, num_key_value_heads=4),
                DEEPSEEK_V3=dict(MODELS["DEEPSEEK_V3"], rope_scaling=None, qk_rope_head_dim=32))
TOKENS = 6 * 32


class Experts(helpers.Test):
    def model(self, name, changed=None):
        directory = self.path(name)
        if not os.path.exists(directory):
            small_models.write(directory, dict(getattr(small_models, name), **(changed or MODELS)[name]))
        return directory

    def arguments(self, model, out, *more):
        ids = self.path("windows.ids")
        if not os.path.exists(ids):
            helpers.write_ids(ids, np.random.default_rng(2).integers(0, 64, (8, 32)))
        return helpers.with_options(["quantize", model, "--token-file", ids, "--length", 32, "--sequences", 6, "--bits", 3,
                                     "--group-size", 32, "--beam", 2, "-o", out], *more)

    def quantize(self, model, *more, ranks=1):
        out = self.path("out-%d" % len(os.listdir(self.path())))
        helpers.succeed(*self.arguments(model, out, *more), ranks=ranks)
        return out

    def modules(self, out):
        return [module for record in helpers.manifest(out) for module in record.get("modules", [])]

    def test_bytes_do_not_depend_on_ranks(self):
        for name in MODELS:
            with self.subTest(model=name):
                model = self.model(name)
                expected = helpers.weights(self.quantize(model))
                for ranks in (2, 8) if name == "DEEPSEEK_V3" else (3,):
                    self.assertEqual(helpers.weights(self.quantize(model, ranks=ranks)), expected)

    def test_bytes_do_not_depend_on_ranks_of_layer_groups(self):
        model = self.model("DEEPSEEK_V3")
        expected = helpers.weights(self.quantize(model, "--layer-groups", 3, ranks=3))
        self.assertEqual(helpers.weights(self.quantize(model, "--layer-groups", 3, ranks=5)), expected)

    def test_few_tokens_of_experts_are_told_once_for_a_step(self):
        arguments = self.arguments(self.model("MIXTRAL"), self.path("few"), "--sequences", 1, "--held-out", 0)
        lines = [line for line in helpers.succeed(*arguments).stderr.splitlines() if "H has not full rank" in line]
        self.assertEqual([".experts.0." in line for line in lines if ".experts." in line], [True, True])
        with open(os.path.join(self.path("few"), "run.jsonl")) as f:
            logged = [event for event in map(json.loads, f) if event.get("trouble") == "few_tokens"]
        self.assertGreater(len(logged), 2 * len(lines))

    def test_a_killed_run_goes_on(self):
        model, out = self.model("QWEN3_MOE"), self.path("killed")
        expected = helpers.weights(self.quantize(model))
        for blocks in (1, 2):
            helpers.kill_when(lambda: os.path.exists(os.path.join(out, "block-%05d.h5" % (blocks - 1))),
                              *self.arguments(model, out), ranks=2)
        helpers.succeed(*self.arguments(model, out), ranks=3)
        self.assertEqual(helpers.weights(out), expected)

    def test_few_tokens_are_topped_up_on_any_number_of_ranks(self):
        model = self.model("QWEN3_MOE")
        runs = [self.quantize(model, "--expert-tokens", 120, ranks=ranks) for ranks in (1, 2, 5)]
        self.assertEqual(len({json.dumps(helpers.weights(out)) for out in runs}), 1)
        experts = [module for module in self.modules(runs[0]) if ".experts." in module["name"]]
        self.assertEqual(len(experts), 2 * 6 * 3)
        self.assertEqual({module["tokens"] for module in experts if module["tokens_sent"] < 120}, {120})
        self.assertTrue(all(module["tokens"] == module["tokens_sent"] for module in experts if module["tokens_sent"] >= 120))
        self.assertTrue(any(module["tokens_sent"] < 120 for module in experts))
        # Every token is sent to three experts of a block; gate, up and down of an expert read the same.
        self.assertEqual(sum(module["tokens_sent"] for module in experts), 3 * 2 * 3 * TOKENS)
        with open(os.path.join(runs[0], "run.jsonl")) as f:
            told = [event for event in map(json.loads, f) if event["event"] == "experts"]
        self.assertEqual([event["block"] for event in told], [0, 2])
        for event in told:
            sent = sorted(module["tokens_sent"] for module in experts
                          if module["name"].startswith("model.layers.%d." % event["block"]) and "gate" in module["name"])
            self.assertEqual((event["least"], event["median"], event["most"]), (sent[0], sent[3], sent[-1]))
            self.assertEqual(event["topped_up"], sum(count < 120 for count in sent))

    def test_an_expert_may_have_all_tokens_there_are(self):
        out = self.quantize(self.model("MIXTRAL"), "--expert-tokens", 10 ** 6)
        experts = [module for module in self.modules(out) if ".experts." in module["name"]]
        self.assertEqual({module["tokens"] for module in experts}, {TOKENS})

    def test_weights_of_the_router_change_what_is_fitted(self):
        model = self.model("MIXTRAL")
        plain, weighted = (helpers.weights(self.quantize(model, "--expert-weights", way)) for way in ("none", "router"))
        self.assertNotEqual(plain, weighted)

    def check_export(self, model, out, form):
        export = self.path("%s-%s" % (os.path.basename(out), form))
        helpers.succeed("export", out, "--format", form, "-o", export, *(["--weights", "f32"] if form == "safetensors" else []),
                        ranks=2)
        helpers.succeed("verify", out, "--export", export, ranks=2)
        return export

    def test_exports_are_what_was_quantized(self):
        for name in EXPORTED:
            with self.subTest(model=name):
                model = self.model(name, EXPORTED)
                out = self.quantize(model, "--bits", 4, ranks=2)
                exports = {form: self.check_export(model, out, form)
                           for form in ("gptq", "compressed-tensors", "gguf", "safetensors")}
                self.check_numbers(out, exports["safetensors"])

    def check_numbers(self, out, dense):
        """The quantized model computes what numpy computes with its dequantized weights."""
        windows, logprobs = self.path("scored.ids"), self.path("logprobs.npy")
        rows = np.random.default_rng(9).integers(0, 64, (2, 20))
        helpers.write_ids(windows, rows)
        helpers.succeed("evaluate", out, "--token-file", windows, "--length", 20, "--logprobs", logprobs)
        reference = forward_reference.Model(dense)
        expected = [forward_reference.listed(reference.log_p(row), row) for row in rows]
        self.assertLess(np.abs(np.load(logprobs).reshape(2, -1) - expected).max(), 1e-4)

    def test_a_source_in_fp8(self):
        """E4M3 with a scale for each block of 16 x 32: read as the numbers that it stands for."""
        model = self.model("DEEPSEEK_V3")
        file = os.path.join(model, "model.safetensors")
        tensors = {}
        for name, (kind, shape, data) in helpers.read_safetensors(file).items():
            if len(shape) == 2 and "layers" in name and "mlp.gate.weight" not in name:
                kind, data = "F8_E4M3", np.random.default_rng(len(name)).integers(0, 0x70, shape).astype(np.uint8).tobytes()
                scales = np.random.default_rng(len(name)).uniform(0.001, 0.003, [-(-shape[0] // 16), -(-shape[1] // 32)])
                tensors[name + "_scale_inv"] = "F32", list(scales.shape), scales.astype("<f4").tobytes()
            tensors[name] = kind, shape, data
        helpers.write_safetensors(file, tensors)
        path = os.path.join(model, "config.json")
        with open(path) as f:
            config = json.load(f)
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 32]}
        with open(path, "w") as f:
            json.dump(config, f)
        self.check_numbers(model, model)
        out = self.quantize(model, "--bits", 8, ranks=2)
        export = self.check_export(model, out, "safetensors")
        with open(os.path.join(export, "config.json")) as f:
            self.assertNotIn("quantization_config", json.load(f))
        self.check_numbers(out, export)


if __name__ == "__main__":
    helpers.main()
