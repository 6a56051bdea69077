"""A checkpoint read with h5py and run in numpy float64 gives what `snrq evaluate` says of it."""
import json
import os
import sys

import h5py
import numpy as np

import helpers

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


class IndependentEvaluation(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(os.path.join(helpers.DATA, "reference.json")) as f:
            ids = json.load(f)["cases"][-1]["ids"]
        cls.ids = np.array(ids[:TOKENS * WINDOWS]).reshape(WINDOWS, TOKENS)
        cls.full = forward_reference.Llama(helpers.MODEL)
        cls.expected = np.array([cls.full.log_p(row)[:-1] for row in cls.ids])

    def check(self, *options):
        out = helpers.quantize(self.path("out"), *options, ranks=2)
        tokens, logprobs = helpers.write_ids(self.path("ids.i32"), self.ids), self.path("logprobs.npy")
        result = helpers.succeed("evaluate", out, "--token-file", tokens, "--length", TOKENS, "--logprobs", logprobs,
                                 "--reference", helpers.MODEL, "--json", ranks=2).json()
        model = forward_reference.Llama(helpers.MODEL)
        names = set(model.w)
        model.w = dequantize(out)
        self.assertEqual(set(model.w), names)
        found = np.array([model.log_p(row)[:-1] for row in self.ids])
        scored = np.take_along_axis(found, self.ids[:, 1:, None], axis=2)[:, :, 0]
        self.assertLess(np.abs(np.load(logprobs) - scored).max(), 1e-3)
        self.assertLess(abs(result["mean_token_loss"] + scored.mean()), 1e-5)
        kl = (np.exp(self.expected) * (self.expected - found)).sum(axis=2).mean()
        self.assertLess(abs(result["kl"] - kl), 1e-5 + 1e-4 * kl)
        # A near tie may fall either way in float32: one position of all.
        agreement = (found.argmax(axis=2) == self.expected.argmax(axis=2)).mean()
        self.assertLess(abs(result["top1_agreement"] - agreement), 1.5 / scored.size)

    def test_symmetric_original_groups_f16_scales(self):
        self.check(*"--bits 3 --group-size 64 --method snrq".split())

    def test_asymmetric_permuted_odd_groups_bf16_scales(self):
        self.check(*"--bits 5 --group-size 48 --method ldlq --asymmetric --groups permuted --scale-type bf16".split())

    def test_per_channel_f32_scales(self):
        self.check(*"--bits 2 --group-size channel --method ksnrq --beam 4 --scale-type f32 --grid mse".split())


if __name__ == "__main__":
    helpers.main()
