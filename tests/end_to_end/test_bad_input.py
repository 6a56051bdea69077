"""Bad input: the right exit code, a message that says what and where, no hang, no file that looks finished.

Every command is run by itself and on two ranks.
"""
import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import helpers
import small_models
from helpers import BAD_DATA, CANNOT_WRITE, IO_ERROR, NO_INPUT, USAGE

SHORT = "--bits 3 --method rtn --sequences 2 --length 32".split()
WEIGHTS = "model.safetensors"


class BadInput(helpers.Test):
    def check(self, code, words, *arguments, out=None):
        """The command ends with `code` (or one of them) and one message that has all `words`. With `out`, every run
        gets an output directory of its own, below that folder, in which no data file may be left without record."""
        def one(ranks):
            own = [] if out is None else ["-o", os.path.join(out, str(ranks))]
            return helpers.run(*arguments, *own, ranks=ranks, timeout=60)
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(one, (0, 2)))
        for ranks, result in zip((0, 2), results):
            with self.subTest(ranks=ranks):
                self.assertIn(result.code, code if isinstance(code, tuple) else (code,), result)
                self.assertEqual(result.stdout, "", result)
                said = [line for line in result.stderr.splitlines() if line.startswith("snrq:")]
                self.assertEqual(len(said), 1, result)
                for word in words:
                    self.assertIn(word, said[0])
                if out is not None:
                    self.check_nothing_without_record(os.path.join(out, str(ranks)))

    def check_nothing_without_record(self, out):
        if os.path.isdir(out):
            self.assertLessEqual(set(helpers.weights(out)), {record.get("file") for record in helpers.manifest(out)})

    def check_quantize(self, code, words, model=helpers.MODEL, text=helpers.CALIBRATION, more=()):
        with tempfile.TemporaryDirectory(dir=self.folder) as outs:
            self.check(code, words, "quantize", model, "--calibration", text, *helpers.with_options(SHORT, *more),
                       out=outs)

    def check_output(self, code, words, out):
        """An output directory that cannot be."""
        self.check(code, words, "quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, *SHORT, "-o", out)

    def check_evaluate(self, code, words, model, *more):
        self.check(code, words, "evaluate", model, "--text", helpers.HELDOUT, "--length", 32, "--sequences", 2, *more)

    def check_both(self, code, words, model):
        """A model that neither quantize nor evaluate can take."""
        self.check_quantize(code, words, model=model)
        self.check_evaluate(code, words, model)

    def file(self, name, content):
        with open(self.path(name), "wb") as f:
            f.write(content)
        return self.path(name)


class BadModel(BadInput):
    def copy(self, **changed):
        return helpers.copy_model(self.path("model"), **changed)

    def edit(self, change):
        """A copy of the model with changed tensors."""
        model = self.copy()
        path = os.path.join(model, WEIGHTS)
        tensors = helpers.read_safetensors(path)
        change(tensors)
        helpers.write_safetensors(path, tensors)
        return model

    def test_wrong_path(self):
        missing = self.path("no-such-model")
        self.check_both(NO_INPUT, [missing], missing)

    def test_directory_without_a_model(self):
        os.mkdir(self.path("empty"))
        self.check_both(NO_INPUT, ["config.json"], self.path("empty"))

    def test_weights_missing(self):
        model = self.copy()
        os.remove(os.path.join(model, WEIGHTS))
        self.check_both(NO_INPUT, [WEIGHTS], model)

    def test_truncated_weights(self):
        model = self.copy()
        path = os.path.join(model, WEIGHTS)
        os.truncate(path, os.path.getsize(path) - 1000)
        self.check_both(BAD_DATA, [WEIGHTS], model)

    def test_truncated_header(self):
        model = self.copy()
        os.truncate(os.path.join(model, WEIGHTS), 100)
        self.check_both(BAD_DATA, [WEIGHTS], model)

    def test_flipped_bit_in_the_length_of_the_header(self):
        model = self.copy()
        helpers.flip_bit(os.path.join(model, WEIGHTS), 6)
        self.check_both(BAD_DATA, [WEIGHTS], model)

    def test_flipped_bit_in_the_syntax_of_the_header(self):
        model = self.copy()
        helpers.flip_bit(os.path.join(model, WEIGHTS), 8)
        self.check_both(BAD_DATA, [WEIGHTS], model)

    def test_flipped_bit_in_a_name(self):
        model = self.copy()
        path = os.path.join(model, WEIGHTS)
        with open(path, "rb") as f:
            at = f.read().index(b"model.layers.2.mlp.up_proj.weight") + len("model.layers.")
        helpers.flip_bit(path, at, bit=3)  # layer 2 becomes ":"
        self.check_both(BAD_DATA, ["model.layers.2.mlp.up_proj.weight"], model)

    def test_config_that_is_not_json(self):
        model = self.copy()
        with open(os.path.join(model, "config.json"), "a") as f:
            f.write("}")
        self.check_both(BAD_DATA, ["config.json"], model)

    def test_config_of_another_architecture(self):
        model = self.copy(architectures=["GPT2LMHeadModel"], model_type="gpt2")
        self.check_both(BAD_DATA, ["config.json", "GPT2LMHeadModel", "LlamaForCausalLM"], model)

    def test_config_that_asks_for_biases(self):
        self.check_both(BAD_DATA, ["model.layers.0.self_attn.q_proj.bias"],
                        self.copy(attention_bias=True))

    def test_tensor_of_a_block_that_nothing_reads(self):
        """Left out, the biases would be missing from every figure."""
        model = small_models.write(self.path("model"), small_models.LLAMA_WITH_BIASES)
        with open(os.path.join(model, "config.json"), "w") as f:
            json.dump(dict(small_models.LLAMA_WITH_BIASES, mlp_bias=False), f)
        tokens = helpers.write_ids(self.path("ids.i32"), small_models.windows(small_models.LLAMA_WITH_BIASES, 2, 16))
        words = ["model.layers.0.mlp.down_proj.bias", "config.json"]
        self.check(BAD_DATA, words, "evaluate", model, "--token-file", tokens, "--length", 16)

    def test_config_of_other_sizes(self):
        self.check_both(BAD_DATA, [".weight", "256", "384"], self.copy(intermediate_size=256))

    def test_config_of_more_layers(self):
        self.check_both(BAD_DATA, ["model.layers.6."], self.copy(num_hidden_layers=7))

    def test_config_without_a_size(self):
        self.check_both(BAD_DATA, ["config.json", "hidden_size"], self.copy(hidden_size=None))

    def test_nan_among_the_weights(self):
        def change(tensors, name="model.layers.2.mlp.up_proj.weight"):
            kind, shape, data = tensors[name]
            self.assertEqual(kind, "BF16")
            at = 2 * (5 * shape[1] + 17)
            tensors[name] = kind, shape, data[:at] + b"\xc0\x7f" + data[at + 2:]
        self.check_both(BAD_DATA, ["model.layers.2.mlp.up_proj.weight", "not finite at row 5, column 17: nan"],
                        self.edit(change))

    def test_nan_in_a_norm_of_the_last_block(self):
        """Nothing after it is quantized, so nothing else would notice."""
        def change(tensors, name="model.layers.5.post_attention_layernorm.weight"):
            kind, shape, data = tensors[name]
            tensors[name] = kind, shape, data[:6] + b"\xc0\x7f" + data[8:]
        self.check_both(BAD_DATA, ["model.layers.5.post_attention_layernorm.weight", "not finite at 3"],
                        self.edit(change))

    def test_infinity_among_the_embeddings(self):
        """In the row of a token that no text here has: it matters for every logit, as the head is the same table."""
        def change(tensors, name="model.embed_tokens.weight"):
            kind, shape, data = tensors[name]
            tensors[name] = kind, shape, data[:-2] + b"\x80\x7f"
        self.check_both(BAD_DATA, ["model.embed_tokens.weight", "not finite at row 1023, column 127"], self.edit(change))

    def test_reference_of_another_vocabulary(self):
        def change(tensors, name="model.embed_tokens.weight"):
            kind, (rows, columns), data = tensors[name]
            tensors[name] = kind, [rows - 24, columns], data[:2 * (rows - 24) * columns]
        other = self.edit(change)
        with open(os.path.join(other, "config.json")) as f:
            config = json.load(f)
        config["vocab_size"] -= 24
        with open(os.path.join(other, "config.json"), "w") as f:
            json.dump(config, f)
        self.check_evaluate(USAGE, ["--reference", "1000", "1024"], helpers.MODEL, "--reference", other)


class BadText(BadInput):
    def check_text(self, code, words, path):
        self.check_quantize(code, words, text=path)
        self.check(code, words, "evaluate", helpers.MODEL, "--text", path, "--length", 32)

    def check_tokens(self, code, words, content):
        path = self.file("ids.i32", content)
        self.check(code, [path, *words], "quantize", helpers.MODEL, "--token-file", path, *SHORT,
                   out=tempfile.mkdtemp(dir=self.folder))
        self.check(code, [path, *words], "evaluate", helpers.MODEL, "--token-file", path, "--length", 32)

    def test_missing(self):
        self.check_text(NO_INPUT, ["no-such-text"], self.path("no-such-text"))

    def test_shorter_than_a_window(self):
        self.check_text(BAD_DATA, ["32"], self.file("short.txt", b"Once upon a time."))

    def test_empty(self):
        self.check_text(BAD_DATA, ["empty.txt"], self.file("empty.txt", b""))

    def test_token_file_of_odd_size(self):
        self.check_tokens(BAD_DATA, ["4"], b"\1\0\0\0" * 64 + b"\1")

    def test_token_that_the_model_does_not_know(self):
        ids = np.full(64, 5, dtype="<i4")
        ids[40] = 1024
        self.check_tokens(BAD_DATA, ["1024", "40"], ids.tobytes())

    def test_negative_token(self):
        ids = np.full(64, 5, dtype="<i4")
        ids[3] = -1
        self.check_tokens(BAD_DATA, ["-1"], ids.tobytes())

    def test_empty_token_file(self):
        self.check_tokens(BAD_DATA, [], b"")

    def test_window_longer_than_the_context(self):
        """Of quantize; evaluate computes it, and says that it was not trained."""
        self.check(USAGE, ["--length", "512", "1024"], "quantize", helpers.MODEL, "--calibration", helpers.HELDOUT,
                   "-o", self.path("out"), "--length", 1024)


class BadOutput(BadInput):
    def test_a_file_in_the_way(self):
        path = self.file("out", b"precious")
        self.check_output(CANNOT_WRITE, [path], path)
        with open(path, "rb") as f:
            self.assertEqual(f.read(), b"precious")

    def test_directory_of_somebody_else(self):
        os.mkdir(self.path("out"))
        self.file("out/letter.txt", b"precious")
        self.check_output(CANNOT_WRITE, [self.path("out"), "letter.txt"], self.path("out"))
        self.assertEqual(os.listdir(self.path("out")), ["letter.txt"])

    def test_no_directory_to_put_it_in(self):
        out = self.path("no-such-folder", "out")
        self.check_output(CANNOT_WRITE, [out], out)

    def test_read_only_directory(self):
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        os.mkdir(self.path("out"), 0o555)
        self.check_output(CANNOT_WRITE, [self.path("out")], self.path("out"))

    def test_log_probabilities_that_cannot_be_written(self):
        path = self.path("no-such-folder", "logprobs.npy")
        self.check_evaluate(CANNOT_WRITE, [path], helpers.MODEL, "--logprobs", path)

    def test_read_only_file_system(self):
        with helpers.file_system(self.path("disk"), "ro") as disk:
            self.check_output(CANNOT_WRITE, [os.path.join(disk, "out"), "Read-only"], os.path.join(disk, "out"))

    def test_full_disk(self):
        """A disk too small for the second block; with more space the run goes on to the right bytes."""
        with helpers.file_system(self.path("disk"), "size=600k") as disk:
            out = os.path.join(disk, "out")
            arguments = ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", out, *SHORT]
            for ranks in (1, 2):
                with self.subTest(ranks=ranks):
                    result = helpers.run(*arguments, ranks=ranks, timeout=60)
                    self.assertIn(result.code, (CANNOT_WRITE, IO_ERROR), result)
                    self.assertIn("No space left on device", result.stderr)
                    self.check_nothing_without_record(out)
                    self.assertLess(len(helpers.weights(out)), 7)
            subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
            helpers.succeed(*arguments, ranks=2)
            helpers.succeed(*arguments[:5], self.path("roomy"), *SHORT)
            self.assertEqual(helpers.weights(out), helpers.weights(self.path("roomy")))


class BadCheckpoint(BadInput):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.good = os.path.join(helpers.temporary_folder(cls), "out")
        helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", cls.good, *SHORT)

    def setUp(self):
        super().setUp()
        self.out = shutil.copytree(self.good, self.path("copy"))

    def test_flipped_bit_among_the_codes(self):
        path = os.path.join(self.out, "block-00003.h5")
        helpers.flip_bit(path, os.path.getsize(path) // 2)
        self.check_evaluate(BAD_DATA, ["block-00003.h5"], self.out)

    def test_flipped_bit_among_the_embeddings(self):
        path = os.path.join(self.out, "rest.h5")
        helpers.flip_bit(path, os.path.getsize(path) // 2)
        self.check_evaluate(BAD_DATA, ["rest.h5"], self.out)

    def test_flipped_bit_in_the_structure_of_a_file(self):
        helpers.flip_bit(os.path.join(self.out, "rest.h5"), 300)
        self.check_evaluate(BAD_DATA, ["rest.h5"], self.out)

    def test_missing_block(self):
        os.remove(os.path.join(self.out, "block-00002.h5"))
        self.check_evaluate((BAD_DATA, NO_INPUT), ["block-00002.h5"], self.out)

    def test_truncated_block(self):
        os.truncate(os.path.join(self.out, "block-00002.h5"), 5000)
        self.check_evaluate(BAD_DATA, ["block-00002.h5"], self.out)

    def test_unfinished(self):
        helpers.drop_records(self.out, 2)
        os.remove(os.path.join(self.out, "block-00005.h5"))
        self.check_evaluate(NO_INPUT, [self.out, "unfinished", "snrq quantize"], self.out)

    def test_changed_manifest(self):
        path = os.path.join(self.out, "manifest.jsonl")
        with open(path, "rb") as f:
            at = f.read().index(b"output_error")
        helpers.flip_bit(path, at)
        self.check_evaluate(BAD_DATA, ["manifest.jsonl"], self.out)

    def test_quantized_twice(self):
        self.check_quantize(USAGE, ["quantized already"], model=self.out)


class BadCommandLine(BadInput):
    def check_usage(self, words, *arguments):
        self.check(USAGE, words, *arguments)

    def test_unknown_option(self):
        self.check_usage(["--bitts"], "quantize", helpers.MODEL, "--bitts", 3)

    def test_option_of_another_command(self):
        self.check_usage(["--bits"], "evaluate", helpers.MODEL, "--text", helpers.HELDOUT, "--bits", 3)

    def test_unknown_command(self):
        self.check_usage(["quantise", "quantize"], "quantise", helpers.MODEL)

    def test_missing_output(self):
        self.check_usage(["-o"], "quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION)

    def test_missing_text(self):
        self.check_usage(["--text", "--token-file"], "evaluate", helpers.MODEL)

    def test_missing_model(self):
        self.check_usage(["MODEL"], "quantize", "-o", self.path("out"))

    def test_values_out_of_range(self):
        for option, value, words in (("bits", "9", ["'9'", "2", "8"]), ("bits", "three", ["'three'"]),
                                     ("beam", "0", ["'0'", "1"]), ("group-size", "0", ["'0'", "1"]),
                                     ("alpha", "fixed:2", ["'2'", "1"]), ("alpha", "none", ["'none'", "fixed:V"]),
                                     ("damp", "-1", ["'-1'", "0"]), ("grid", "x", ["'x'", "minmax|mse|hessian"]),
                                     ("method", "best", ["'best'", "rtn|ldlq|gptq|gptaq|snrq|ksnrq"])):
            with self.subTest(option=option, value=value):
                self.check_quantize(USAGE, ["--" + option, *words], more=["--" + option, value])


if __name__ == "__main__":
    helpers.main()
