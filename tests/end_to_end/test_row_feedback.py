"""quantize --sensitivity: errors weighted by what outputs are worth, on any number of ranks, after a kill; and what is refused."""
import json
import os
import shutil

import h5py
import numpy as np

import helpers
import small_models


class RowFeedback(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = helpers.temporary_folder(cls)
        cls.file = cls.sensitivity("sensitivity.h5", helpers.MODEL)

    @classmethod
    def sensitivity(cls, name, model, *options):
        out = os.path.join(cls.folder, name)
        helpers.succeed("sensitivity", model, "--calibration", helpers.CALIBRATION, "--sequences", 8, "--length", 64, "-o", out,
                        *options)
        return out

    def arguments(self, out, *more, model=helpers.MODEL, file=None):
        words = ["quantize", model, "--calibration", helpers.CALIBRATION, "-o", out, "--bits", 3, "--group-size", 64,
                 "--sequences", 4, "--length", 64]
        return helpers.with_options(words + ["--sensitivity", file or self.file], *more)

    def quantize(self, name, *more, **how):
        helpers.succeed(*self.arguments(self.path(name), *more), **how)
        return self.path(name)

    def test_bytes_do_not_depend_on_ranks_threads_and_kills(self):
        expected = helpers.weights(self.quantize("one"))
        for ranks, threads in ((2, 1), (3, 1), (4, 1), (1, 2)):
            self.assertEqual(helpers.weights(self.quantize("%d-%d" % (ranks, threads), ranks=ranks, threads=threads)), expected)
        out = self.path("killed")
        helpers.kill_when(lambda: os.path.exists(os.path.join(out, "block-00001.h5")), *self.arguments(out), ranks=2)
        helpers.succeed(*self.arguments(out), ranks=3)
        self.assertEqual(helpers.weights(out), expected)
        plain = helpers.quantize(self.path("plain"), *"--bits 3 --group-size 64".split())
        self.assertNotEqual(helpers.weights(plain), expected)

    def test_other_methods_and_no_rounds(self):
        for options in ("--method ldlq --refine 1 --regrid 0", "--method snrq --bits 2 --group-size channel --asymmetric"):
            first = helpers.weights(self.quantize("a", *options.split()))
            self.assertEqual(helpers.weights(self.quantize("b", *options.split(), ranks=3)), first)
            shutil.rmtree(self.path("a"))
            shutil.rmtree(self.path("b"))

    def test_modules_of_fewer_rows_than_a_tile(self):
        model = small_models.write(self.path("model"), small_models.LLAMA_WITH_BIASES)
        ids = helpers.write_ids(self.path("ids.i32"), small_models.windows(small_models.LLAMA_WITH_BIASES, 6, 24))
        helpers.succeed("sensitivity", model, "--token-file", ids, "--sequences", 4, "--length", 24, "-o", self.path("s.h5"))
        found = []
        for ranks in (1, 2, 4):
            out = self.path("small-%d" % ranks)
            helpers.succeed("quantize", model, "--token-file", ids, "--length", 24, "--sequences", 4, "-o", out, "--bits", 3,
                            "--group-size", 16, "--sensitivity", self.path("s.h5"), ranks=ranks)
            found.append(helpers.weights(out))
        self.assertEqual(found, [found[0]] * 3)

    def test_a_resume_needs_the_same_file(self):
        out = self.path("out")
        helpers.kill_when(lambda: os.path.exists(os.path.join(out, "block-00000.h5")), *self.arguments(out), ranks=1)
        other = self.sensitivity("other.h5", helpers.MODEL, "--seed", 1)
        for words in (self.arguments(out, file=other), [w for w in self.arguments(out) if w not in ("--sensitivity", self.file)]):
            result = helpers.run(*words)
            self.assertEqual(result.code, helpers.USAGE, result)
            self.assertIn("sensitivity", result.stderr)
        moved = shutil.copy(self.file, self.path("moved.h5"))
        helpers.succeed(*self.arguments(out, file=moved))

    def refused(self, code, *expected, file, ranks=2):
        out = self.path("refused")
        result = helpers.run(*self.arguments(out, file=file), ranks=ranks)
        self.assertEqual(result.code, code, result)
        for text in expected:
            self.assertIn(text, result.stderr)
        self.assertFalse(os.path.exists(out))

    def changed(self, change):
        file = shutil.copy(self.file, self.path("changed.h5"))
        with h5py.File(file, "r+") as f:
            change(f)
        return file

    def test_bad_files(self):
        name = "model.layers.4.mlp.up_proj"

        def put(tile, i, j, value):
            def change(f):
                f[name][tile, i, j] = value
            return change

        def remove(f):
            del f[name]

        def reshape(f):
            del f[name]
            f.create_dataset(name, data=np.zeros((1, 64, 64), np.float32))

        def both(f):
            f[name][1, 2, 3] = f[name][1, 3, 2] = 1e6

        def spoil_square(f):
            f["squares"][name][3, 5] = -1.0

        def remove_squares(f):
            del f["squares"][name]

        def change_length(f):
            f.attrs["length"] = 63

        def make_old(f):
            f.attrs["format_version"] = np.int64(1)
            del f.attrs["length"], f["ids"], f["squares"]

        self.refused(helpers.BAD_DATA, "earlier version", "snrq sensitivity", file=self.changed(make_old))
        self.refused(helpers.BAD_DATA, name, "squares", file=self.changed(spoil_square))
        self.refused(helpers.BAD_DATA, name, "missing", file=self.changed(remove_squares))
        self.refused(helpers.BAD_DATA, "length is 63", file=self.changed(change_length))
        self.refused(helpers.BAD_DATA, name, file=self.changed(remove))
        self.refused(helpers.BAD_DATA, name, file=self.changed(reshape))
        self.refused(helpers.BAD_DATA, name, "tile 1", file=self.changed(put(1, 5, 5, np.nan)))
        self.refused(helpers.BAD_DATA, name, "tile 1", file=self.changed(put(1, 5, 5, -1.0)))
        self.refused(helpers.BAD_DATA, name, "tile 1", "positive definite", file=self.changed(both))

    def test_tokens_count_by_their_gradients(self):
        """Codes change with the squares of the run's own windows, and with nothing else: not with a common factor, or with those
        of other windows, which count as equal ones do."""
        def set_squares(values):
            def change(f):
                for table in f["squares"].values():
                    table[...] = values(table[()])
            return change

        def of_other_windows(f):
            f["ids"][0, 7] += 1

        def codes(name, change):
            self.file_now = self.changed(change)
            out = self.path(name)
            helpers.succeed(*self.arguments(out, file=self.file_now))
            with h5py.File(os.path.join(out, "block-00001.h5")) as f:
                return {key: f[key]["codes"][()].tobytes() for key in f}

        usual = codes("usual", lambda f: None)
        equal = codes("equal", set_squares(np.ones_like))
        self.assertNotEqual(usual, equal)
        self.assertEqual(usual, codes("larger", set_squares(lambda squares: 4 * squares)))
        self.assertEqual(equal, codes("others", of_other_windows))

    def test_a_file_of_another_model_and_none(self):
        model = helpers.copy_model(self.path("model"), rms_norm_eps=1e-6)
        self.refused(helpers.USAGE, "another model", file=self.sensitivity("another.h5", model))
        self.refused(helpers.NO_INPUT, "nowhere.h5", file=self.path("nowhere.h5"))
        with open(self.path("text.h5"), "w") as f:
            f.write("no HDF5")
        self.refused(helpers.BAD_DATA, "text.h5", file=self.path("text.h5"))

    def test_the_configuration_has_the_checksum(self):
        out = self.quantize("out")
        with open(os.path.join(out, "snrq.json")) as f:
            self.assertRegex(json.load(f)["sensitivity"], "^[0-9a-f]{32}$")

    def test_methods_without_feedback_refuse_it(self):
        result = helpers.run(*self.arguments(self.path("out"), "--method", "rtn"))
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("--sensitivity", result.stderr)


if __name__ == "__main__":
    helpers.main()
