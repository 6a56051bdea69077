"""What the engines are given to read, and what the program itself says about it.

A model has windows of tokens that are scored and texts that are tokenized. A source is a model as it is, or quantized; an
export is a source in one format. Files are made when they are first asked for, below one folder.
"""
import functools
import json
import os
import shutil
import subprocess
import sys
import unicodedata

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "end_to_end"))

import helpers
import small_models

TEXTS = 200

# What tokenizers disagree on: spaces, digits, letters and marks of other scripts, emoji, line ends, contractions.
HARD_TEXTS = ["Once upon a time", "\n", "a\n\nb\n", "\tindented", "  two spaces before, and two after  ", "x", "1234567890",
              "no_space-here;x=y", "CAPITALS AND more", "caf\u00e9 na\u00efve \u00fcber", "\u6f22\u5b57 and \u304b\u306a",
              "\U0001f600 \U0001f468\u200d\U0001f469", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
              "...!?--\"quoted\" 'single'", "it's we're they'll I'd you've", "tabs\tand  spaces \n mixed\r\nlines",
              "One day, Lily's dog found 12 red cats and 345 blue ones."]


class Setting:
    """How a model is quantized. `kind` names what engines may not have: symmetric, asymmetric, permuted, BF16 scales."""

    def __init__(self, bits, group, kind="symmetric"):
        self.bits, self.group, self.kind = bits, group, kind

    def __str__(self):
        return "%d %s" % (self.bits, self.group if self.group == "channel" else "g%d" % self.group)

    def options(self):
        options = ["--bits", self.bits, "--group-size", self.group]
        options += ["--asymmetric"] if "asymmetric" in self.kind.split() else []
        # Only a method with an order of columns has permuted groups.
        options += ["--method", "gptq", "--groups", "permuted"] if "permuted" in self.kind else ["--method", "rtn"]
        # Scales of either sign, as the defaults have them: every engine must multiply by what is stored.
        plain = "symmetric" in self.kind.split() and "permuted" not in self.kind
        options += ["--grid", "hessian", "--scale-signs", "either"] if plain else []
        options += ["--scale-type", "bf16"] if "BF16" in self.kind else []
        return options

    def fits(self, form):
        """Whether the pages of the formats say that `form` holds it; then the program must export it."""
        if form == "fp8":
            return False
        if form == "gguf":  # docs/gguf.md
            return self.kind == "symmetric" or (self.kind == "asymmetric" and self.bits < 8)
        return form != "gptq" or "BF16" not in self.kind


class Stored(Setting):
    """A format of --format. `forms`: what holds it."""

    def __init__(self, name, forms=("gguf",)):
        super().__init__(int(next(c for c in name if c.isdigit())), name, "stored")
        self.forms = forms

    def __str__(self):
        return "%d %s" % (self.bits, self.group)

    def options(self):
        return ["--format", self.group, "--method", "rtn"]

    def fits(self, form):
        return form in self.forms


FORMATS = [Stored(name) for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl",
                                     "iq4_xs", "mxfp4")]
FLOATS = [Stored("nvfp4", ["compressed-tensors"]), Stored("mxfp4", ["compressed-tensors"]),
          Stored("fp8_block", ["compressed-tensors", "fp8"])]


class Preset(Stored):
    """A mixture of types, embeddings and head among them."""

    def __init__(self, name):
        super().__init__(name)
        self.kind = "preset"

    def options(self):
        return ["--preset", self.group, "--method", "rtn"]


PRESETS = [Preset(name) for name in ("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k")]
COMMON = [Setting(bits, group, kind) for kind in ("symmetric", "asymmetric") for bits in (2, 3, 4, 8)
          for group in (32, 64, "channel")]
RARE = [Setting(4, 64, kind) for kind in ("permuted", "permuted asymmetric", "BF16 scales")]


def token_ids(directory, texts, *special):
    """By the program's own tokenizer. "special": with the tokens that the model puts around a text."""
    done = subprocess.run([os.environ["SNRQ_TOKEN_IDS"], directory, *special], input=json.dumps(texts).encode(), check=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout)


class Model:
    """A model with `windows` [count, length] to be scored, or None: only its tokenizer counts. `prompt`: a text that it
    continues without a near tie, so that 8 bits do not change a token, or None."""

    def __init__(self, folder, name, directory, windows, prompt=None):
        self.folder, self.name, self.directory, self.windows = folder, name, directory, windows
        self.prompt = token_ids(directory, [prompt], "special")[0] if prompt else None

    def path(self, *words):
        return os.path.join(self.folder, "-".join([self.name, *map(str, words)]).replace(" ", "-"))

    @functools.cached_property
    def window_file(self):
        return helpers.write_ids(self.path("windows.ids"), self.windows)

    @functools.cached_property
    def texts(self):
        """TEXTS different texts: hard ones, those that other tokenizers have agreed on, lines of the held-out text."""
        vectors = os.path.join(self.directory, "vectors.jsonl")
        with open(vectors if os.path.exists(vectors) else os.path.join(helpers.DATA, "vectors.jsonl"), encoding="utf-8",
                  newline="\n") as f:
            found = HARD_TEXTS + [json.loads(line)["text"] for line in f.read().split("\n") if line]
        with open(helpers.HELDOUT, encoding="utf-8") as f:
            found += f.read().splitlines()
        return [text for text in dict.fromkeys(found) if text and "\0" not in text][:TEXTS]

    @functools.cached_property
    def expected_ids(self):
        return token_ids(self.directory, self.texts, "special")

    def config(self):
        with open(os.path.join(self.directory, "config.json"), encoding="utf-8") as f:
            return json.load(f)

    def head_dim(self):
        config = self.config()
        return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]

    def excuse(self, text):
        """Whether llama.cpp may cut a text otherwise: it does not normalize, it puts a space before one that begins with a
        space where Metaspace does not, it puts spaces elsewhere beside special tokens that are written out, and takes `</s>` for one of any vocabulary."""
        with open(os.path.join(self.directory, "tokenizer.json"), encoding="utf-8") as f:
            rules = json.load(f)
        if "NFC" in json.dumps(rules["normalizer"]) and unicodedata.normalize("NFC", text) != text:
            return True
        if "Metaspace" in json.dumps(rules["pre_tokenizer"]) and text[0] in " \u2581":
            return True
        return text == "</s>" or any(token["content"] in text for token in rules["added_tokens"])


