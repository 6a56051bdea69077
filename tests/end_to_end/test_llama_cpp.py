"""Exported GGUF files in a real engine: llama.cpp, through the npm package node-llama-cpp.

It is installed once into the build directory, and the test is skipped where that is not possible (no node or npm, no
registry, no binary for this machine). llama.cpp must cut texts into the ids that the program cuts them into, and give
tokens the probabilities that `snrq evaluate` gives them; it rounds activations to 8 bits where weights are quantized.
"""
import json
import os
import platform
import shutil
import subprocess
import unittest

import numpy as np

import helpers
import small_models

VERSION = "3.22.1"
BINARIES = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}
SCRIPT = os.path.join(helpers.HERE, "test_llama_cpp.mjs")
BUILD = os.environ.get("SNRQ_BUILD", "")

TEXTS = ["Once upon a time", "The end.", "One day, Lily's dog found 12 red cats and 345 blue ones.", "Hello, world!",
         "\n", "a\n\nb\n", "\tindented", "  two spaces before, and two after  ", "no_space-here;x=y", "CAPITALS AND more",
         "caf\u00e9 na\u00efve \u00fcber", "\u6f22\u5b57 and \u304b\u306a", "\U0001f600 \U0001f468\u200d\U0001f469",
         "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "...!?--\"quoted\" 'single'", "x", "1234567890",
         "a very very very very very long sentence without much sense in it, but with many words",
         "it's we're they'll I'd you've", "tabs\tand  spaces \n mixed\r\nlines"]


def run_engine(folder, jobs, where):
    job, result = os.path.join(where, "job.json"), os.path.join(where, "result.json")
    with open(job, "w") as f:
        json.dump(jobs, f)
    done = subprocess.run(["node", SCRIPT, folder, job, result], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=240, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout.decode(errors="replace")[-2000:])
    with open(result) as f:
        return json.load(f)


