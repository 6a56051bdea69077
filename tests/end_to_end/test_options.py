"""Options as a user meets them: files of options, what is stored and shown, and what counts as the same on resume."""
import os

import helpers

RUN = ["quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--length", 32]


class Options(helpers.Test):
    def quantize(self, out, *options, code=0, ranks=0):
        result = helpers.run(*helpers.with_options([*RUN, "--sequences", 2, "-o", out], *options), ranks=ranks)
        self.assertEqual(result.code, code, result)
        return result

    def write(self, name, text):
        with open(self.path(name), "w", newline="") as f:
            f.write(text)
        return self.path(name)

    def stored(self, out):
        return helpers.succeed("inspect", out, "--json").json()["configuration"]["options"]

    def test_a_file_of_options_says_what_the_command_line_says(self):
        words = "--bits 3 --group-size 64 --method gptq --refine 1 --scale-type bf16".split()
        lines = ["%s %s" % pair for pair in zip(words[::2], words[1::2])]
        file = self.write("my options", "# a comment\r\n\r\n" + "\r\n".join(lines) + "\r\n")
        self.quantize(self.path("a"), *words, ranks=2)
        self.quantize(self.path("b"), "--options", file, ranks=2)
        self.assertEqual(helpers.weights(self.path("a")), helpers.weights(self.path("b")))
        printed = [helpers.succeed("quantize", "--print-options", *more).stdout for more in (words, ["--options", file])]
        self.assertEqual(*printed)
        again = self.write("printed", printed[0])
        self.assertEqual(helpers.succeed("quantize", "--print-options", "--options", again).stdout, printed[0])

    def test_faults_of_a_file_on_two_ranks(self):
        file = self.write("options", "# mine\n--bits 3\n--bits 4\n")
        for path, code, words in ((file, helpers.USAGE, (file, "line 3", "given twice")),
                                  (self.path("none"), helpers.NO_INPUT, (self.path("none"),)),
                                  (self.folder, helpers.BAD_DATA, (self.folder, "regular file"))):
            for ranks in 0, 2:
                result = self.quantize(self.path("out"), "--options", path, code=code, ranks=ranks)
                self.assertEqual(result.stderr.count("\nsnrq: ") + result.stderr.startswith("snrq: "), 1, result)
                for word in words:
                    self.assertIn(word, result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))

    def test_the_file_of_options_is_no_output(self):
        file = self.write("options", "--json\n")
        result = helpers.run("tokenize", helpers.MODEL, "--text", helpers.HELDOUT, "--options", file, "-o", file)
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("is the same file as", result.stderr)

    def test_what_is_stored_and_shown_is_what_is_done(self):
        shown = self.quantize(self.path("out"), "--method", "gptq", "--group-size", 4096, "--factor-grid", "1x1").stderr
        plan = next(line for line in shown.splitlines() if line.startswith("method "))
        self.assertNotIn("beam", plan)
        self.assertNotIn("alpha", plan)
        self.assertIn("per channel", plan)
        stored = self.stored(self.path("out"))
        self.assertEqual((stored["beam"], stored["regrid"], stored["alpha"]), (1, 0, None))
        self.assertEqual((stored["group-size"], "factor-grid" in stored), ("channel", False))
        self.assertEqual((stored["sequences"], stored["length"]), (2, 32))

    def test_values_count_on_resume(self):
        out = self.path("out")
        self.quantize(out, *"--method snrq --alpha fixed:0.5 --group-size channel --damp 0.01".split())
        before = helpers.weights(out)
        for same in ("--alpha fixed:.5 --group-size channel", "--alpha fixed:0.5 --group-size 1000000",
                     "--alpha fixed:5e-1 --group-size 384 --beam 1",
                     "--alpha fixed:0.5 --group-size channel --factor-grid 1x1", # it is about speed alone
                     "--alpha fixed:0.5 --group-size channel --damp 1e-2 --windows random --shrink auto"):
            said = self.quantize(out, "--method", "snrq", *same.split()).stderr
            self.assertIn("nothing to do", said, same)
        said = self.quantize(out, *"--method snrq --alpha fixed:0.6 --group-size 128".split(), code=helpers.USAGE).stderr
        self.assertIn('options.alpha: the finished run has "fixed:0.5", this one "fixed:0.6"', said)
        self.assertIn('options.group-size: the finished run has "channel", this one 128', said)
        self.assertEqual(helpers.weights(out), before)

    def test_groups_of_all_columns_are_channels(self):
        """Byte by byte, also where the strength depends on the kind of groups."""
        for method in "--method ksnrq --alpha chained --beam 2", "--method gptq":
            outs = [self.path(method[9:11] + size) for size in ("channel", "384", "1000000")]
            for out, size in zip(outs, ("channel", "384", "1000000")):
                self.quantize(out, "--group-size", size, *method.split())
            blocks = [[helpers.sha256(os.path.join(out, name)) for name in sorted(os.listdir(out))
                       if name.startswith("block-")] for out in outs]
            self.assertEqual(len(blocks[0]), 6)
            self.assertEqual(blocks[0], blocks[1])
            self.assertEqual(blocks[0], blocks[2])

    def test_a_run_with_options_in_an_older_form_goes_on(self):
        """What was typed, also what has no effect now, and 0 for what was measured."""
        new, old = self.path("new"), self.path("old")
        self.quantize(new, *"--method gptq --bits 3 --group-size 64".split())
        with open(os.path.join(new, "snrq.json")) as f:
            text = f.read()
        for now, before in (('"alpha": null', '"alpha": "fixed:.5"'), ('"beam": 1', '"beam": 16'),
                            ('"first-tokens": ', '"factor-grid": "2x4",\n    "first-tokens": '),  # keys are sorted
                            ('"regrid": 0', '"regrid": 3')):
            self.assertEqual(text.count(now), 1, now)
            text = text.replace(now, before)
        head, tail = text.split('"options"')
        tail = tail.replace('"length": 32', '"length": 0').replace('"sequences": 2', '"sequences": 0')
        os.mkdir(old)
        self.write(os.path.join("old", "snrq.json"), head + '"options"' + tail)
        self.quantize(old, *"--method gptq --bits 3 --group-size 64".split())
        self.assertEqual(helpers.weights(new), helpers.weights(old))
        self.assertEqual(self.stored(old)["beam"], 16)  # a run keeps its snrq.json
        said = self.quantize(old, *"--method gptq --bits 4 --group-size 64".split(), code=helpers.USAGE).stderr
        self.assertIn("options.bits: the finished run has 3, this one 4. Run", said)

    def test_options_in_vain_are_refused_on_two_ranks(self):
        for options, words in (("--method gptq --regrid 3", "--regrid 3 has no effect"),
                               ("--method rtn --refine 2", "--refine 2 has no effect"),
                               ("--method rtn --alpha corr", "--alpha corr has no effect"),
                               ("--method snrq --beam 16", "--beam 16 has no effect")):
            for ranks in 0, 2:
                said = self.quantize(self.path("out"), *options.split(), code=helpers.USAGE, ranks=ranks).stderr
                self.assertIn(words, said)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    helpers.main()