def text_model(folder, name, directory, text, count, length, prompt=None):
    with open(text, encoding="utf-8") as f:
        ids = token_ids(directory, [f.read(20000)])[0][: count * length]
    return Model(folder, name, directory, np.asarray(ids, dtype=np.int32).reshape(count, length), prompt)


def random_model(folder, name, directory):
    """Windows of random ids, which stay within the sliding window: llama.cpp ignores it."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    length = min(config.get("sliding_window") or 96, 96) if not config["model_type"].startswith("gemma") else 96
    ids = np.random.default_rng(5).integers(3, config["vocab_size"] - 3, (4, length)).astype(np.int32)
    return Model(folder, name, directory, ids)


def edited_copy(directory, copy, **changed):
    """A copy of a model with other entries in config.json."""
    if not os.path.exists(copy):
        shutil.copytree(directory, copy)
        os.chmod(copy, 0o755)
        path = os.path.join(copy, "config.json")
        os.chmod(path, 0o644)
        with open(path, encoding="utf-8") as f:
            config = dict(json.load(f), **changed)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
    return copy


def tokenizer_model(folder, name, vocabulary):
    """A tokenizer of full size in a model of next to no weights."""
    source, directory = helpers.shared("data", "tokenizers", name), os.path.join(folder, "tokenizer-" + name)
    base, more = small_models.MISTRAL_WITH_WINDOW, {"sliding_window": None}
    if name == "phi3":
        base, more = small_models.PHI3_TURNED_IN_PART, {"rope_scaling": None, "partial_rotary_factor": 1.0}
    if not os.path.exists(directory):
        small_models.write(directory, dict(base, vocab_size=vocabulary, num_hidden_layers=1, hidden_size=32,
                                           intermediate_size=32, tie_word_embeddings=True, **more))
        for file in ("tokenizer.json", "vectors.jsonl"):
            shutil.copy(os.path.join(source, file), directory)
    return Model(folder, "tokenizer of " + name, directory, None)


def wide_model(folder):
    """Random, and wide enough for the K types of GGUF: rows of a multiple of 256."""
    config = dict(small_models.MISTRAL_WITH_WINDOW, sliding_window=None, hidden_size=256, intermediate_size=512, head_dim=64)
    directory = os.path.join(folder, "wide")
    if not os.path.exists(directory):
        small_models.write(directory, config)
        shutil.copy(os.path.join(helpers.MODEL, "tokenizer.json"), directory)  # GPTQModel does not load without one
    return random_model(folder, "wide model", directory)


class Source:
    """A model, or what `quantize` makes of it: by method rtn, for the exports are tested and not their quality."""

    def __init__(self, model, setting=None):
        self.model, self.setting = model, setting

    @functools.cached_property
    def directory(self):
        if self.setting is None:
            return self.model.directory
        out = self.model.path(self.setting.kind, self.setting)
        if not os.path.exists(out):
            helpers.succeed("quantize", self.model.directory, "--token-file", self.model.window_file, "-o", out + ".new",
                            "--sequences", 1, "--length", 48, *self.setting.options(), timeout=1800)
            os.rename(out + ".new", out)
        return out

    @functools.cached_property
    def logprobs(self):
        """Of every token of the windows but the first of each [windows, length - 1], by `snrq evaluate`."""
        out = self.model.path(*([self.setting.kind, self.setting] if self.setting else ["model"]), "logprobs.npy")
        if not os.path.exists(out):
            helpers.succeed("evaluate", self.directory, "--token-file", self.model.window_file, "--length",
                            self.model.windows.shape[1], "--logprobs", out, timeout=1800)
        return np.load(out).reshape(len(self.model.windows), -1).astype(np.float64)

    def is_broken(self):
        """Whether rounding has cost so much that the text is a surprise: 3 nats per token."""
        return self.model.windows is not None and self.logprobs.mean() < Source(self.model).logprobs.mean() - 3.0

    def export_path(self, form, options):
        words = [self.setting.kind, self.setting] if self.setting else ["model"]
        return self.model.path(*words, form, *[str(option).strip("-") for option in options])

    def notes(self, form, *options):
        """What the program said when it exported, line by line."""
        if form is None:
            return []
        with open(self.export_path(form, options) + ".notes", encoding="utf-8") as f:
            return f.read().splitlines()

    def export(self, form, *options):
        """What an engine is to open: a directory, or a GGUF file. form None: the model itself."""
        if form is None:
            return self.directory
        out = self.export_path(form, options)
        if not os.path.exists(out + ".notes"):
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(out + ".new", ignore_errors=True)
            told = helpers.succeed("export", self.directory, "--format", form, "-o", out + ".new", *options, timeout=1800)
            helpers.succeed("verify", self.directory, "--export", out + ".new", timeout=1800)
            os.rename(out + ".new", out)
            with open(out + ".notes", "w", encoding="utf-8") as f:
                f.write(told.stdout + told.stderr)
        return os.path.join(out, "model.gguf") if form == "gguf" else out
