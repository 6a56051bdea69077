"""GGUF files against the output directories they come from, by a reader written here from the description of the
format: every weight bit for bit, for all widths and families, whatever the number of ranks; and what cannot be exact is
refused."""
import json
import os
import shutil
import struct
import unittest

import h5py
import numpy as np

import helpers
import small_models

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, code):
        value, = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length: self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, count = self.take("I"), self.take("Q")
            return [self.value(kind) for _ in range(count)]
        return self.take(CODES[kind])


def half(blocks, at):
    return blocks[:, at: at + 2].copy().view("<f2").astype(np.float32)


def nibbles(bytes_):
    return np.concatenate([bytes_ & 15, bytes_ >> 4], axis=1).astype(np.int32)


def planes(bytes_):
    """Two bits each: 4 times 32 values from each half of 64 bytes."""
    parts = [bytes_[:, 32 * h: 32 * h + 32] >> (2 * j) & 3 for h in range(2) for j in range(4)]
    return np.concatenate(parts, axis=1).astype(np.int32)


def q4_0(b):
    return half(b, 0) * (nibbles(b[:, 2:]) - 8).astype(np.float32)


def q5_0(b):
    fifth = np.unpackbits(b[:, 2:6], axis=1, bitorder="little").astype(np.int32)
    return half(b, 0) * (nibbles(b[:, 6:]) + 16 * fifth - 16).astype(np.float32)


def q4_1(b):
    return half(b, 0) * nibbles(b[:, 4:]).astype(np.float32) + half(b, 2)


def q5_1(b):
    fifth = np.unpackbits(b[:, 4:8], axis=1, bitorder="little").astype(np.int32)
    return half(b, 0) * (nibbles(b[:, 8:]) + 16 * fifth).astype(np.float32) + half(b, 2)


def q8_0(b):
    return half(b, 0) * b[:, 2:].view(np.int8).astype(np.float32)


def q2_k(b):
    scale, minimum = np.repeat(b[:, :16] & 15, 16, axis=1), np.repeat(b[:, :16] >> 4, 16, axis=1)
    return (half(b, 80) * scale.astype(np.float32) * planes(b[:, 16:80]).astype(np.float32) -
            half(b, 82) * minimum.astype(np.float32))


