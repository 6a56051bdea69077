"""Checkpoints as people bring them: other spellings are read as what they mean, leftovers are counted and named,
contradictions are told, and a model that changes between stop and resume is noticed."""
import ctypes
import ctypes.util
import json
import os
import re
import shutil
import struct

import numpy as np

import helpers
import small_models
from helpers import BAD_DATA, NO_INPUT, USAGE

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
SHORT = "--bits 3 --method rtn --sequences 2 --length 32".split()
WARNED, NOTED = "warning: ", "note: "


def write_weights(path, tensors, metadata=None):
    """As helpers.write_safetensors(), with __metadata__."""
    header, at = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def widened(tensor):
    """A BF16 tensor in F32: the same numbers."""
    kind, shape, data = tensor
    assert kind == "BF16"
    return "F32", shape, (np.frombuffer(data, "<u2").astype("<u4") << 16).tobytes()


def vector(count=4):
    return "F32", [count], bytes(4 * count)


class Checkpoint(helpers.Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expected = cls.perplexity(helpers.MODEL)

    @staticmethod
    def arguments(model, *more):
        return ["evaluate", model, "--text", helpers.HELDOUT, "--length", 32, "--sequences", 2, "--json", *more]

    @classmethod
    def perplexity(cls, model, *more, ranks=0):
        return helpers.succeed(*cls.arguments(model, *more), ranks=ranks).json()["perplexity"]

    def model(self, change=None, metadata=None, name="model", **config):
        """A copy of the bundled model with changed tensors and entries of config.json."""
        model = helpers.copy_model(self.path(name), **config)
        path = os.path.join(model, WEIGHTS)
        tensors = helpers.read_safetensors(path)
        if change is not None:
            change(tensors)
        write_weights(path, tensors, metadata)
        return model

    def add(self, **config):
        """A function that makes the bundled model with further tensors of these names."""
        def model(*names, **more):
            return self.model(lambda tensors: tensors.update({name: vector() for name in names}), **config, **more)
        return model

    def check_same(self, model, *words, said=NOTED, more=(), ranks=0):
        """It is evaluated as the bundled model is, and the words are said in one line."""
        result = helpers.succeed(*self.arguments(model, *more), ranks=ranks)
        self.assertEqual(result.json()["perplexity"], self.expected, result)
        if not words:
            self.assertNotIn(NOTED, result.stderr)
            self.assertNotIn(WARNED, result.stderr)
            return
        lines = [line for line in result.stderr.splitlines() if said in line]
        self.assertEqual(len(lines), 1, result)
        for word in words:
            self.assertIn(word, lines[0])

    def check_refused(self, code, words, model, *more, ranks=(0, 2)):
        for number in ranks:
            result = helpers.run(*self.arguments(model, *more), ranks=number)
            self.assertEqual(result.code, code, result)
            said = [line for line in result.stderr.splitlines() if line.startswith("snrq:")]
            self.assertEqual(len(said), 1, result)
            for word in words:
                self.assertIn(word, said[0])

    def quantize(self, model, out, *more, code=0, ranks=0):
        words = ["quantize", model, "--calibration", helpers.CALIBRATION, "-o", out, *SHORT, *more]
        result = helpers.run(*words, ranks=ranks)
        self.assertEqual(result.code, code, result)
        return result

    def inspect(self, model):
        return helpers.succeed("inspect", model, "--json").json()

    def kinds(self, model):
        return [finding["kind"] for finding in self.inspect(model)["findings"]]


class Names(Checkpoint):
    def rename(self, rule, **how):
        def change(tensors):
            for name in list(tensors):
                tensors[rule(name)] = tensors.pop(name)
        return self.model(change, **how)

    def test_prefixes_of_wrappers(self):
        for i, prefix in enumerate(("module.", "_orig_mod.", "base_model.model.", "module._orig_mod.")):
            with self.subTest(prefix=prefix):
                model = self.rename(lambda name: prefix + name, name=str(i))
                self.check_same(model, "names of tensors are read without '%s'" % prefix, more=["--strict"])

    def test_missing_prefix(self):
        model = self.rename(lambda name: name.replace("model.", "", 1))
        self.check_same(model, "with 'model.' before them")
        self.assertEqual(self.kinds(model), ["other_spelling"])

    def test_outputs_have_the_usual_names(self):
        model = self.rename(lambda name: "module." + name.replace("model.", "", 1))
        self.quantize(model, self.path("other"), ranks=2)
        self.quantize(helpers.MODEL, self.path("usual"))
        self.assertEqual(helpers.weights(self.path("other")), helpers.weights(self.path("usual")))

    def test_only_some_names_have_the_prefix(self):
        model = self.rename(lambda name: name if name == EMBEDDING else "module." + name)
        self.check_same(model, "without 'module.'")

    def test_names_of_two_models(self):
        def change(tensors):
            for name in list(tensors):
                tensors["module." + name] = tensors["_orig_mod." + name] = tensors.pop(name)
        self.check_refused(BAD_DATA, ["names of two models", NORM], self.model(change))

    def test_other_names_are_shown(self):
        model = self.rename(lambda name: "transformer.\n" + name)
        self.check_refused(BAD_DATA, ["no tensor '%s'" % EMBEDDING, "there are 'transformer.?model.embed_tokens.weight', ",
                                      " and 53 more"], model)

    def test_shared_embedding(self):
        def change(tensors):
            tensors[HEAD] = tensors.pop(EMBEDDING)
        for i, metadata in enumerate(({EMBEDDING: HEAD}, {EMBEDDING: "shared", "shared": HEAD, "format": "pt"})):
            model = self.model(change, metadata, name=str(i))
            self.check_same(model, more=["--strict"])
            self.assertEqual(self.inspect(model)["unread_tensors"], 0)
        self.quantize(model, self.path("other"), ranks=2)
        self.quantize(helpers.MODEL, self.path("usual"))
        self.assertEqual(helpers.weights(self.path("other")), helpers.weights(self.path("usual")))

    def test_metadata_that_leads_nowhere(self):
        def change(tensors):
            tensors[HEAD] = tensors.pop(EMBEDDING)
        for i, metadata in enumerate(({EMBEDDING: EMBEDDING}, {EMBEDDING: "a", "a": "b", "b": EMBEDDING},
                                      {EMBEDDING: "nowhere"})):
            self.check_refused(BAD_DATA, ["no tensor '%s'" % EMBEDDING, HEAD],
                               self.model(change, metadata, name=str(i)), ranks=[0])

    def test_index_that_lists_a_tied_head(self):
        def listed(*names):
            model = self.model(name="-".join(names))
            shard = "model-00001-of-00001.safetensors"
            there = list(helpers.read_safetensors(os.path.join(model, WEIGHTS)))
            os.rename(os.path.join(model, WEIGHTS), os.path.join(model, shard))
            with open(os.path.join(model, INDEX), "w") as f:
                json.dump({"metadata": {"total_size": float("inf")}, "weight_map": dict.fromkeys([*there, *names], shard)}, f)
            return model, shard
        model, shard = listed(HEAD)
        self.check_same(model)
        with open(os.path.join(model, "config.json")) as f:
            config = json.load(f)
        with open(os.path.join(model, "config.json"), "w") as f:
            json.dump(dict(config, tie_word_embeddings=False), f)
        self.check_refused(BAD_DATA, ["no tensor '%s'" % HEAD, shard, "does not hold it"], model)

    def test_older_name_of_the_class(self):
        model = self.model(architectures=["LLaMAForCausalLM"])
        self.check_same(model)
        self.assertEqual(self.inspect(model)["architecture"], "LlamaForCausalLM")


class Leftovers(Checkpoint):
    def test_cached_rotations_and_masks(self):
        names = ["model.layers.%d.self_attn.rotary_emb.%s" % (layer, name) for layer in range(6)
                 for name in ("cos_cached", "sin_cached", "inv_freq")]
        names += ["model.rotary_emb.inv_freq", "model.layers.1.self_attn.masked_bias", "model.layers.1.self_attn.bias"]
        model = self.add()(*names)
        self.check_same(model, "21 stored angles or masks are not read", "'model.layers.0.self_attn.rotary_emb.", "18 more",
                        more=["--strict"])
        self.assertEqual(self.inspect(model)["unread_tensors"], 21)

    def test_a_bias_in_a_block_is_no_leftover(self):
        self.check_refused(BAD_DATA, ["model.layers.2.self_attn.q_proj.bias", "attention_bias"],
                           self.add()("model.layers.2.self_attn.q_proj.bias"))

    def test_tensors_outside_the_model(self):
        names = ["score.weight", "vision_tower.layers.0.mlp.weight", "mtp.layers.0.weight", "model.layers.03.x"]
        model = self.add()(*names)
        words = ["4 tensors are no part of a LlamaForCausalLM", "'model.layers.03.x', 'mtp.layers.0.weight', 'score.weight' "
                 "and 1 more"]
        self.check_same(model, *words, said=WARNED, ranks=2)
        self.check_refused(BAD_DATA, [*words, "--strict"], model, "--strict")
        self.assertIn(words[0], self.quantize(model, self.path("out")).stderr)
        self.assertIn("--strict", self.quantize(model, self.path("other"), "--strict", code=BAD_DATA).stderr)
        self.assertFalse(os.path.exists(self.path("other")))
        self.assertEqual((self.kinds(model), self.inspect(model)["unread_tensors"]), (["unused_tensors"], 4))

    def test_thousands_of_them(self):
        model = self.add()(*("x.%05d\n\x1b[31m" % i for i in range(5000)))
        self.check_same(model, "5000 tensors", "'x.00000??[31m', 'x.00001??[31m', 'x.00002??[31m' and 4997 more", said=WARNED)
        self.assertLess(len(helpers.succeed("inspect", model).stdout), 3000)

    def test_a_name_with_a_nul(self):
        self.check_refused(BAD_DATA, [WEIGHTS, "header", "not valid JSON"], self.add()("model.\0"), ranks=[0])

    def test_more_layers_than_config_says(self):
        model = self.model(num_hidden_layers=4)
        words = ["num_hidden_layers 4", "18 tensors of layers from 4 to 5", "'model.layers.4.input_layernorm.weight'",
                 "15 more", "--ignore-unused-layers"]
        self.check_refused(BAD_DATA, words, model)
        self.assertIn(words[1], self.quantize(model, self.path("out"), code=BAD_DATA).stderr)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual(self.kinds(model), ["unused_layers"])
        result = helpers.run("export", model, "--format", "gguf", "-o", self.path("gguf"))
        self.assertEqual(result.code, BAD_DATA, result)

        def drop(tensors):
            for name in [name for name in tensors if re.match(r"model\.layers\.[45]\.", name)]:
                del tensors[name]
        smaller = self.model(drop, name="smaller", num_hidden_layers=4)
        self.assertEqual(self.perplexity(model, "--ignore-unused-layers", "--strict"), self.perplexity(smaller))

    def test_layers_that_predict_further_tokens(self):
        names = "model.layers.6.eh_proj.weight", "model.layers.6.mlp.up_proj.weight"
        model = self.add(num_nextn_predict_layers=1)(*names)
        self.check_same(model, "2 tensors of layers that predict further tokens", *names, more=["--strict"])
        model = self.add(num_nextn_predict_layers=1)("model.layers.7.x", name="beyond")
        self.check_refused(BAD_DATA, ["1 tensors of layers from 7 to 7"], model, ranks=[0])


class Contradictions(Checkpoint):
    def add_head(self, change, **config):
        def put(tensors):
            kind, shape, data = tensors[EMBEDDING]
            tensors[HEAD] = kind, shape, change(data)
        return self.model(put, **config)

    def test_another_head(self):
        """Of which the last byte alone differs."""
        model = self.add_head(lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        words = ["tie_word_embeddings", HEAD, EMBEDDING, "config.json"]
        self.check_same(model, *words, said=WARNED, ranks=2)
        self.check_refused(BAD_DATA, [*words, "--strict"], model, "--strict")
        self.assertEqual(self.kinds(model), ["other_head"])
        self.assertIn("tie_word_embeddings", helpers.succeed("inspect", model).stdout)
        untied = self.add_head(lambda data: bytes(len(data)), name="untied", tie_word_embeddings=False)
        self.assertAlmostEqual(self.perplexity(untied, "--strict"), 1024, places=6)  # all tokens alike

    def test_the_same_head(self):
        self.check_same(self.add_head(lambda data: data), more=["--strict"])

    def test_a_head_of_another_size(self):
        def put(tensors):
            kind, (rows, columns), data = tensors[EMBEDDING]
            tensors[HEAD] = kind, [rows - 1, columns], data[:-2 * columns]
        self.check_same(self.model(put), "tie_word_embeddings", said=WARNED)

    def test_no_head(self):
        self.check_refused(BAD_DATA, ["no tensor '%s'" % HEAD, "tie_word_embeddings"],
                           self.model(tie_word_embeddings=False), ranks=[0])

    def widen(self, **config):
        return self.model(lambda tensors: tensors.update({k: widened(t) for k, t in tensors.items()}), **config)

    def test_no_type_in_config(self):
        """The tensors tell, also to exports."""
        model = self.widen(torch_dtype=None)
        self.check_same(model, more=["--strict"])
        self.quantize(model, self.path("out"))
        helpers.succeed("export", self.path("out"), "--format", "safetensors", "-o", self.path("export"))
        with open(self.path("export", "config.json")) as f:
            self.assertEqual(json.load(f)["torch_dtype"], "float32")
        kinds = {kind for kind, _, _ in helpers.read_safetensors(self.path("export", WEIGHTS)).values()}
        self.assertEqual(kinds, {"F32"})

    def test_another_type_in_config(self):
        model = self.widen()
        words = ["dtype bfloat16", "'%s' is F32" % EMBEDDING, "float32"]
        self.check_same(model, *words, said=WARNED)
        self.check_refused(BAD_DATA, [*words, "--strict"], model, "--strict", ranks=[0])


class Files(Checkpoint):
    def test_git_lfs_pointers(self):
        for name in WEIGHTS, "config.json", "tokenizer.json":
            model = self.model(name=name)
            with open(os.path.join(model, name), "w") as f:
                f.write("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 454000\n" % ("0" * 64))
            self.check_refused(BAD_DATA, [os.path.join(model, name), "git-lfs pointer", "git lfs pull"], model, ranks=[0])

    def test_links_that_lead_nowhere(self):
        for name in WEIGHTS, "config.json", "tokenizer.json":
            model = self.model(name=name)
            os.remove(os.path.join(model, name))
            os.symlink("../blobs/0123", os.path.join(model, name))
            self.check_refused(NO_INPUT, [os.path.join(model, name), "is a link to ../blobs/0123, which does not exist"],
                               model, ranks=[0])

    def test_links_that_lead_to_files(self):
        model = self.model()
        for name in os.listdir(model):
            os.rename(os.path.join(model, name), self.path("blob-" + name))
            os.symlink("../blob-" + name, os.path.join(model, name))
        self.check_same(model)

    def test_links_in_a_circle(self):
        model = self.model()
        os.remove(os.path.join(model, WEIGHTS))
        os.symlink(WEIGHTS, os.path.join(model, WEIGHTS))
        self.check_refused(NO_INPUT, [WEIGHTS, "symbolic links"], model, ranks=[0])

    MORE = ('"bound": [Infinity, -Infinity, NaN], "length": 100000000000000000000, "note": "NaN, \\"Infinity\\"", '
            '"twice": 1, "twice": {"x": Infinity}')

    def with_text(self, more, name):
        model = self.model(name=name)
        path = os.path.join(model, "config.json")
        with open(path) as f:
            text = f.read().rstrip()
        with open(path, "w") as f:
            f.write(text[:-1] + ", " + more + "}")
        return model

    def test_json_as_python_writes_it(self):
        model = self.with_text(self.MORE, "model")
        self.check_same(model)
        self.quantize(model, self.path("out"))
        helpers.succeed("export", self.path("out"), "--format", "gptq", "-o", self.path("export"))
        with open(os.path.join(model, "config.json")) as f, open(self.path("export", "config.json")) as g:
            before, after = json.load(f), json.load(g)
        del after["quantization_config"], before["torch_dtype"], after["torch_dtype"]
        self.assertEqual(repr(sorted(after.items())), repr(sorted(before.items())))  # NaN is not equal to itself

    def test_where_the_value_is_needed(self):
        for i, (more, words) in enumerate((('"hidden_size": 128', ["hidden_size", "given twice"]),
                                           ('"sliding_window": Infinity', ["sliding_window", "Infinity"]),
                                           ('"partial_rotary_factor": NaN', ["partial_rotary_factor", "NaN"]))):
            self.check_refused(BAD_DATA, ["config.json", *words], self.with_text(more, str(i)), ranks=[0])


class Changed(Checkpoint):
    """A model that changes between two runs."""
    NAME = "model.layers.3.mlp.up_proj.weight"

    def flip(self, model, name=NAME):
        """A bit in the middle of a tensor."""
        path = os.path.join(model, WEIGHTS)
        header, start = helpers.read_safetensors_header(path)
        begin, end = header[name]["data_offsets"]
        helpers.flip_bit(path, start + (begin + end) // 2)

    def stored(self, out):
        with open(os.path.join(out, "snrq.json")) as f:
            return json.load(f)["model"]["tensors"]

    def unfinished(self):
        model, out = self.model(), self.path("out")
        self.quantize(model, out, ranks=2)
        helpers.drop_records(out, 3)
        return model, out

    def test_a_weight_in_the_middle_of_a_tensor(self):
        model, out = self.unfinished()
        before = helpers.weights(out)
        self.flip(model)
        for ranks in 0, 2:
            said = self.quantize(model, out, code=USAGE, ranks=ranks).stderr
            self.assertIn("model.tensors.%s: the unfinished run has" % self.NAME, said)
            self.assertNotIn("and 1 more", said)
        self.assertEqual(helpers.weights(out), before)
        self.flip(model)
        self.quantize(model, out, ranks=3)
        self.assertEqual(helpers.weights(out), before)

    def test_every_tensor_that_is_read_has_one(self):
        model, out = self.unfinished()
        self.assertEqual(sorted(self.stored(out)), sorted(helpers.read_safetensors(os.path.join(model, WEIGHTS))))

    def test_a_tensor_that_is_not_read_may_change(self):
        """But for its first and last bytes, which are part of the fingerprint."""
        model = self.add()("score.weight")
        out = self.path("out")
        tensors = helpers.read_safetensors(os.path.join(model, WEIGHTS))
        tensors["score.weight"] = vector(4096)
        write_weights(os.path.join(model, WEIGHTS), tensors)
        self.quantize(model, out)
        self.assertNotIn("score.weight", self.stored(out))
        helpers.drop_records(out, 3)
        self.flip(model, "score.weight")
        self.quantize(model, out)

    def test_a_run_without_checksums_goes_on(self):
        """With the fingerprint alone; what both have is compared."""
        model, out = self.unfinished()
        with open(os.path.join(out, "snrq.json")) as f:
            text = f.read()
        older, count = re.subn(r',\s*"tensors"\s*:\s*\{[^}]*\}', "", text)
        self.assertEqual(count, 1)
        before = helpers.weights(out)
        shutil.rmtree(out)
        os.mkdir(out)
        with open(os.path.join(out, "snrq.json"), "w") as f:
            f.write(older)
        self.quantize(model, out, ranks=2)
        self.assertEqual(helpers.weights(out), before)
        with open(os.path.join(out, "snrq.json")) as f:
            self.assertEqual(f.read(), older)
        helpers.flip_bit(os.path.join(model, WEIGHTS), -1)
        self.assertIn("model.fingerprint", self.quantize(model, out, code=USAGE).stderr)

    def test_checksums_are_those_of_the_documents(self):
        """XXH3-128 of the XXH3-128s of pieces of 8 MiB, from the library; on any number of ranks."""
        config = dict(small_models.LLAMA_WITH_BIASES, vocab_size=120000, num_hidden_layers=1)
        model = small_models.write(self.path("model"), config)
        ids = helpers.write_ids(self.path("ids.i32"), small_models.windows(config, 4, 16))
        found = []
        for ranks in 0, 2, 3:
            out = self.path("out%d" % ranks)
            helpers.succeed("quantize", model, "--token-file", ids, "-o", out, "--method", "rtn", "--length", 16, ranks=ranks)
            found.append(self.stored(out))
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[0], found[2])
        library = ctypes.util.find_library("xxhash")
        if library is None:
            self.skipTest("there is no libxxhash")
        xxh3 = Xxh3(library)
        tensors = helpers.read_safetensors(os.path.join(model, WEIGHTS))
        self.assertGreater(len(tensors[HEAD][2]), 16 << 20)  # three pieces
        for name, (_, _, data) in tensors.items():
            pieces = b"".join(xxh3(data[at:at + (8 << 20)]) for at in range(0, len(data), 8 << 20))
            self.assertEqual(found[0][name], xxh3(pieces).hex(), name)


class Xxh3:
    """XXH3-128 in canonical form, the high half first."""
    class Hash(ctypes.Structure):
        _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]

    def __init__(self, library):
        self.function = ctypes.CDLL(library).XXH3_128bits
        self.function.restype, self.function.argtypes = self.Hash, [ctypes.c_char_p, ctypes.c_size_t]

    def __call__(self, data):
        both = self.function(data, len(data))
        return struct.pack(">QQ", both.high, both.low)


if __name__ == "__main__":
    helpers.main()
