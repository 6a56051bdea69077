"""quantize --tune: scales and norms against Adam in float64, the same bytes on any number of ranks and after kills."""
import json
import os
import shutil
import sys

import h5py
import numpy as np

import helpers
import small_models

sys.path.insert(0, helpers.DATA)
import backward_reference
import forward_reference

OPTIONS = "--bits 3 --group-size 16 --method rtn --sequences 16 --held-out 1"
BATCH, RATE, WARM_UP, MEAN, SQUARE = 8, 0.01, 0.05, 0.9, 0.99


class Leaf(backward_reference.Traced):
    """Weights that get a gradient."""
    def astype(self, _):
        return self


def unpack(packed, columns, bits):
    flat = np.unpackbits(packed, axis=1, bitorder="little")[:, :columns * bits].reshape(len(packed), columns, bits)
    return (flat << np.arange(bits)).sum(axis=2)


def stored(values, kind):
    """float64 rounded to what a tensor of this type holds."""
    if kind == "BF16":
        bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7fff + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16) << np.uint64(16)
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return values.astype({"F16": np.float16, "F32": np.float32}[kind]).astype(np.float64)


class Twin:
    """The quantized model of OUT and its optimizer."""
    def __init__(self, directory, out):
        self.model = backward_reference.Model(directory)
        self.full = forward_reference.Model(directory)
        self.less = float(self.model.gemma)
        self.value, self.kind, self.codes, self.g_idx = {}, {}, {}, {}
        for name in sorted(os.listdir(out)):
            if name.startswith("block-"):
                with h5py.File(os.path.join(out, name), "r") as f:
                    for module, data in f.items():
                        self.read_module(module + ".weight", data)
        for name, w in self.model.w.items():
            if w.ndim == 1 and "norm" in name:
                self.value[name], self.kind[name] = w + self.less, self.kind_of(directory)
        self.mean = {name: np.zeros_like(v) for name, v in self.value.items()}
        self.square = {name: np.zeros_like(v) for name, v in self.value.items()}

    @staticmethod
    def kind_of(directory):
        with open(os.path.join(directory, "config.json")) as f:
            c = json.load(f)
        return {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[c.get("torch_dtype", c.get("dtype"))]

    def read_module(self, name, data):
        self.value[name], self.kind[name] = data["scales"][()].astype(np.float64), "F16"
        self.g_idx[name] = data["g_idx"][()]
        codes = unpack(data["codes"][()], len(self.g_idx[name]), int(data.attrs["bits"]))
        self.codes[name] = codes - data["zeros"][()].astype(float)[:, self.g_idx[name]]

    def parameter(self, name):
        """As it is stored."""
        less = 0.0 if name in self.codes else self.less
        return stored(self.value[name] - less, self.kind[name]) + less

    def gradients(self, windows):
        """Of the mean KL of a token."""
        leaves = {}
        for name in self.value:
            p = self.parameter(name)
            w = p[:, self.g_idx[name]] * self.codes[name] if name in self.codes else p - self.less
            leaves[name] = self.model.w[name] = Leaf(w)
        for ids in windows:
            z = self.model.logits(ids)
            p = np.exp(z.value - z.value.max(axis=1, keepdims=True))
            q = np.exp(self.full.log_p(ids))
            backward_reference.go_back(z, p / p.sum(axis=1, keepdims=True) - q)  # adds to those of leaves
            self.model.outputs = {}
        return {name: self.of_parameter(name, leaf.grad) / windows.size for name, leaf in leaves.items()}

    def of_parameter(self, name, g):
        if g is None:
            return np.zeros_like(self.value[name])
        if name not in self.codes:
            return g
        out = np.zeros_like(self.value[name])
        np.add.at(out, (slice(None), self.g_idx[name]), g * self.codes[name])
        return out

    def step(self, windows, number, rate):
        for name, g in self.gradients(windows).items():
            slope = g * np.abs(self.value[name])
            self.mean[name] = MEAN * self.mean[name] + (1 - MEAN) * slope
            self.square[name] = SQUARE * self.square[name] + (1 - SQUARE) * slope ** 2
            root = np.sqrt(self.square[name] / (1 - SQUARE ** number)) + 1e-12
            self.value[name] = self.value[name] * (1 - rate * self.mean[name] / (1 - MEAN ** number) / root)


def batches(count, seed, epoch):
    """Which windows go together: one of each run of as many as there are batches."""
    n = -(-count // BATCH)
    out = [[] for _ in range(n)]
    for run in range(-(-count // n)):
        order = list(range(n))
        for i in range(n):
            j = i + int(backward_reference.uniform(seed, epoch, run * n + i) * (n - i))
            order[i], order[j] = order[j], order[i]
        for k in range(n):  # number k is where it was moved to
            at = order.index(k)
            if run * n + at < count:
                out[k].append(run * n + at)
    return out


class Tuning(helpers.Test):
    def write(self, config, length=20):
        """The model, and windows to fit to, with one more that is held out."""
        model = small_models.write(self.path("model"), config)
        windows = small_models.windows(config, 17, length)
        windows[16] = windows[0]  # random tokens have nothing in common that could be learned
        helpers.write_ids(self.path("ids.i32"), windows)
        return model, windows

    def quantize(self, model, name, *options, length=20, **how):
        out = self.path(name)
        words = ["quantize", model, "--token-file", self.path("ids.i32"), "-o", out, "--length", length]
        return out, helpers.succeed(*helpers.with_options(words + OPTIONS.split(), *options), **how)

    def check_an_epoch(self, config):
        """Two steps."""
        model, windows = self.write(config)
        before, _ = self.quantize(model, "before")
        after, result = self.quantize(model, "after", "--tune", 1)
        self.assertIn("the best so far", result.stderr)
        twin = Twin(model, before)
        for k, which in enumerate(batches(16, 0, 1)):
            part = (k + 0.5) / 2
            twin.step(windows[which], k + 1, RATE * min(part / WARM_UP, 1) * (1 - part * part * (3 - 2 * part)))
        changed, worst = 0, 0.0
        found = {}
        for name in sorted(os.listdir(after)):
            if name.startswith("block-"):
                with h5py.File(os.path.join(after, name), "r") as f:
                    found.update({module + ".weight": data["scales"][()].astype(float) for module, data in f.items()})
        with h5py.File(os.path.join(after, "rest.h5"), "r") as f:
            for name in f:
                if name in twin.value:
                    data = f[name][()]
                    if f[name].attrs.get("dtype") is not None:
                        data = (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
                    found[name] = data.astype(float) + twin.less
        self.assertEqual(sorted(found), sorted(twin.value))
        for name, values in found.items():
            expected = twin.parameter(name)
            step = {"F16": 2.0 ** -10, "BF16": 2.0 ** -7, "F32": 1e-4}[twin.kind[name]]
            size = np.abs(expected - (0 if name in twin.codes else twin.less)) + 1e-3
            # one step of the stored type apart at most, and hardly any of them
            self.assertLess(np.max(np.abs(values - expected) / size), 1.1 * step, name)
            changed += np.sum(values != expected)
            worst = max(worst, np.max(np.abs(values - expected) / size))
        count = sum(v.size for v in found.values())
        print("%s: %d of %d differ by a step of their type" % (config["model_type"], changed, count))
        self.assertLess(changed, 0.02 * count)

    def test_ranks_kills_and_what_is_read_meanwhile(self):
        """A run that is killed during its third epoch, and at every moment of replacing its files."""
        model, _ = self.write(small_models.MIXTRAL)
        whole, result = self.quantize(model, "whole", "--tune", 4)
        self.assertRegex(result.stderr, r"tuning 4/4 .*\n(.*\n)*tuning +KL on held-out windows from")
        expected, lines = helpers.weights(whole), self.lines(whole)
        last = json.loads(lines[-1])
        self.assertEqual((last["tuning"]["epochs"], len(last["tuning"]["kl"])), (4, 5))
        self.assertLess(last["tuning"]["kl"][last["tuning"]["best"]]["held_out"], last["tuning"]["kl"][0]["held_out"])
        report = helpers.succeed("report", whole).stdout
        self.assertIn("KL held out", report)
        self.assertIn("%.4f" % last["tuning"]["kl"][4]["held_out"], report)
        for ranks in (2, 3, 4):
            out, _ = self.quantize(model, "ranks", "--tune", 4, ranks=ranks)
            self.assertEqual((helpers.weights(out), self.lines(out)), (expected, lines), ranks)
            shutil.rmtree(out)
        killed = self.path("killed")
        words = ["quantize", model, "--token-file", self.path("ids.i32"), "--length", 20, *OPTIONS.split(), "--tune", 4]
        helpers.kill_when(lambda: os.path.exists(os.path.join(killed, "snrq.tuning")), *words, "-o", killed, ranks=2)
        if helpers.manifest(killed)[-1].get("complete"):
            self.skipTest("it was too fast to be killed")
        resumed = shutil.copytree(killed, self.path("resumed"))
        result = helpers.succeed(*words, "-o", resumed, ranks=3)
        self.assertRegex(result.stderr, "tuning goes on after epoch [1-4] of 4")
        self.assertEqual((helpers.weights(resumed), self.lines(resumed)), (expected, lines))
        damaged = shutil.copytree(killed, self.path("damaged"))
        helpers.flip_bit(os.path.join(damaged, "snrq.tuning"), os.path.getsize(os.path.join(damaged, "snrq.tuning")) // 2)
        result = helpers.succeed(*words, "-o", damaged, ranks=1)
        self.assertIn("tuning begins again", result.stderr)
        self.assertEqual((helpers.weights(damaged), self.lines(damaged)), (expected, lines))
        self.check_replacing(killed, whole, words)

    def lines(self, out):
        with open(os.path.join(out, "manifest.jsonl")) as f:
            return f.read().splitlines()

    def check_replacing(self, before, after, words):
        """States that a kill leaves while the files of `before` become those of `after`."""
        names = sorted(helpers.weights(after))
        for renamed in (None, 0, 2, len(names)):  # None: before there is a new manifest
            out = shutil.copytree(before, self.path("replacing"))
            for i, name in enumerate(names):
                at = name if renamed is not None and i < renamed else name + ".next"
                shutil.copy(os.path.join(after, name), os.path.join(out, at))
            if renamed is not None:
                with open(os.path.join(out, "manifest.jsonl.next"), "w") as f:
                    f.write("\n".join(self.lines(after)[:-1]) + "\n")
            verified = helpers.run("verify", out, "--json")
            self.assertEqual((verified.code, verified.json()["complete"]), (0, False), verified)
            self.assertEqual(helpers.run("status", out, "--json").json()["state"], "killed")
            refused = helpers.run("evaluate", out, "--token-file", self.path("ids.i32"))
            self.assertNotEqual(refused.code, 0)
            self.assertIn("is unfinished", refused.stderr)
            helpers.succeed(*words, "-o", out, ranks=1)
            self.assertEqual((helpers.weights(out), self.lines(out)), (helpers.weights(after), self.lines(after)))
            self.assertFalse([name for name in os.listdir(out) if name.endswith((".next", ".tuning"))])
            shutil.rmtree(out)

    def test_what_does_not_help_changes_nothing(self):
        model, _ = self.write(small_models.LLAMA_WITH_BIASES)
        before, _ = self.quantize(model, "before", "--bits", 8)
        after, result = self.quantize(model, "after", "--bits", 8, "--tune", 1)
        self.assertIn("did not lower KL", result.stderr)
        self.assertEqual(helpers.weights(after), helpers.weights(before))
        self.assertEqual(json.loads(self.lines(after)[-1])["tuning"]["best"], 0)

    def test_a_rate_that_is_too_high_falls(self):
        """8 bits need small steps: the first epoch makes the model worse, and is taken back, also by a run that resumes."""
        model, _ = self.write(small_models.LLAMA_WITH_BIASES)
        words = ["quantize", model, "--token-file", self.path("ids.i32"), "--length", 20, *OPTIONS.split()]
        words = helpers.with_options(words, "--bits", 8, "--tune", 30)
        whole, killed = self.path("whole"), self.path("killed")
        helpers.succeed(*words, "-o", whole, ranks=2)
        kl = [entry["held_out"] for entry in json.loads(self.lines(whole)[-1])["tuning"]["kl"]]
        self.assertGreater(kl[1], kl[0])
        self.assertLess(min(kl), 0.6 * kl[0])
        self.assertLessEqual(len(kl) - 1 - kl.index(min(kl)), 3)  # then it stops
        helpers.kill_when(lambda: os.path.exists(os.path.join(killed, "snrq.tuning")), *words, "-o", killed, ranks=2)
        if helpers.manifest(killed)[-1].get("complete"):
            self.skipTest("it was too fast to be killed")
        helpers.succeed(*words, "-o", killed, ranks=1)
        self.assertEqual((helpers.weights(killed), self.lines(killed)), (helpers.weights(whole), self.lines(whole)))

    def test_refused(self):
        for options, expected in (("--held-out 0", "--tune needs windows that are held out"),
                                  ("--format q4_0", "is stored as q4_0, whose scales cannot change freely")):
            result = helpers.run("quantize", helpers.MODEL, "--calibration", helpers.CALIBRATION, "-o", self.path("out"),
                                 "--sequences", 4, "--length", 64, "--tune", 1, *options.split())
            self.assertEqual(result.code, 64, result)
            self.assertIn(expected, result.stderr)

    def test_qwen3(self):
        self.check_an_epoch(small_models.QWEN3_WITH_WINDOW)

    def test_gemma3(self):
        self.check_an_epoch(small_models.GEMMA3)

    def test_mixtral(self):
        self.check_an_epoch(small_models.MIXTRAL)

    def test_deepseek(self):
        self.check_an_epoch(small_models.DEEPSEEK_V3)


if __name__ == "__main__":
    helpers.main()
