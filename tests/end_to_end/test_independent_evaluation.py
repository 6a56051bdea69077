"""A checkpoint read with h5py and run in numpy float64 gives what `snrq evaluate` says of it."""
import json
import os
import sys

import h5py
import numpy as np

import helpers
import small_models

sys.path.insert(0, helpers.DATA)
import forward_reference

TOKENS, WINDOWS = 64, 3


def unpack(packed, columns, bits):
    """codes[r, c] from rows that are bit streams, lowest bit first."""
    stream = np.unpackbits(packed, axis=1, bitorder="little")[:, :columns * bits]
    return (stream.reshape(len(packed), columns, bits) << np.arange(bits)).sum(axis=2)


def as_float(dataset):
    """BF16 is stored as its 16 bits."""
    values = dataset[...]
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def dequantize(out):
    """Every tensor of the checkpoint by its Hugging Face name."""
    tensors = {}
    for name in helpers.weights(out):
        with h5py.File(os.path.join(out, name), "r") as f:
            if name == "rest.h5":
                tensors.update({key: as_float(f[key]) for key in f})
                continue
            for key in f:
                g = f[key]["g_idx"][...]
                codes = unpack(f[key]["codes"][...], len(g), int(f[key].attrs["bits"]))
                zeros = f[key]["zeros"][...].astype(np.float64)
                tensors[key + ".weight"] = as_float(f[key]["scales"])[:, g] * (codes - zeros[:, g])
    return tensors


def windows_of(reference):
    """The longest case of a reference.json, cut into windows."""
    with open(reference) as f:
        ids = max((case["ids"] for case in json.load(f)["cases"]), key=len)
    count = min(WINDOWS, len(ids) // TOKENS)
    return np.array(ids[:TOKENS * count]).reshape(count, TOKENS)


class IndependentEvaluation(helpers.Test):
    def check(self, options, source=helpers.MODEL, ids=None):
        """Quantizes and evaluates on the same windows: few models have a tokenizer of their own."""
        if ids is None:
            ids = windows_of(os.path.join(helpers.DATA, "reference.json"))
        out, tokens = self.path("out"), helpers.write_ids(self.path("ids.i32"), ids)
        helpers.succeed("quantize", source, "--token-file", tokens, "--length", ids.shape[1], "-o", out,
                        *options.split(), ranks=2)
        logprobs = self.path("logprobs.npy")
        result = helpers.succeed("evaluate", out, "--token-file", tokens, "--length", ids.shape[1], "--logprobs",
                                 logprobs, "--reference", source, "--json", ranks=2).json()
        model = forward_reference.Model(source)
        expected = np.array([model.log_p(row)[:-1] for row in ids])
        names = set(model.w)
        model.w = dequantize(out)
        self.assertEqual(set(model.w), names)
        found = np.array([model.log_p(row)[:-1] for row in ids])
        scored = np.take_along_axis(found, ids[:, 1:, None], axis=2)[:, :, 0]
        self.assertLess(np.abs(np.load(logprobs) - scored).max(), 1e-3)
        self.assertLess(abs(result["mean_token_loss"] + scored.mean()), 1e-5)
        kl = (np.exp(expected) * (expected - found)).sum(axis=2).mean()
        self.assertLess(abs(result["kl"] - kl), 1e-5 + 1e-4 * kl)
        # A near tie may fall either way in float32: one position of all.
        agreement = (found.argmax(axis=2) == expected.argmax(axis=2)).mean()
        self.assertLess(abs(result["top1_agreement"] - agreement), 1.5 / scored.size)

    def check_fixture(self, options, name):
        model = helpers.shared("data", "models", "fixtures", name)
        self.check(options, model, windows_of(os.path.join(model, "reference.json")))

    def check_small(self, options, config, length):
        self.check(options, small_models.write(self.path("model"), config), small_models.windows(config, 4, length))

    def test_symmetric_original_groups_f16_scales(self):
        self.check("--bits 3 --group-size 64 --method snrq")

    def test_asymmetric_permuted_odd_groups_bf16_scales(self):
        self.check("--bits 5 --group-size 48 --method ldlq --asymmetric --groups permuted --scale-type bf16")

    def test_per_channel_f32_scales(self):
        self.check("--bits 2 --group-size channel --method ksnrq --beam 4 --scale-type f32 --grid mse")

    def test_phi3_fused_modules_longrope_and_window(self):
        self.check_fixture("--bits 4 --group-size 32 --method snrq", "tiny_phi3")

    def test_qwen3_head_norms_tied(self):
        self.check_fixture("--bits 4 --group-size 32 --method snrq", "strong_qwen3")

    def test_biases(self):
        self.check_small("--bits 4 --group-size 8 --method snrq", small_models.LLAMA_WITH_BIASES, 30)

    def test_qwen3_window_in_upper_layers(self):
        self.check_small("--bits 5 --group-size 8 --method ldlq", small_models.QWEN3_WITH_WINDOW, 20)

    def test_phi3_turned_in_part(self):
        self.check_small("--bits 3 --group-size 16 --method ksnrq --beam 4", small_models.PHI3_TURNED_IN_PART, 25)


if __name__ == "__main__":
    helpers.main()
