"""What a user sees of each command: help, the plan of a run, inspect, verify, and output that programs can read."""
import json
import os
import shutil
import subprocess
import unittest

import helpers
import small_models

COMMANDS = ("quantize", "sensitivity", "evaluate", "inspect", "verify", "export", "round", "tokenize", "status", "report", "runs")
MODULES = ["model.layers.%d.%s" % (layer, name) for layer in range(6) for name in
           ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
            "mlp.up_proj", "mlp.down_proj")]


class Commands(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.out = os.path.join(helpers.temporary_folder(cls), "out")
        helpers.quantize(cls.out, *"--bits 3 --group-size 32 --method snrq --seed 4".split(), ranks=2)

    def copy(self):
        return shutil.copytree(self.out, self.path("copy"))

    def test_help(self):
        overview = helpers.succeed("--help").stdout
        for name in COMMANDS:
            with self.subTest(command=name):
                self.assertIn(name, overview)
                text = helpers.succeed(name, "--help").stdout
                self.assertIn("usage:", text)
                self.assertIn("example:", text)

    def test_help_is_printed_once_by_two_ranks(self):
        self.assertEqual(helpers.succeed("evaluate", "--help", ranks=2).stdout.count("usage:"), 1)

    def test_version(self):
        self.assertRegex(helpers.succeed("--version").stdout,
                         r"^snrq \d+\.\d+\.\d+\n\S+ instructions \(.*\nMPI: .+ v?\d.*\nHDF5: \d+\.\d+\.\d+\ncompiler: .+\n$")

    def test_a_command_that_is_none_has_no_help_and_no_manual(self):
        for words in (("--help", "nothing"), ("help", "nothing"), ("--manual", "nothing"), ("nothing",)):
            result = helpers.run(*words)
            self.assertEqual((result.code, result.stdout), (64, ""))
            self.assertIn("unknown command 'nothing'; expected quantize, plan,", result.stderr)
        self.assertEqual(helpers.run("--completion").code, 64)

    def test_dry_run_writes_nothing(self):
        out = self.path("out")
        result = helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out,
                                 "--sequences", 3, "--length", 32, "--bits", 3, "--dry-run", ranks=2)
        self.assertEqual(os.listdir(self.folder), [])
        for words in ("3 windows of 32 tokens", "3 bits", "MB per rank"):
            self.assertIn(words, result.stderr)

    def test_dry_run_needs_no_output_and_finds_errors(self):
        arguments = ["quantize", helpers.MODEL, "--dry-run", "--length", 32, "--calibration"]
        helpers.succeed(*arguments, helpers.CALIBRATION)
        self.assertEqual(helpers.run(*arguments, self.path("none")).code, helpers.NO_INPUT)

    def test_inspect_model(self):
        found = helpers.succeed("inspect", helpers.MODEL, "--json").json()
        with open(os.path.join(helpers.MODEL, "config.json")) as f:
            config = json.load(f)
        for ours, theirs in (("layers", "num_hidden_layers"), ("hidden", "hidden_size"), ("head_dim", "head_dim"),
                             ("heads", "num_attention_heads"), ("kv_heads", "num_key_value_heads"),
                             ("intermediate", "intermediate_size"), ("vocabulary", "vocab_size")):
            self.assertEqual(found[ours], config[theirs])
        self.assertEqual(found["architecture"], "LlamaForCausalLM")
        self.assertEqual(found["quantizable_weights"], 6 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 384))

    def test_inspect_model_as_text(self):
        text = helpers.succeed("inspect", helpers.MODEL).stdout
        for words in ("LlamaForCausalLM", "6 blocks", "hidden 128", "mlp.down_proj"):
            self.assertIn(words, text)

    def test_inspect_and_plan_of_fused_modules(self):
        config = small_models.PHI3_TURNED_IN_PART
        model = small_models.write(self.path("phi3"), config)
        found = helpers.succeed("inspect", model, "--json").json()
        shapes = {m["name"]: (m["rows"], m["columns"]) for m in found["modules"]}
        self.assertEqual(shapes, {"self_attn.qkv_proj": (128, 64), "self_attn.o_proj": (64, 64),
                                  "mlp.gate_up_proj": (96, 64), "mlp.down_proj": (64, 48)})
        self.assertEqual(found["quantizable_weights"], 3 * sum(rows * columns for rows, columns in shapes.values()))
        self.assertEqual((found["rope_type"], found["sliding_window"]), ("longrope", None))
        text = helpers.succeed("inspect", model).stdout
        for words in ("Phi3ForCausalLM", "longrope", "12 of 16 dimensions", "original context 24", "step qkv"):
            self.assertIn(words, text)
        tokens = helpers.write_ids(self.path("ids.i32"), small_models.windows(config, 2, 16))
        plan = helpers.succeed("quantize", model, "--token-file", tokens, "--length", 16, "--dry-run").stderr
        self.assertIn("3 blocks of 4 modules [qkv] [o] [gate_up] [down]", plan)

    def test_inspect_of_window_biases_and_head_norms(self):
        model = small_models.write(self.path("qwen3"), small_models.QWEN3_WITH_WINDOW)
        found = helpers.succeed("inspect", model, "--json").json()
        keys = ("sliding_window", "attention_bias", "mlp_bias", "head_norms", "tied_embeddings")
        self.assertEqual([found[key] for key in keys], [7, True, False, True, True])
        text = helpers.succeed("inspect", model).stdout
        for words in ("sliding window 7 in 2 of the blocks", "norms of query and key heads", "attention biases"):
            self.assertIn(words, text)

    def test_inspect_checkpoint(self):
        found = helpers.succeed("inspect", self.out, "--json").json()
        self.assertTrue(found["complete"])
        options = found["configuration"]["options"]
        expected = {"bits": 3, "group-size": 32, "method": "snrq", "seed": 4, "sequences": 4, "length": 64}
        self.assertEqual({key: options[key] for key in expected}, expected)
        self.assertEqual([m["name"] for m in found["modules"]], MODULES)
        for m in found["modules"]:
            self.assertEqual((m["bits"], m["group_size"], m["method"]), (3, 32, "snrq"))
            self.assertEqual(m["groups"], m["columns"] // 32)
            self.assertGreater(m["objective"], 0)
            self.assertTrue(0 < m["output_error"] < 1 and 0 < m["model_error"] < 1)
            self.assertTrue(0 <= m["clipped"] < 0.1)

    def test_inspect_checkpoint_as_text(self):
        text = helpers.succeed("inspect", self.out).stdout
        for words in MODULES + ["complete", '"bits": 3']:
            self.assertIn(words, text)

    def test_inspect_is_printed_once_by_two_ranks(self):
        found = helpers.succeed("inspect", self.out, "--json", ranks=2)
        self.assertEqual(found.json(), helpers.succeed("inspect", self.out, "--json").json())

    def test_verify_good(self):
        self.assertIn("0 bad, complete", helpers.succeed("verify", self.out).stdout)
        found = helpers.succeed("verify", self.out, "--json", ranks=2).json()
        self.assertTrue(found["ok"] and found["complete"])
        files = {entry["file"] for entry in found["files"]}
        self.assertLessEqual({"rest.h5", "config.json", "tokenizer.json", "manifest.jsonl"}, files)
        self.assertLessEqual(set(helpers.weights(self.out)), files)
        self.assertTrue(all(entry["ok"] for entry in found["files"]))

    def test_verify_and_what_a_killed_run_leaves(self):
        out = shutil.copytree(self.out, self.path("out"))
        for name in "status.json.tmp", "snrq.lock.tmp", "snrq.lock.node7.12.tmp":
            with open(os.path.join(out, name), "w"):
                pass
        helpers.succeed("verify", out)
        with open(os.path.join(out, "block-00000.h5.tmp"), "w"):
            pass
        self.check_verify_names(out, "block-00000.h5.tmp")

    def check_verify_names(self, out, name):
        found = helpers.run("verify", out, "--json")
        self.assertEqual(found.code, helpers.BAD_DATA, found)
        self.assertFalse(found.json()["ok"])
        self.assertEqual([entry["file"] for entry in found.json()["files"] if not entry["ok"]], [name])
        text = helpers.run("verify", out)
        self.assertEqual(text.code, helpers.BAD_DATA, text)
        self.assertRegex(text.stdout, r"(?m)^%s +(?!ok$)" % name)

    def test_verify_names_a_flipped_bit(self):
        for name in ("block-00004.h5", "rest.h5", "tokenizer.json"):
            with self.subTest(file=name):
                path = os.path.join(self.copy(), name)
                helpers.flip_bit(path, os.path.getsize(path) // 2)
                self.check_verify_names(self.path("copy"), name)
                shutil.rmtree(self.path("copy"))

    def test_verify_names_a_missing_and_a_foreign_file(self):
        out = self.copy()
        os.rename(os.path.join(out, "block-00001.h5"), os.path.join(out, "block-00009.h5"))
        found = helpers.run("verify", out, "--json")
        self.assertEqual(found.code, helpers.BAD_DATA, found)
        bad = [entry["file"] for entry in found.json()["files"] if not entry["ok"]]
        self.assertEqual(sorted(bad), ["block-00001.h5", "block-00009.h5"])

    def test_verify_needs_an_output(self):
        self.assertEqual(helpers.run("verify", helpers.MODEL).code, helpers.NO_INPUT)

    def test_evaluate_prints_one_object(self):
        result = helpers.succeed("evaluate", self.out, "--text", helpers.HELDOUT, "--length", 32, "--sequences", 3,
                                 "--json", "--reference", helpers.MODEL, ranks=2)
        self.assertEqual(len(result.stdout.splitlines()), 1)
        figures = ["perplexity", "mean_token_loss", "kl", "top1_agreement"]
        self.assertEqual(list(result.json()), ["protocol", "text", "tokens", "windows", "length",
                                               *(key + error for key in figures for error in ("", "_stderr"))])
        self.assertEqual(result.json()["tokens"], 3 * 31)

    def test_evaluate_as_text(self):
        result = helpers.succeed("evaluate", self.out, "--text", helpers.HELDOUT, "--length", 32, "--sequences", 3)
        self.assertRegex(result.stdout, r"(?m)^perplexity +\d")
        self.assertNotIn("KL", result.stdout)

    def test_a_model_is_its_own_perfect_reference(self):
        result = helpers.succeed("evaluate", helpers.MODEL, "--text", helpers.HELDOUT, "--length", 32, "--sequences", 3,
                                 "--json", "--reference", helpers.MODEL).json()
        self.assertEqual((result["kl"], result["top1_agreement"]), (0, 1))

    def test_checkpoint_is_self_contained(self):
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            self.assertEqual(helpers.sha256(os.path.join(self.out, name)),
                             helpers.sha256(os.path.join(helpers.MODEL, name)))

    def test_answers_that_cannot_be_written(self):
        """Every --json ends with an error where standard output is full, and says so."""
        if not os.path.exists("/dev/full"):
            raise unittest.SkipTest("there is no /dev/full")
        calibration = ["--calibration", helpers.CALIBRATION, "-o", self.path("out"), *"--sequences 2 --length 32".split()]
        for words in (["inspect", helpers.MODEL], ["quantize", helpers.MODEL, *calibration, "--dry-run"],
                      ["evaluate", helpers.MODEL, "--text", helpers.CALIBRATION, *"--sequences 2 --length 32".split()]):
            with self.subTest(command=words[0]), open("/dev/full", "w") as full:
                done = subprocess.run(helpers.command([*words, "--json"], 0), env=helpers.environment(1), stdout=full,
                                      stderr=subprocess.PIPE, timeout=60, check=False)
                self.assertEqual(done.returncode, helpers.IO_ERROR, done.stderr)
                self.assertIn(b"standard output cannot be written: No space left on device", done.stderr)


if __name__ == "__main__":
    helpers.main()