def q3_k(b):
    third = np.concatenate([b[:, :32] >> i & 1 for i in range(8)], axis=1).astype(np.int32)
    packed = b[:, 96:108].astype(np.int32)
    scale = np.stack([(packed[:, s % 8] >> (4 * (s // 8)) & 15) + (packed[:, 8 + s % 4] >> (2 * (s // 4)) & 3) * 16
                      for s in range(16)], axis=1)
    level = planes(b[:, 32:96]) + 4 * third - 4
    return half(b, 108) * np.repeat(scale - 32, 16, axis=1).astype(np.float32) * level.astype(np.float32)


def with_sixes(b, quants):
    p = b[:, 4:16].astype(np.int32)
    scale = np.stack([p[:, s] & 63 if s < 4 else (p[:, s + 4] & 15) | p[:, s - 4] >> 6 << 4 for s in range(8)], 1)
    minimum = np.stack([p[:, s + 4] & 63 if s < 4 else p[:, s + 4] >> 4 | p[:, s] >> 6 << 4 for s in range(8)], 1)
    return (half(b, 0) * np.repeat(scale, 32, axis=1).astype(np.float32) * quants.astype(np.float32) -
            half(b, 2) * np.repeat(minimum, 32, axis=1).astype(np.float32))


def halves(bytes_):
    return np.concatenate([nibbles(bytes_[:, 32 * i: 32 * i + 32]) for i in range(4)], axis=1)


def q4_k(b):
    return with_sixes(b, halves(b[:, 16:144]))


def q5_k(b):
    fifth = np.concatenate([b[:, 16:48] >> i & 1 for i in range(8)], axis=1).astype(np.int32)
    return with_sixes(b, halves(b[:, 48:176]) + 16 * fifth)


def q6_k(b):
    parts = []
    for h in range(2):
        low, high = b[:, 64 * h: 64 * h + 64], b[:, 128 + 32 * h: 160 + 32 * h]
        fours = [low[:, :32] & 15, low[:, 32:] & 15, low[:, :32] >> 4, low[:, 32:] >> 4]
        parts += [fours[k].astype(np.int32) + 16 * (high >> 2 * k & 3) for k in range(4)]
    scale = np.repeat(b[:, 192:208].view(np.int8), 16, axis=1).astype(np.float32)
    return half(b, 208) * scale * (np.concatenate(parts, axis=1) - 32).astype(np.float32)


IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
E2M1 = np.array([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
BOOKS = {b"iq4_nl": IQ4, b"iq4_xs": IQ4, b"mxfp4": E2M1}


def iq4_nl(b):
    return half(b, 0) * IQ4[nibbles(b[:, 2:])]


def iq4_xs(b):
    high = b[:, 2].astype(np.int32) + 256 * b[:, 3].astype(np.int32)
    scale = np.stack([(b[:, 4 + s // 2] >> 4 * (s % 2) & 15) + (high >> 2 * s & 3) * 16 for s in range(8)], axis=1)
    quants = np.concatenate([nibbles(b[:, 8 + 16 * s: 24 + 16 * s]) for s in range(8)], axis=1)
    return half(b, 0) * np.repeat(scale - 32, 32, axis=1).astype(np.float32) * IQ4[quants]


def mxfp4(b):
    q = nibbles(b[:, 1:])
    return np.ldexp(np.where(q < 8, 1, -1) * E2M1[7:][q % 8], b[:, :1].astype(np.int32) - 127).astype(np.float32)


TYPES = {0: ("F32", 1, 4, lambda b: b.copy().view("<f4")),
         1: ("F16", 1, 2, lambda b: b.copy().view("<f2").astype(np.float32)),
         30: ("BF16", 1, 2, lambda b: (b.copy().view("<u2").astype(np.uint32) << 16).view(np.float32)),
         2: ("Q4_0", 32, 18, q4_0), 6: ("Q5_0", 32, 22, q5_0), 8: ("Q8_0", 32, 34, q8_0),
         10: ("Q2_K", 256, 84, q2_k), 11: ("Q3_K", 256, 110, q3_k), 12: ("Q4_K", 256, 144, q4_k),
         3: ("Q4_1", 32, 20, q4_1), 7: ("Q5_1", 32, 24, q5_1), 13: ("Q5_K", 256, 176, q5_k),
         14: ("Q6_K", 256, 210, q6_k), 20: ("IQ4_NL", 32, 18, iq4_nl), 23: ("IQ4_XS", 256, 136, iq4_xs),
         39: ("MXFP4", 32, 17, mxfp4)}


def read_gguf(path):
    """(metadata, {name: (type, weights)}), with every rule of the layout checked on the way."""
    with open(path, "rb") as f:
        data = f.read()
    c = Cursor(data)
    assert data[:4] == b"GGUF"
    c.at = 4
    assert c.take("I") == 3
    tensors, pairs = c.take("Q"), c.take("Q")
    metadata, infos, weights = {}, [], {}
    for _ in range(pairs):
        key = c.string()
        assert key not in metadata
        metadata[key] = c.value(c.take("I"))
    for _ in range(tensors):
        name = c.string()
        shape = [c.take("Q") for _ in range(c.take("I"))][::-1]
        infos.append((name, shape, c.take("I"), c.take("Q")))
    at = start = (c.at + 31) // 32 * 32
    assert not any(data[c.at: start])
    for name, shape, kind, offset in infos:
        label, columns, size, decode = TYPES[kind]
        assert len(name) < 64 and name not in weights and at == start + offset, name
        assert shape[-1] % columns == 0, name
        count = int(np.prod(shape)) // columns
        blocks = np.frombuffer(data, np.uint8, count * size, at).reshape(count, size)
        weights[name] = label, decode(blocks).reshape(shape)
        end = at + count * size
        at = (end + 31) // 32 * 32
        assert not any(data[end: at]), name
    assert at == len(data)
    return metadata, weights


NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q_norm": "self_attn.q_norm",
         "attn_k_norm": "self_attn.k_norm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_qkv": "self_attn.qkv_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def model_name(name, config):
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, end = name.split(".")
    below = NAMES[part]
    if config["model_type"] == "phi3" and part == "ffn_up":
        below = "mlp.gate_up_proj"
    return "model.layers.%s.%s.%s" % (layer, below, end)


def heads_together(weights, name, config):
    """Rows in the order of the model: in the file, the halves of each head of q and k take turns."""
    if config["model_type"] not in ("llama", "mistral") or name.split(".")[2:3] not in (["attn_q"], ["attn_k"]):
        return weights
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    shape = weights.shape
    return weights.reshape(-1, head // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def read_dataset(dataset):
    values = dataset[...]
    if dataset.attrs.get("dtype") == b"BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def dequantize(module):
    bits, columns, group = module.attrs["bits"], module.attrs["columns"], module["g_idx"][...]
    stream = np.unpackbits(module["codes"][...], axis=1, bitorder="little")[:, : columns * bits]
    codes = stream.reshape(len(stream), columns, bits) @ (1 << np.arange(bits))
    levels = (codes - module["zeros"][...][:, group].astype(np.int64)).astype(np.float32)
    if module.attrs.get("format") in BOOKS:
        levels = BOOKS[module.attrs["format"]][codes]
    weights = read_dataset(module["scales"])[:, group] * levels
    return weights - read_dataset(module["minima"])[:, group] if "minima" in module else weights


def read_output(out):
    """{name: weights} of all tensors of an output directory."""
    weights = {}
    for name in sorted(os.listdir(out)):
        if not name.endswith(".h5"):
            continue
        with h5py.File(os.path.join(out, name), "r") as f:
            for key in f:
                if isinstance(f[key], h5py.Group):
                    weights[key + ".weight"] = dequantize(f[key])
                else:
                    weights[key] = read_dataset(f[key])
    return weights


def same(a, b):
    """Bit for bit; zeros have no sign."""
    return a.shape == b.shape and np.array_equal((a + 0.0).view(np.uint32), (b + 0.0).view(np.uint32))


class ExportTest(helpers.Test):
    def export(self, source, *options, ranks=2):
        directory = self.path("gguf")
        shutil.rmtree(directory, ignore_errors=True)
        helpers.succeed("export", source, "--format", "gguf", "-o", directory, *options, ranks=ranks)
        return directory

    def check(self, out, expected_type, *options, rounded=()):
        """Exports and compares everything. Returns the metadata."""
        directory = self.export(out, *options)
        helpers.succeed("verify", out, "--export", directory, ranks=3)
        with open(os.path.join(out, "config.json")) as f:
            config = json.load(f)
        metadata, weights = read_gguf(os.path.join(directory, "model.gguf"))
        expected, seen = read_output(out), set()
        for name, (kind, found) in weights.items():
            if name.startswith("rope_"):
                continue
            source = model_name(name, config)
            seen.add(source)
            if name in rounded:
                self.assertLess(np.abs(found - expected[source]).max(), np.abs(expected[source]).max() / 200, name)
                continue
            self.assertTrue(same(heads_together(found, name, config), expected[source]), name)
            if found.ndim == 1:
                self.assertEqual(kind, "F32", name)
            elif name.startswith("blk."):
                self.assertIn(kind, expected_type.split("|"), name)
        self.assertEqual(seen, set(expected))
        self.assertEqual(len(metadata["tokenizer.ggml.tokens"])
                         if metadata["tokenizer.ggml.model"] != "none" else config["vocab_size"], config["vocab_size"])
        return metadata

    def quantize(self, *options, model=helpers.MODEL):
        out = self.path("out")
        shutil.rmtree(out, ignore_errors=True)
        return helpers.quantize(out, *helpers.with_options(["--method", "rtn"], *options), model=model, length=32)

    def check_all(self, model, table, *fixed):
        for bits, group, zero, kind in table:
            with self.subTest(bits=bits, group=group, zero=zero):
                out = self.quantize("--bits", bits, "--group-size", group, "--" + zero, *fixed, model=model)
                self.check(out, kind)

    def refuse(self, *options, model=helpers.MODEL, words):
        out = self.quantize(*options, model=model)
        result = helpers.run("export", out, "--format", "gguf", "-o", self.path("refused"), ranks=2)
        self.assertEqual(result.code, helpers.USAGE, result)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertFalse(os.path.exists(self.path("refused", "model.gguf")))


class BundledModel(ExportTest):
    def test_narrow_blocks(self):
        self.check_all(helpers.MODEL, [(2, 32, "asymmetric", "Q4_0"), (3, 64, "symmetric", "Q4_0"),
                                       (3, 128, "asymmetric", "Q4_0"), (4, 32, "symmetric", "Q4_0"),
                                       (4, "channel", "symmetric", "Q4_0"), (4, 64, "asymmetric", "Q5_0"),
                                       (5, 32, "symmetric", "Q5_0"), (5, 32, "asymmetric", "Q8_0"),
                                       (7, 96, "asymmetric", "Q8_0"), (8, 32, "symmetric", "Q8_0")])

    def test_refusals(self):
        self.refuse("--bits", 4, "--group-size", 16, words=["16 columns", "--group-size 32"])
        self.refuse("--bits", 4, "--group-size", 40, words=["40 columns", "--group-size 64"])
        self.refuse("--bits", 8, "--asymmetric", words=["--symmetric", "--bits 7"])
        self.refuse("--bits", 4, "--group-size", 32, "--scale-type", "bf16", words=["BF16", "--scale-type f16"])
        self.refuse("--bits", 4, "--group-size", 32, "--method", "gptq", "--groups", "permuted",
                    words=["--groups original"])

    def test_same_bytes(self):
        out = self.quantize("--bits", 4, "--group-size", 32)
        files = {helpers.sha256(os.path.join(self.export(out, ranks=ranks), "model.gguf")) for ranks in (1, 2, 3, 4)}
        self.assertEqual(len(files), 1)
        self.assertEqual(os.listdir(self.path("gguf")), ["model.gguf"])

    def test_types_of_embeddings(self):
        out = self.quantize("--bits", 4, "--group-size", 32)
        for option in ("f16", "bf16", "q8_0"):
            with self.subTest(option):
                self.check(out, "Q4_0", "--embedding-type", option,
                           rounded=[] if option == "bf16" else ["token_embd.weight"])

    def test_metadata(self):
        metadata = self.check(self.quantize("--bits", 4, "--group-size", 32), "Q4_0")
        expected = {"general.architecture": "llama", "general.file_type": 2, "general.quantization_version": 2,
                    "llama.context_length": 512, "llama.embedding_length": 128, "llama.block_count": 6,
                    "llama.feed_forward_length": 384, "llama.attention.head_count": 4,
                    "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 32, "llama.vocab_size": 1024,
                    "tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1,
                    "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
                    "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": True}
        self.assertEqual(expected, {key: metadata[key] for key in expected})
        self.assertEqual(metadata["tokenizer.ggml.token_type"][:260], [2, 3, 3] + 256 * [6] + [1])

    def test_padded_vocabulary(self):
        # More rows of the embedding than tokens: the rest are unused ones.
        model = helpers.copy_model(self.path("model"))
        path = os.path.join(model, "tokenizer.json")
        with open(path) as f:
            tokenizer = json.load(f)
        last = max(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
        del tokenizer["model"]["vocab"][last]
        tokenizer["model"]["merges"] = [m for m in tokenizer["model"]["merges"] if last not in "".join(m)]
        with open(path, "w") as f:
            json.dump(tokenizer, f)
        metadata = read_gguf(os.path.join(self.export(model), "model.gguf"))[0]
        self.assertEqual(metadata["tokenizer.ggml.tokens"][1023], "[PAD1023]")
        self.assertEqual(metadata["tokenizer.ggml.token_type"][1023], 5)
        self.assertEqual(metadata["tokenizer.ggml.scores"][1023], -10000)


class Tokenizers(ExportTest):
    """What stands in the files beside the weights, read by the reader above."""

    def model(self, **files):
        """The bundled model with files changed: a function of the parsed JSON, or a text."""
        directory = helpers.copy_model(self.path("model"))
        for name, change in files.items():
            self.change(directory, name, change)
        return directory

    def change(self, directory, name, change):
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(change, str):
            with open(path, "w") as f:
                f.write(change)
            return
        content = {}
        if os.path.exists(path):
            with open(path) as f:
                content = json.load(f)
        change(content)
        with open(path, "w") as f:
            json.dump(content, f)

    def metadata(self, files):
        shutil.rmtree(self.path("model"), ignore_errors=True)
        directory = self.model(**files)
        export = self.export(directory)
        helpers.succeed("verify", directory, "--export", export)
        return read_gguf(os.path.join(export, "model.gguf"))[0]

    def stops(self, config, tokenizer, generation):
        """The bundled model, whose last tokens are special ones called <|a|>, <|b|>, <|eom|>, <|c|>."""
        def special(json_):
            names = {1020: "<|a|>", 1021: "<|b|>", 1022: "<|eom|>", 1023: "<|c|>"}
            vocabulary = json_["model"]["vocab"]
            gone = {text for text, id_ in vocabulary.items() if id_ in names}
            json_["model"]["vocab"] = {text: id_ for text, id_ in vocabulary.items() if text not in gone}
            json_["model"]["merges"] = [m for m in json_["model"]["merges"]
                                        if not gone & ({"".join(m if isinstance(m, list) else m.split(" "))} |
                                                       set(m if isinstance(m, list) else m.split(" ")))]
            json_["added_tokens"] += [{"id": id_, "content": text, "special": True} for id_, text in names.items()]
        found = self.metadata({"tokenizer.json": special,
                               "config.json": lambda c: c.update(eos_token_id=config),
                               "tokenizer_config.json": lambda c: c.update(eos_token=tokenizer),
                               "generation_config.json": lambda c: c.update(eos_token_id=generation)})
        return [found.get("tokenizer.ggml.%s_token_id" % name) for name in ("eos", "eot", "eom")]

    def test_ends_of_turns(self):
        self.assertEqual(self.stops(2, "</s>", 2), [2, None, None])
        self.assertEqual(self.stops([2, 1020], "<|a|>", [2, 1020]), [1020, 2, None])
        self.assertEqual(self.stops(2, {"content": "<|b|>"}, [1022, 1020]), [1021, 1020, 1022])
        self.assertEqual(self.stops(1023, None, [1020]), [1020, 1023, None])

    def test_chat_templates(self):
        def named(*pairs):
            return [{"name": name, "template": text} for name, text in pairs]
        key = "tokenizer.chat_template"
        for files, expected in (
                ({"chat_template.jinja": "A"}, {key: "A"}),
                ({"chat_template.jinja": "A", "additional_chat_templates/tool-use.jinja": "B",
                  "additional_chat_templates/notes.txt": "C"}, {key: "A", key + ".tool_use": "B"}),
                ({"tokenizer_config.json": lambda c: c.update(chat_template="D")}, {key: "D"}),
                ({"tokenizer_config.json": lambda c: c.update(chat_template=named(("rag", "F"), ("default", "E")))},
                 {key: "E", key + ".rag": "F"}),
                ({"chat_template.json": lambda c: c.update(chat_template="G")}, {key: "G"}),
                ({"chat_template.jinja": "H", "tokenizer_config.json": lambda c: c.update(chat_template="I")},
                 {key: "H"})):
            with self.subTest(list(files)):
                found = self.metadata(files)
                names = found.pop("tokenizer.chat_templates", [])
                self.assertEqual({k: v for k, v in found.items() if k.startswith(key)}, expected)
                self.assertEqual(names, sorted(k[len(key) + 1:] for k in expected if k != key))

    def test_flags_overrule_the_post_processor(self):
        for flags, expected in (({}, (True, False)), ({"add_bos_token": False}, (False, False)),
                                ({"add_eos_token": True}, (True, True)), ({"add_bos_token": None}, (True, False))):
            with self.subTest(flags):
                def change(c, flags=flags):
                    c.pop("add_bos_token"), c.pop("add_eos_token"), c.update(flags)
                found = self.metadata({"tokenizer_config.json": change})
                self.assertEqual((found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"]),
                                 expected)

    def test_tokens_beyond_the_vocabulary(self):
        model = self.model(**{"tokenizer.json": lambda t: t["added_tokens"].append(
            {"id": 1024, "content": "[PAD]", "special": True})})
        result = helpers.succeed("export", model, "--format", "gguf", "-o", self.path("gguf"))
        self.assertIn("[PAD]", result.stderr)
        self.assertIn("left out", result.stderr)
        tokens = read_gguf(self.path("gguf", "model.gguf"))[0]["tokenizer.ggml.tokens"]
        self.assertEqual(len(tokens), 1024)
        self.assertNotIn("[PAD]", tokens)
        helpers.succeed("verify", model, "--export", self.path("gguf"))

    def byte_level(self, *steps, ignore_merges=False):
        def change(t):
            t["normalizer"] = t["decoder"] = t["post_processor"] = None
            t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(steps)}
            t["model"].update(ignore_merges=ignore_merges, byte_fallback=False, unk_token=None)
        shutil.rmtree(self.path("model"), ignore_errors=True)
        return self.model(**{"tokenizer.json": change})

    def test_names_of_patterns(self):
        contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        start, end = "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|", "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        def split(text, behavior="Isolated", invert=False):
            return {"type": "Split", "pattern": {"Regex": text}, "behavior": behavior, "invert": invert}
        digits = {"type": "Digits", "individual_digits": True}
        whole = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        spelled = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        llama = contractions + start + "\\p{N}{1,3}" + end
        bloom = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
        coder = [split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"),
                 split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), digits, spelled]
        for expected, steps, ignore in (("gpt-2", [whole], False), ("smollm", [digits, whole], False),
                                        ("llama-bpe", [split(llama), spelled], True),
                                        ("dbrx", [split(llama), spelled], False),
                                        ("dbrx", [split(llama, "Removed", True), spelled], False),
                                        ("qwen2", [split(contractions + start + "\\p{N}" + end), spelled], False),
                                        ("ufakzeka", [split(start[1:] + "\\p{N}" + end), spelled], False),
                                        ("minicpm5", [split("\\p{N}{1,3}"), split(llama.replace("{1,3}", "+")), spelled],
                                         True),
                                        ("viking", [split(bloom), digits, spelled], False),
                                        ("bloom", [split(bloom), spelled], False)):
            with self.subTest(expected):
                export = self.export(self.byte_level(*steps, ignore_merges=ignore))
                self.assertEqual(read_gguf(os.path.join(export, "model.gguf"))[0]["tokenizer.ggml.pre"], expected)
        for steps, ignore, words in (([digits, split(llama), spelled], False, ["pre_tokenizer", "safetensors"]),
                                     ([split(llama, "Removed"), spelled], False, ["behavior", "Removed"]),
                                     (coder, False, ["deepseek-coder", "at spaces"]),
                                     ([split("\\p{N}+"), split("(?=(\\d{3})+(?!\\d))"), spelled], False,
                                      ["superbpe", "numbers"]),
                                     ([digits, whole], True, ["ignore_merges", "smollm"])):
            with self.subTest(words):
                model = self.byte_level(*steps, ignore_merges=ignore)
                result = helpers.run("export", model, "--format", "gguf", "-o", self.path("refused"))
                self.assertEqual(result.code, helpers.BAD_DATA, result)
                for word in words:
                    self.assertIn(word, result.stderr)


class Damage(ExportTest):
    def test_changed_weights_are_found(self):
        out = self.quantize("--bits", 4, "--group-size", 32)
        path = os.path.join(self.export(out), "model.gguf")
        for offset in (-1000, -500000):  # in the last block, in an earlier one
            helpers.flip_bit(path, offset, bit=3)
            result = helpers.run("verify", out, "--export", self.path("gguf"), ranks=2)
            self.assertEqual(result.code, helpers.BAD_DATA, result)
            self.assertIn("expected", result.stderr)
            helpers.flip_bit(path, offset, bit=3)
        helpers.succeed("verify", out, "--export", self.path("gguf"))

    def test_every_byte_is_compared(self):
        """A bit in any key, any token, any gap between tensors, and whatever else is in the directory."""
        out = self.quantize("--bits", 4, "--group-size", 32)
        path = os.path.join(self.export(out), "model.gguf")
        with open(path, "rb") as f:
            data = f.read()
        places = [data.index(word) for word in (b"llama.context_length", b"<0x41>", b"tokenizer.ggml.scores",
                                                b"general.name", b"blk.3.ffn_up")]
        places += [data.index(b"tokenizer.ggml.scores") + 800, data.index(b"tokenizer.ggml.token_type") + 400,
                   data.index(b"tokenizer.ggml.add_bos_token") + 32, data.index(b"llama.vocab_size") + 20,
                   data.index(b"general.file_type") + 21, data.index(b"tokenizer.ggml.tokens") + 300]
        places += [int(place) for place in np.random.default_rng(7).integers(0, len(data), 12)]
        for place in places:
            with self.subTest(place):
                helpers.flip_bit(path, place, bit=place % 7)
                result = helpers.run("verify", out, "--export", self.path("gguf"))
                self.assertEqual(result.code, helpers.BAD_DATA, result)
                helpers.flip_bit(path, place, bit=place % 7)
        helpers.succeed("verify", out, "--export", self.path("gguf"), ranks=2)
        with open(self.path("gguf", "README.md"), "w") as f:
            f.write("stray")
        result = helpers.run("verify", out, "--export", self.path("gguf"), ranks=2)
        self.assertEqual(result.code, helpers.BAD_DATA, result)
        self.assertIn("README.md", result.stderr)

    def test_cut_files(self):
        out = self.quantize("--bits", 4, "--group-size", 32)
        path = os.path.join(self.export(out), "model.gguf")
        size = os.path.getsize(path)
        for bytes_ in (size - 1, 5000, 0):
            os.truncate(path, bytes_)
            result = helpers.run("verify", out, "--export", self.path("gguf"), ranks=2)
            self.assertEqual(result.code, helpers.BAD_DATA, result)
        os.remove(path)
        self.assertEqual(helpers.run("verify", out, "--export", self.path("gguf")).code, helpers.NO_INPUT)

    def test_bad_source(self):
        out = self.quantize("--bits", 4, "--group-size", 32)
        helpers.flip_bit(os.path.join(out, "block-00002.h5"), -100)
        self.assertEqual(helpers.run("export", out, "--format", "gguf", "-o", self.path("a"), ranks=2).code, helpers.BAD_DATA)
        self.assertFalse(os.path.exists(self.path("a", "model.gguf")))
        self.assertEqual(helpers.run("export", self.path("nothing"), "--format", "gguf", "-o", self.path("a")).code, helpers.NO_INPUT)

    def test_full_disk(self):
        out = self.quantize("--bits", 4, "--group-size", 32)
        with helpers.file_system(self.path("small"), "size=400k") as small:
            result = helpers.run("export", out, "--format", "gguf", "-o", os.path.join(small, "gguf"), ranks=2)
            self.assertEqual(result.code, helpers.CANNOT_WRITE, result)
            self.assertFalse(os.path.exists(os.path.join(small, "gguf")))


class Families(ExportTest):
    """Models of a few random weights, wide enough for blocks of 256."""

    def check_family(self, config, table, **changed):
        config = dict(config, num_hidden_layers=2, **changed)
        model = small_models.write(self.path("model"), config)
        ids = helpers.write_ids(self.path("ids"), np.arange(4000) * 7 % config["vocab_size"])
        for bits, group, zero, kind in table:
            with self.subTest(bits=bits, group=group, zero=zero):
                out = self.path("out")
                shutil.rmtree(out, ignore_errors=True)
                helpers.succeed("quantize", model, "--token-file", ids, "-o", out, "--method", "rtn", "--bits", bits,
                                "--group-size", group, "--" + zero, "--sequences", 2, "--length", 16)
                self.check(out, kind)

    WIDE = [(2, "channel", "symmetric", "Q2_K"), (2, 256, "asymmetric", "Q2_K"), (3, 256, "symmetric", "Q3_K"),
            (3, "channel", "symmetric", "Q3_K"), (4, 256, "asymmetric", "Q4_K"), (4, 256, "symmetric", "Q4_0"),
            (3, 256, "asymmetric", "Q4_0"), (8, 256, "symmetric", "Q8_0")]

    def test_llama(self):
        self.check_family(small_models.LLAMA_WITH_BIASES, self.WIDE, hidden_size=256, intermediate_size=512,
                          head_dim=64)

    def test_mistral(self):
        self.check_family(small_models.MISTRAL_WITH_WINDOW, [(4, 64, "asymmetric", "Q5_0|Q4_K")], hidden_size=64,
                          intermediate_size=128)

    def test_qwen3(self):
        self.check_family(small_models.QWEN3_WITH_WINDOW, [(4, 32, "symmetric", "Q4_0")], hidden_size=64,
                          intermediate_size=96, head_dim=32, attention_bias=False)

    def test_phi3(self):
        self.check_family(small_models.PHI3_TURNED_IN_PART, [(4, 32, "asymmetric", "Q5_0")], hidden_size=64,
                          intermediate_size=96)

    def test_biases_without_place(self):
        model = small_models.write(self.path("model"), dict(small_models.QWEN3_WITH_WINDOW))
        result = helpers.run("export", model, "--format", "gguf", "-o", self.path("refused"))
        self.assertEqual(result.code, helpers.USAGE, result)
        self.assertIn("biases", result.stderr)

    def test_widths_without_blocks(self):
        # Not quantized, any width can be written; quantized, no type has blocks of 172.
        model = helpers.shared("data", "models", "stories260K")
        directory = self.export(model)
        helpers.succeed("verify", model, "--export", directory)
        self.refuse("--bits", 4, "--group-size", 32, model=model, words=["172 inputs", "safetensors"])


if __name__ == "__main__":
    helpers.main()
