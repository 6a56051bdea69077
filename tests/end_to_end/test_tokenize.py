"""snrq tokenize: the ids that were recorded elsewhere, back to the text, ids that the other commands read, bad input."""
import json
import os

import numpy as np

import helpers
from helpers import BAD_DATA, CANNOT_WRITE, NO_INPUT, USAGE

TOKENIZERS = ("llama2", "llama3", "phi3", "qwen3")
BYTE_LEVEL = ("llama3", "qwen3")


def recorded(path, count):
    """The `count` longest lines of a file of vectors."""
    with open(path, encoding="utf-8", newline="\n") as f:
        lines = [json.loads(line) for line in f.read().split("\n") if line]
    return sorted(lines, key=lambda line: len(line["text"]))[-count:]


class Tokenize(helpers.Test):
    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def encode(self, model, text, **how):
        """The ids of a text file, as `snrq tokenize` writes them."""
        helpers.succeed("tokenize", model, "--text", text, "-o", self.path("ids.i32"), **how)
        return np.fromfile(self.path("ids.i32"), dtype="<i4").tolist()

    def decode(self, model, ids):
        source = helpers.write_ids(self.path("back.i32"), ids)
        helpers.succeed("tokenize", model, "--decode", source, "-o", self.path("back.txt"))
        with open(self.path("back.txt"), "rb") as f:
            return f.read()

    def check_vectors(self, model, vectors, count):
        for line in recorded(vectors, count):
            text = self.write("text.txt", line["text"].encode())
            self.assertEqual(self.encode(model, text), line["ids"])

    def test_recorded_vectors_of_the_bundled_model(self):
        self.check_vectors(helpers.MODEL, os.path.join(helpers.DATA, "vectors.jsonl"), 3)

    def test_recorded_vectors_of_published_tokenizers(self):
        for name in TOKENIZERS:
            with self.subTest(tokenizer=name):
                model = helpers.shared("data", "tokenizers", name)
                self.check_vectors(model, os.path.join(model, "vectors.jsonl"), 2)

    def test_a_text_comes_back(self):
        with open(helpers.HELDOUT, "rb") as f:
            text = f.read()
        ids = self.encode(helpers.MODEL, helpers.HELDOUT, ranks=2)
        self.assertEqual(self.decode(helpers.MODEL, ids), text)

    def test_byte_level_tokenizers_lose_nothing(self):
        text = "\ufeff  a\tb\r\n\n<|endoftext|> \u00e9\u4e2d\U0001f600\u200d\x00\x7f 12345 \u2028 x  ".encode()
        source = self.write("text.txt", text)
        for name in BYTE_LEVEL:
            with self.subTest(tokenizer=name):
                model = helpers.shared("data", "tokenizers", name)
                self.assertEqual(self.decode(model, self.encode(model, source)), text)

    def test_part_of_the_ids_is_part_of_the_text(self):
        ids = self.encode(helpers.MODEL, helpers.HELDOUT)
        with open(helpers.HELDOUT, "rb") as f:
            self.assertIn(self.decode(helpers.MODEL, ids[40:80]), f.read())

    def test_summary(self):
        arguments = ("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", self.path("ids.i32"))
        found = helpers.succeed(*arguments, "--json").json()
        self.assertEqual(found["bytes"], os.path.getsize(self.path("ids.i32")))
        self.assertEqual(found["tokens"] * 4, found["bytes"])
        self.assertEqual(os.listdir(self.folder), ["ids.i32"])
        self.assertIn("%d tokens" % found["tokens"], helpers.succeed(*arguments).stdout)

    def test_evaluate_reads_the_ids(self):
        self.encode(helpers.MODEL, helpers.HELDOUT)
        options = "--length 32 --sequences 4 --json".split()
        of_text = helpers.succeed("evaluate", helpers.MODEL, "--text", helpers.HELDOUT, *options).json()
        of_ids = helpers.succeed("evaluate", helpers.MODEL, "--token-file", self.path("ids.i32"), *options).json()
        self.assertEqual(of_ids, of_text)

    def test_quantize_reads_the_ids(self):
        self.encode(helpers.MODEL, helpers.CALIBRATION)
        options = "--bits 3 --method ldlq --sequences 2 --length 32 -o".split()
        helpers.succeed("quantize", helpers.MODEL, "--token-file", self.path("ids.i32"), *options, self.path("ids"))
        helpers.succeed("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--windows", "consecutive",
                        *options, self.path("text"))
        # block files also say where their windows come from: compare what was decided
        self.assertEqual(self.objectives("ids"), self.objectives("text"))

    def objectives(self, name):
        modules = helpers.succeed("inspect", self.path(name), "--json").json()["modules"]
        self.assertGreater(len(modules), 0)
        return [(m["name"], m["objective"], m["output_error"]) for m in modules]

    def refused(self, code, words, *arguments):
        result = helpers.run("tokenize", *arguments, "-o", self.path("out"))
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.stdout, "", result)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertFalse(os.path.exists(self.path("out")), result)
        self.assertFalse(os.path.exists(self.path("out.tmp")), result)

    def test_bad_text(self):
        bad = self.write("bad.txt", b"caf\xc3\xa9 ol\xe9!")
        self.refused(BAD_DATA, (bad, "byte 8", "0xe9"), helpers.MODEL, "--text", bad)
        empty = self.write("empty.txt", b"")
        self.refused(BAD_DATA, (empty, "empty"), helpers.MODEL, "--text", empty)
        self.refused(NO_INPUT, ("none.txt",), helpers.MODEL, "--text", self.path("none.txt"))
        self.refused(BAD_DATA, ("regular file",), helpers.MODEL, "--text", self.folder)

    def test_bad_ids(self):
        for ids in ([1, 5, 1 << 20], [1, 5, -3]):
            source = helpers.write_ids(self.path("ids.i32"), ids)
            self.refused(BAD_DATA, (source, "token 2", str(ids[2])), helpers.MODEL, "--decode", source)
        cut = self.write("cut.i32", b"\x01\0\0\0\x05\0")
        self.refused(BAD_DATA, (cut, "6 bytes", "multiple of 4"), helpers.MODEL, "--decode", cut)
        self.refused(NO_INPUT, ("none.i32",), helpers.MODEL, "--decode", self.path("none.i32"))

    def test_a_missing_tokenizer(self):
        self.refused(NO_INPUT, ("tokenizer.json",), self.folder, "--text", helpers.HELDOUT)

    def test_an_output_that_cannot_be(self):
        for out in (self.path("no", "ids.i32"), self.folder):
            result = helpers.run("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "-o", out)
            self.assertEqual(result.code, CANNOT_WRITE, result)
        self.assertEqual(os.listdir(self.folder), [])

    def test_usage(self):
        for arguments in ((), ("--text", helpers.HELDOUT, "--decode", helpers.HELDOUT)):
            self.refused(USAGE, ("--text", "--decode"), helpers.MODEL, *arguments)


if __name__ == "__main__":
    helpers.main()
