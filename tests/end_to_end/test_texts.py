"""Texts as people bring them: JSON lines, gzip, several files, byte order marks, short texts, token files of other types."""
import gzip
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import helpers
from helpers import BAD_DATA, USAGE

WINDOWS = "--length 32 --sequences 8".split()


def at_once(function, cases):
    """function(*case) for all cases, four at a time: the start of the program is mostly waiting."""
    with ThreadPoolExecutor(4) as pool:
        return [one.result() for one in [pool.submit(function, *case) for case in cases]]


def stories(count):
    with open(helpers.HELDOUT, encoding="utf-8") as f:
        return f.read().split("\n\n")[:count]


class Texts(helpers.Test):
    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def read(self, *parts):
        with open(self.path(*parts), "rb") as f:
            return f.read()

    def lines(self, name, documents, key="text"):
        return self.write(name, "".join(json.dumps({"id": i, key: d}) + "\n" for i, d in enumerate(documents)))

    def tokenize(self, *texts, more=()):
        """The ids of texts, and what was said about them."""
        out = self.path("ids-%s" % "-".join(os.path.basename(text) for text in texts))
        options = [word for text in texts for word in ("--text", text)]
        result = helpers.succeed("tokenize", helpers.MODEL, *options, *more, "-o", out)
        return np.fromfile(out, "<i4").tolist(), result.stderr

    def ids(self, *texts, **how):
        return self.tokenize(*texts, **how)[0]

    def perplexity(self, *source, ranks=0):
        return helpers.succeed("evaluate", helpers.MODEL, *source, *WINDOWS, "--json", ranks=ranks).json()["perplexity"]

    def refused(self, code, words, *arguments):
        result = helpers.run(*arguments)
        self.assertEqual((result.code, result.stdout), (code, ""), result)
        for word in words:
            self.assertIn(word, result.stderr)

    def documents(self, count):
        """Each text of a file of its own, one after the other: what JSON lines must give."""
        files = [self.write("story-%d.txt" % i, story) for i, story in enumerate(stories(count))]
        return [i for ids in at_once(self.ids, [(name,) for name in files]) for i in ids]

    def test_json_lines_are_documents(self):
        expected = self.documents(6)
        lines = self.lines("lines.txt", stories(6))
        ids, said = self.tokenize(lines)
        self.assertEqual(ids, expected)
        self.assertIn("JSON lines, 6 documents", said)
        text = self.write("windows.json", b"\xef\xbb\xbf" + self.read("lines.txt").rstrip(b"\n").replace(b"\n", b"\r\n\r\n"))
        other = self.lines("other", stories(6), key="content")
        self.assertEqual(self.ids(text), expected)
        self.assertEqual(self.ids(other, more=("--text-key", "content")), expected)

    def test_gzip(self):
        text = "\n\n".join(stories(6))
        plain, lines = self.write("plain", text), self.lines("lines", stories(6))
        packed = self.write("packed", gzip.compress(text.encode()))
        two = self.read("lines")
        members = self.write("members.jsonl", gzip.compress(two[:700]) + gzip.compress(two[700:]))
        found = at_once(self.ids, [(plain,), (packed,), (lines,), (members,)])
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[2], found[3])
        cut = self.write("cut.gz", gzip.compress(text.encode())[:-20])
        bomb = self.write("bomb.gz", gzip.compress(bytes(100 << 20)))
        at_once(self.refused, [
            (BAD_DATA, (cut, "ends too early"), "evaluate", helpers.MODEL, "--text", cut),
            (BAD_DATA, (bomb, "packed so tightly"), "evaluate", helpers.MODEL, "--text", bomb)])

    def test_several_files_in_order(self):
        a, b = self.write("a.txt", stories(1)[0]), self.lines("b", stories(5)[1:])
        found = at_once(self.ids, [(a,), (b,), (a, b), (b, a)])
        self.assertEqual(found[2], found[0] + found[1])
        self.assertEqual(found[3], found[1] + found[0])

    def test_evaluate_and_quantize_read_them(self):
        a, b = self.write("a.txt", stories(1)[0]), self.lines("b", stories(9)[1:])
        ids = helpers.write_ids(self.path("ids"), self.ids(a, b))
        found = at_once(self.perplexity, [("--text", a, "--text", b), ("--token-file", ids)])
        self.assertEqual(found[0], found[1])
        self.assertEqual(self.perplexity("--text", a, "--text", b, ranks=2), found[0])
        plan = ("quantize", helpers.MODEL, "--calibration", a, "--calibration", b, "--dry-run", *WINDOWS)
        self.assertIn("8 windows of 32 tokens", helpers.succeed(*plan).stderr)

    def test_messages_name_the_right_file(self):
        good, bad = self.lines("good", stories(2)), self.write("bad", '{"text": "a"}\n{"text": 5}\n')
        short = self.write("short", "Once.")
        both = ("--text", good, "--text", bad)
        at_once(self.refused, [
            (BAD_DATA, (bad + ": line 2", "expected a string"), "evaluate", helpers.MODEL, *both),
            (BAD_DATA, (short + " and 1 other", "one window is 32"), "evaluate", helpers.MODEL, "--text", short, "--text",
             short, *WINDOWS),
            (USAGE, ("--text-key body", "no JSON lines"), "evaluate", helpers.MODEL, "--text", short, "--text-key", "body"),
            (USAGE, ("--text-key",), "evaluate", helpers.MODEL, "--token-file", short, "--text-key", "body"),
            (BAD_DATA, (good, 'no key "body"', '"id", "text"', "--text-key"), "evaluate", helpers.MODEL, "--text", good,
             "--text-key", "body")])

    def test_other_json_is_refused(self):
        records = [{"text": story} for story in stories(3)]
        pretty = self.write("pretty", json.dumps(records[0], indent=2))
        array = self.write("array.jsonl", json.dumps(records))
        at_once(self.refused, [
            (BAD_DATA, (pretty, "jq -c ."), "quantize", helpers.MODEL, "--calibration", pretty, "-o", self.path("out")),
            (BAD_DATA, (array, "jq -c '.[]'"), "evaluate", helpers.MODEL, "--text", array)])
        self.assertFalse(os.path.exists(self.path("out")))

    def test_a_text_that_begins_with_a_brace(self):
        text = self.write("text", "{Once} upon a time\n" + stories(1)[0])
        ids, said = self.tokenize(text)
        helpers.succeed("tokenize", helpers.MODEL, "--decode", helpers.write_ids(self.path("i"), ids), "-o",
                        self.path("back"))
        self.assertEqual(self.read("back"), self.read("text"))
        self.assertEqual(said, "")

    def test_notes(self):
        text = "\n\n".join(stories(4))
        plain = self.write("plain", text)
        marked = self.write("marked", b"\xef\xbb\xbf" + text.encode())
        windows = self.write("crlf", text.replace("\n", "\r\n"))
        nul = self.write("nul", text + "\0\0")
        empty = self.lines("empty", ["", *stories(2), ""])
        found = at_once(self.tokenize, [(plain,), (marked,), (windows,), (nul,), (empty,)])
        self.assertEqual(found[0][1], "")
        self.assertEqual(found[1][0], found[0][0])
        self.assertIn("byte order mark", found[1][1])
        self.assertNotEqual(found[2][0], found[0][0])
        self.assertIn("%d of %d lines end in CR LF" % (text.count("\n"), text.count("\n")), found[2][1])
        self.assertIn("2 bytes are NUL", found[3][1])
        self.assertIn("2 of 4 documents are empty", found[4][1])
        said = helpers.succeed("evaluate", helpers.MODEL, "--text", marked, *WINDOWS, ranks=2).stderr
        self.assertEqual(said.count("byte order mark"), 1)

    def short(self):
        """A text of fewer tokens than the model has inputs."""
        text = self.write("short", stories(1)[0][:250])
        count = len(self.ids(text))
        self.assertTrue(32 < count < 128, count)
        return text, count

    def test_overlapping_windows_do_not_hide_a_short_text(self):
        text, count = self.short()
        options = ("--length", count - 1, "--sequences", 64, "--method", "gptq")
        out = self.path("out")
        warned = helpers.succeed("quantize", helpers.MODEL, "--calibration", text, "-o", out, *options)
        self.assertIn("%d calibration tokens for 128 inputs" % count, warned.stderr)
        with open(os.path.join(out, "snrq.json")) as f:
            self.assertEqual(json.load(f)["calibration"]["distinct_positions"], count)
        self.refused(BAD_DATA, ("%d calibration tokens for 128 inputs" % count, "--strict"), "quantize", helpers.MODEL,
                     "--calibration", text, "-o", self.path("strict"), "--strict", *options)

    def test_an_output_without_distinct_positions_resumes(self):
        """snrq 0.1.0 did not write them."""
        out = helpers.quantize(self.path("out"), ranks=0)
        older, found = re.subn(rb'\n *"distinct_positions": \d+,', b"", self.read("out", "snrq.json"))
        self.assertEqual(found, 1)
        self.write("out/snrq.json", older)
        os.remove(self.path("out", "manifest.jsonl"))
        os.remove(self.path("out", "status.json"))
        helpers.quantize(out, ranks=0)
        helpers.succeed("verify", out)
        self.assertEqual(self.read("out", "snrq.json"), older)

    def test_token_files_of_other_types(self):
        ids = np.array(self.ids(helpers.HELDOUT)[:600])
        expected = self.perplexity("--token-file", helpers.write_ids(self.path("i4"), ids))
        cases = []
        for i, (kind, shape) in enumerate([("<i8", -1), (">u2", -1), ("<u4", (20, 30)), (">i4", (600, 1))]):
            np.save(self.path("%d.npy" % i), ids.astype(kind).reshape(shape))
            os.rename(self.path("%d.npy" % i), self.path("npy-%d" % i))
            cases.append(("--token-file", self.path("npy-%d" % i)))
        self.assertEqual(at_once(self.perplexity, cases), [expected] * len(cases))
        refusals = []
        for kind, what in ("<i8", "int64"), (">i4", "big-endian int32"), ("<u2", "uint16"), ("<f4", "float32"):
            raw = self.write(what, ids.astype(kind).tobytes())
            refusals.append((BAD_DATA, (raw, "looks like " + what, "numpy"), "evaluate", helpers.MODEL, "--token-file", raw))
        np.save(self.path("float.npy"), ids.astype("<f4"))
        refusals.append((BAD_DATA, ("float.npy", "type f4, expected integers"), "quantize", helpers.MODEL, "--token-file",
                         self.path("float.npy"), "-o", self.path("out")))
        at_once(self.refused, refusals)

    def test_usage_of_several_files(self):
        self.refused(USAGE, ("found also", "its own --calibration"), "quantize", helpers.MODEL, "--calibration",
                     helpers.CALIBRATION, helpers.HELDOUT, "-o", self.path("out"))


if __name__ == "__main__":
    helpers.main()