def npm(*words, timeout):
    return subprocess.run(["npm", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, check=False)


def find_registry():
    """Skips the test at once where npm's registry is not reached: an installation would try again for minutes."""
    try:
        found = npm("view", "node-llama-cpp@" + VERSION, "version", "--fetch-retries=0", "--fetch-timeout=5000",
                    "--no-update-notifier", timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        found = False
    if not found:
        raise unittest.SkipTest("npm's registry is not reached: there is no llama.cpp to read the exported files")


def install(folder):
    """Installs the package and the one binary that is needed; the folder appears when it is complete."""
    unfinished = "%s.%d" % (folder, os.getpid())
    binary = BINARIES.get(platform.machine())
    if binary is None or shutil.which("npm") is None or shutil.which("node") is None:
        raise unittest.SkipTest("node and npm, and a machine that node-llama-cpp has a binary for, are needed")
    find_registry()
    os.makedirs(unfinished)
    try:
        done = npm("install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--prefix", unfinished,
                   "node-llama-cpp@" + VERSION, "@node-llama-cpp/%s@%s" % (binary, VERSION), timeout=240)
        if done.returncode != 0:
            raise unittest.SkipTest("npm cannot install node-llama-cpp: " + done.stdout.decode()[-300:])
        os.rename(unfinished, folder)
    except subprocess.TimeoutExpired:
        raise unittest.SkipTest("npm did not install node-llama-cpp within 4 minutes")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def engine(where):
    """The folder with a llama.cpp that starts on this machine."""
    folder = os.path.join(BUILD or where, "node-llama-cpp-" + VERSION)
    if not os.path.isdir(folder):
        install(folder)
    try:
        run_engine(folder, [], where)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as problem:
        raise unittest.SkipTest("llama.cpp does not start here: %s" % problem)
    return folder


def our_ids(model, texts):
    program = os.environ.get("SNRQ_TOKEN_IDS") or shutil.which("token_ids")
    done = subprocess.run([program, model], input=json.dumps(texts).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def vectors(model, count=60):
    """Texts with ids that other tokenizers have agreed on."""
    with open(os.path.join(model, "vectors.jsonl"), encoding="utf-8", newline="\n") as f:
        return [json.loads(line) for line in f.read().split("\n") if line][:count]


def edited_copy(model, directory, **changed):
    """A copy of a model with other settings."""
    shutil.copytree(model, directory)
    path = os.path.join(directory, "config.json")
    os.chmod(directory, 0o755)
    os.chmod(path, 0o644)
    with open(path) as f:
        config = dict(json.load(f), **changed)
    with open(path, "w") as f:
        json.dump(config, f)
    return directory


@unittest.skipIf(helpers.SANITIZED, "the engine is not what is checked here")
class Engine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = helpers.temporary_folder(cls)
        cls.engine = engine(cls.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def export(self, model, name, *options):
        directory = self.path("gguf-" + name)
        helpers.succeed("export", model, "--format", "gguf", "-o", directory, *options, ranks=2)
        helpers.succeed("verify", model, "--export", directory)
        return os.path.join(directory, "model.gguf")

    def quantize(self, model, name, *options):
        return helpers.quantize(self.path("out-" + name), "--method", "rtn", *options, model=model)

    def windows(self, model, length, count=4):
        """Token ids of held-out text, and what `snrq evaluate` is to be given to score the same."""
        with open(helpers.HELDOUT, encoding="utf-8") as f:
            ids = our_ids(model, [f.read(20000)])[0][: length * count]
        return np.asarray(ids, dtype=np.int32).reshape(count, length)

    def evaluate(self, model, windows, name):
        """Log-probabilities of all tokens of the windows but the first of each."""
        ids, out = self.path(name + ".ids"), self.path(name + ".npy")
        helpers.write_ids(ids, windows)
        helpers.succeed("evaluate", model, "--token-file", ids, "--length", windows.shape[1], "--logprobs", out)
        return np.load(out).reshape(len(windows), -1)

    def ask(self, paths, windows, **asked):
        """What the engine says about each of the files."""
        jobs = [dict(asked, path=path, windows=windows.tolist()) for path in paths]
        return run_engine(self.engine, jobs, self.folder)

    def compare(self, model, windows, result, name, limit):
        """The mean log-probability agrees within `limit`."""
        expected, found = self.evaluate(model, windows, name), np.asarray(result["windows"])
        self.assertEqual(expected.shape, found.shape)
        relative = abs(found.mean() / expected.mean() - 1)
        print("%-28s mean log-probability %.5f, llama.cpp %.5f: %.4f %% apart; largest difference %.3g" %
              (name, expected.mean(), found.mean(), 100 * relative, np.abs(found - expected).max()))
        self.assertLess(relative, limit)

    def check_settings(self, model, label, settings):
        """settings: (name, options of quantize or None, options of export, limit)"""
        windows, ids = self.windows(model, 128), our_ids(model, TEXTS)
        sources, paths = [], []
        for name, quantize, export, _ in settings:
            full = "%s-%s" % (label, name)
            sources.append(self.quantize(model, full, *quantize) if quantize else model)
            paths.append(self.export(sources[-1], full, *export))
        results = self.ask(paths, windows, texts=TEXTS, prompt="Once upon a time", tokens=24)
        for (name, _, _, limit), source, result in zip(settings, sources, results):
            with self.subTest(name):
                self.compare(source, windows, result, "%s-%s" % (label, name), limit)
                print("    " + result["continuation"].replace("\n", " "))
                self.assertEqual(ids, result["ids"])
                self.assertRegex(result["continuation"], r"^Once upon a time,? there ([a-z]+ ){3}")

    SETTINGS = [("f16", None, ["--embedding-type", "f16"], 0.001),
                ("q4_0-g32", ["--bits", 4, "--group-size", 32], [], 0.01),
                ("q4_0-g64", ["--bits", 4, "--group-size", 64], [], 0.01),
                ("q8_0", ["--bits", 8, "--group-size", 32], ["--embedding-type", "q8_0"], 0.01)]

    def test_bundled_model(self):
        # Codes of other widths, too: 3 bits and asymmetric ones in Q4_0 and Q5_0.
        more = [("q4_0-3-bit", ["--bits", 3, "--group-size", 32, "--asymmetric"], [], 0.01),
                ("q5_0", ["--bits", 4, "--group-size", "channel", "--asymmetric"], [], 0.01)]
        self.check_settings(helpers.MODEL, "bundled", self.SETTINGS + more)

    def test_stories(self):
        self.check_settings(helpers.shared("data", "models", "stories3M"), "stories3M", self.SETTINGS)

    def check_family(self, name, **changed):
        """A model with random weights, its own ids as text: names, row order, rope and windows are right."""
        model = helpers.shared("data", "models", "fixtures", name)
        if changed:
            model = edited_copy(model, self.path(name + "-" + "-".join(map(str, changed.values()))), **changed)
        with open(os.path.join(model, "config.json")) as f:
            config = json.load(f)
        length = min(config.get("sliding_window") or 96, 96)
        windows = np.random.default_rng(5).integers(3, config["vocab_size"] - 3, (4, length)).astype(np.int32)
        path = self.export(model, os.path.basename(model), "--embedding-type", "f16")
        result, = self.ask([path], windows, texts=[v["text"] for v in vectors(model)], special=True)
        self.compare(model, windows, result, os.path.basename(model), 0.001)
        return result

    def check_vectors(self, name, result, exceptions=0):
        model = helpers.shared("data", "models", "fixtures", name)
        wrong = [v["text"] for v, ids in zip(vectors(model), result["ids"])
                 if ids not in (v["ids"], v["ids"][1:])]
        self.assertLessEqual(len(wrong), exceptions, wrong)

    def test_llama3(self):
        self.check_vectors("strong_llama3", self.check_family("strong_llama3"))

    def test_qwen3(self):
        # llama.cpp does not normalize: texts that NFC changes have other ids.
        self.check_vectors("strong_qwen3", self.check_family("strong_qwen3"), exceptions=9)

    def test_mistral(self):
        # A space is put before the first piece of text only, not after special tokens within it.
        self.check_vectors("strong_mistral", self.check_family("strong_mistral"), exceptions=12)

    def model_around_tokenizer(self, name, vocabulary):
        """A model of next to no weights with a tokenizer of full size."""
        source = helpers.shared("data", "tokenizers", name)
        config = dict(small_models.MISTRAL_WITH_WINDOW, vocab_size=vocabulary, num_hidden_layers=1, hidden_size=32,
                      intermediate_size=32, sliding_window=None)
        if name == "phi3":
            config = dict(small_models.PHI3_TURNED_IN_PART, vocab_size=vocabulary, num_hidden_layers=1, hidden_size=32,
                          intermediate_size=32, rope_scaling=None, partial_rotary_factor=1.0, tie_word_embeddings=True)
        model = small_models.write(self.path("tokenizer-" + name), config)
        shutil.copy(os.path.join(source, "tokenizer.json"), model)
        return model, vectors(source, None)

    def test_tokenizers(self):
        # Without tokenizer.model: Llama 2's scores come from its merges. What is left: special tokens written out in
        # texts (Llama 2 lets spaces join them), what NFC changes and "</s>" (Qwen 3).
        rows = [("llama2", 32000, 5), ("phi3", 32064, 0), ("llama3", 128256, 0), ("qwen3", 151936, 11)]
        models = [self.model_around_tokenizer(name, size) for name, size, _ in rows]
        jobs = [{"path": self.export(model, name), "texts": [v["text"] for v in lines], "special": True}
                for (name, _, _), (model, lines) in zip(rows, models)]
        for row, (_, lines), result in zip(rows, models, run_engine(self.engine, jobs, self.folder)):
            wrong = [v["text"] for v, ids in zip(lines, result["ids"]) if ids not in (v["ids"], v["ids"][1:])]
            print("%-28s %d of %d texts have the same ids" % (row[0], len(lines) - len(wrong), len(lines)))
            self.assertLessEqual(len(wrong), row[2], wrong)

    def test_phi3(self):
        # llama.cpp decides between short and long rope factors by the size of its context, of at least 256 tokens.
        self.check_vectors("tiny_phi3", self.check_family("tiny_phi3", sliding_window=None))
        self.check_family("tiny_phi3", sliding_window=None, original_max_position_embeddings=256)


if __name__ == "__main__":
    helpers.main()
