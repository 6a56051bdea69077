"""snrq tokenize: ids that were recorded elsewhere, back to the text, ids that the other commands read, bad input."""
import importlib.util
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import helpers
from helpers import BAD_DATA, CANNOT_WRITE, NO_INPUT, USAGE

TOKENIZERS = ("llama2", "llama3", "phi3", "qwen3")
BYTE_LEVEL = ("llama3", "qwen3")


def recorded(path, count):
    """The `count` longest lines of a file of vectors; 0: all."""
    with open(path, encoding="utf-8", newline="\n") as f:
        lines = [json.loads(line) for line in f.read().split("\n") if line]
    return sorted(lines, key=lambda line: len(line["text"]))[-count:]


def at_once(function, cases):
    """function(*case) for all cases, four at a time: the start of the program is mostly waiting."""
    with ThreadPoolExecutor(4) as pool:
        return [one.result() for one in [pool.submit(function, *case) for case in cases]]


class Tokenize(helpers.Test):
    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def encode(self, model, text, **how):
        """The ids of a text file, as `snrq tokenize` writes them beside it."""
        helpers.succeed("tokenize", model, "--text", text, "-o", text + ".i32", **how)
        return np.fromfile(text + ".i32", dtype="<i4").tolist()

    def decode(self, model, source):
        helpers.succeed("tokenize", model, "--decode", source, "-o", source + ".txt")
        with open(source + ".txt", "rb") as f:
            return f.read()

    def check_vector(self, model, vectors, index):
        line = recorded(vectors, 2)[index]
        text = self.write("%s-%d" % (os.path.basename(model), index), line["text"].encode())
        self.assertEqual(self.encode(model, text), line["ids"])

    def test_recorded_vectors_of_the_bundled_model(self):
        at_once(self.check_vector, [(helpers.MODEL, os.path.join(helpers.DATA, "vectors.jsonl"), i) for i in (0, 1)])

    def test_recorded_vectors_of_published_tokenizers(self):
        models = [helpers.shared("data", "tokenizers", name) for name in TOKENIZERS]
        at_once(self.check_vector, [(model, os.path.join(model, "vectors.jsonl"), 1) for model in models])

    def test_recorded_vectors_of_smollm2(self):
        # Its directory is made from a GGUF file, which holds the tokenizer; the weights are not needed here.
        source = helpers.shared("data", "models", "smollm2")
        spec = importlib.util.spec_from_file_location("expand", os.path.join(source, "expand.py"))
        expand = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(expand)
        with open(os.path.join(source, "SmolLM2-135M-Instruct.Q4_1.gguf"), "rb") as f:
            reader = expand.Reader(memoryview(f.read()))
        reader.at = 16
        fields = {reader.string(): reader.value(reader.scalar(4)) for _ in range(reader.scalar(10))}
        tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
        added = [{"id": i, "content": tokens[i], "special": True} for i, kind in enumerate(kinds) if kind == 3]
        steps = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]
        os.mkdir(self.path("smollm2"))
        self.write("smollm2/tokenizer.json", json.dumps({
            "added_tokens": added, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)},
                      "merges": fields["tokenizer.ggml.merges"]}}).encode())
        lines = recorded(os.path.join(helpers.DATA, "smollm2_vectors.jsonl"), 0)
        done = subprocess.run([os.environ.get("SNRQ_TOKEN_IDS") or shutil.which("token_ids"), self.path("smollm2")],
                              input=json.dumps([line["text"] for line in lines]).encode(), stdout=subprocess.PIPE,
                              check=True)
        self.assertEqual(json.loads(done.stdout), [line["ids"] for line in lines])

    def model(self, name, tokenizer=None, settings=None):
        """The bundled model with its two tokenizer files changed by functions of their contents."""
        directory = helpers.copy_model(self.path(name))
        for file, change in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
            path = os.path.join(directory, file)
            with open(path, encoding="utf-8") as f:
                content = json.load(f)
            if change is not None:
                change(content)
                with open(path, "w", encoding="utf-8") as f:
                    json.dump(content, f)
        return directory

    def test_flags_overrule_the_post_processor(self):
        text = self.write("text", b"Once upon a time")
        whole = self.encode(helpers.MODEL, text)
        self.assertEqual(whole[0], 1)
        inner = whole[1:]
        for i, (changed, expected) in enumerate((
                ({"add_bos_token": False}, inner), ({"add_eos_token": True}, [1] + inner + [2]),
                ({"add_bos_token": None, "add_eos_token": None}, [1] + inner),
                ({"add_bos_token": True, "bos_token": {"content": "</s>"}}, [2] + inner),
                ({"add_bos_token": True, "bos_token": None}, [1] + inner))):
            with self.subTest(changed):
                model = self.model("flags%d" % i, settings=lambda c, changed=changed: c.update(changed))
                self.assertEqual(self.encode(model, text), expected)

    def test_a_post_processor_that_the_settings_make(self):
        model = self.model("none", tokenizer=lambda t: t.update(post_processor=None),
                           settings=lambda c: c.update(add_bos_token=True, add_eos_token=True))
        text = self.write("text", b"Once upon a time")
        self.assertEqual(self.encode(model, text), self.encode(helpers.MODEL, text) + [2])

    def test_matches_that_are_removed(self):
        def split(behavior, invert):
            step = {"type": "Split", "pattern": {"Regex": "[0-9]"}, "behavior": behavior, "invert": invert}
            return lambda t: t.update(pre_tokenizer=step)
        text = self.write("text", b"a1bc23d")
        ids = {name: self.encode(self.model("%s%d" % (name[0], name[1]), tokenizer=split(*name)), text)[1:]
               for name in (("Isolated", False), ("Removed", False), ("Removed", True))}
        digits = {ids_[0] for ids_ in (self.encode(self.model("d%s" % d, tokenizer=split("Removed", True)),
                                                   self.write("digit" + d, d.encode()))[1:] for d in "123")}
        isolated = ids["Isolated", False]
        self.assertEqual(ids["Removed", False], [i for i in isolated if i not in digits])
        self.assertEqual(ids["Removed", True], [i for i in isolated if i in digits])

    def test_a_vocabulary_with_nul(self):
        def rename(t):
            last, = [text for text, id_ in t["model"]["vocab"].items() if id_ == 1023]
            t["model"]["merges"] = [m for m in t["model"]["merges"] if last not in ("".join(m), *m)
                                    and last.replace(" ", "") != "".join(m).replace(" ", "")]
            del t["model"]["vocab"][last]
            t["model"]["vocab"]["\0"] = 1023
        model = self.model("nul", tokenizer=rename)
        text = self.write("text", b"a\0b")
        plain = self.encode(helpers.MODEL, text)  # without such a token: the byte <0x00>, which is id 3
        self.assertEqual([1023 if i == 3 else i for i in plain], self.encode(model, text))
        self.assertEqual(self.decode(model, text + ".i32"), b"a\0b")
        elsewhere = self.model("elsewhere", tokenizer=lambda t: t["added_tokens"][0].update(content="\0"))
        result = helpers.run("tokenize", elsewhere, "--text", text, "-o", self.path("x"))
        self.assertEqual(result.code, BAD_DATA, result)
        self.assertIn("U+0000", result.stderr)
        self.assertIn("--token-file", result.stderr)

    def test_a_text_comes_back(self):
        with open(helpers.HELDOUT, "rb") as f:
            text = f.read()
        ids = self.encode(helpers.MODEL, self.write("all", text), ranks=2)
        part = helpers.write_ids(self.path("part.i32"), ids[40:80])
        self.assertEqual(self.decode(helpers.MODEL, self.path("all.i32")), text)
        self.assertIn(self.decode(helpers.MODEL, part), text)

    def check_nothing_is_lost(self, model, text):
        source = self.write(os.path.basename(model), text)
        self.encode(model, source)
        self.assertEqual(self.decode(model, source + ".i32"), text)

    def test_byte_level_tokenizers_lose_nothing(self):
        text = " \ufeff a\tb\r\n\n<|endoftext|> \u00e9\u4e2d\U0001f600\u200d\x00\x7f 12345 \u2028 x  ".encode()
        at_once(self.check_nothing_is_lost, [(helpers.shared("data", "tokenizers", n), text) for n in BYTE_LEVEL])

    def test_summary(self):
        arguments = ("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", self.path("ids.i32"))
        found = helpers.succeed(*arguments, "--json").json()
        self.assertEqual(found["bytes"], os.path.getsize(self.path("ids.i32")))
        self.assertEqual(found["tokens"] * 4, found["bytes"])
        self.assertEqual(os.listdir(self.folder), ["ids.i32"])
        self.assertIn("%d tokens" % found["tokens"], helpers.succeed(*arguments).stdout)

    def copy(self, path):
        with open(path, "rb") as f:
            return self.write(os.path.basename(path), f.read())

    def test_evaluate_reads_the_ids(self):
        text = self.copy(helpers.HELDOUT)
        self.encode(helpers.MODEL, text)
        found = at_once(lambda *source: helpers.succeed("evaluate", helpers.MODEL, *source, "--length", 32,
                                                        "--sequences", 4, "--json").json(),
                        [("--text", text), ("--token-file", text + ".i32")])
        self.assertEqual([figures.pop("text") for figures in found], [text, text + ".i32"])
        self.assertEqual(found[0], found[1])

    def test_quantize_reads_the_ids(self):
        text = self.copy(helpers.CALIBRATION)
        self.encode(helpers.MODEL, text)
        plan = helpers.succeed("quantize", helpers.MODEL, "--token-file", text + ".i32", "--dry-run",
                               *"--sequences 5 --length 32".split())
        self.assertIn("5 windows of 32 tokens", plan.stderr)

    def refused(self, code, words, *arguments):
        out = self.path("out-%d" % abs(hash(arguments)))
        result = helpers.run("tokenize", *arguments, "-o", out)
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.stdout, "", result)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertFalse(os.path.exists(out), result)
        self.assertFalse(os.path.exists(out + ".tmp"), result)

    def test_bad_text(self):
        bad, empty = self.write("bad.txt", b"caf\xc3\xa9 ol\xe9!"), self.write("empty.txt", b"")
        at_once(self.refused, [
            (BAD_DATA, (bad, "byte 8", "0xe9"), helpers.MODEL, "--text", bad),
            (BAD_DATA, (empty, "empty"), helpers.MODEL, "--text", empty),
            (NO_INPUT, ("none.txt",), helpers.MODEL, "--text", self.path("none.txt")),
            (BAD_DATA, ("regular file",), helpers.MODEL, "--text", self.folder)])

    def test_bad_ids(self):
        high = helpers.write_ids(self.path("high.i32"), [1, 5, 1 << 20])
        negative = helpers.write_ids(self.path("negative.i32"), [1, -3])
        cut = self.write("cut.i32", b"\x01\0\0\0\x05\0")
        at_once(self.refused, [
            (BAD_DATA, (high, "token 2", "1048576"), helpers.MODEL, "--decode", high),
            (BAD_DATA, (negative, "token 1", "-3"), helpers.MODEL, "--decode", negative),
            (BAD_DATA, (cut, "6 bytes", "multiple of 4"), helpers.MODEL, "--decode", cut),
            (NO_INPUT, ("none.i32",), helpers.MODEL, "--decode", self.path("none.i32"))])

    def test_a_missing_tokenizer(self):
        self.refused(NO_INPUT, ("tokenizer.json",), self.folder, "--text", helpers.HELDOUT)

    def test_an_output_that_cannot_be(self):
        for out in (self.path("no", "ids.i32"), self.folder):
            result = helpers.run("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", out)
            self.assertEqual(result.code, CANNOT_WRITE, result)
        self.assertEqual(os.listdir(self.folder), [])

    def test_usage(self):
        at_once(self.refused, [(USAGE, ("--text", "--decode"), helpers.MODEL, *more)
                               for more in ((), ("--text", helpers.HELDOUT, "--decode", helpers.HELDOUT))])


if __name__ == "__main__":
    helpers.main()
