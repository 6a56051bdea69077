"""Models of a few thousand random weights, one per family, for what the trained and downloaded ones do not have.

Names and shapes are written down here once more, from the layout of Hugging Face checkpoints, not from the program.
"""
import json
import os

import numpy as np

import helpers

COMMON = {"vocab_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
          "hidden_act": "silu", "rms_norm_eps": 1e-5}

# Biases everywhere, heads that are wider together than the model, rope scaling of type linear.
LLAMA_WITH_BIASES = dict(COMMON, architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=40, head_dim=12,
                         intermediate_size=56, max_position_embeddings=128, attention_bias=True, mlp_bias=True,
                         rope_theta=500.0, rope_scaling={"type": "linear", "factor": 2.0}, torch_dtype="float32")

# A window that begins inside a block of queries, and ends in the next one.
MISTRAL_WITH_WINDOW = dict(COMMON, architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=48,
                           head_dim=16, intermediate_size=64, max_position_embeddings=256, sliding_window=70,
                           rope_theta=10000.0, tie_word_embeddings=True, torch_dtype="bfloat16")

# A window in the upper layers only, biases of the attention, settings in the newer spelling.
QWEN3_WITH_WINDOW = dict(COMMON, architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=40, head_dim=16,
                         intermediate_size=48, max_position_embeddings=128, attention_bias=True,
                         use_sliding_window=True, sliding_window=7, max_window_layers=1, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 1000.0}, dtype="bfloat16")

# Three quarters of a head turn; contexts up to 24 tokens are short ones.
PHI3_TURNED_IN_PART = dict(COMMON, architectures=["Phi3ForCausalLM"], model_type="phi3", hidden_size=64,
                           intermediate_size=48, max_position_embeddings=96, original_max_position_embeddings=24,
                           rope_theta=100.0, partial_rotary_factor=0.75, torch_dtype="float16",
                           rope_scaling={"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                                         "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0]})


def shapes_of_block(config):
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention, mlp = {"self_attn.o_proj": (hidden, queries)}, {"mlp.down_proj": (hidden, middle)}
    if config["model_type"] == "phi3":
        attention["self_attn.qkv_proj"] = queries + 2 * keys, hidden
        mlp["mlp.gate_up_proj"] = 2 * middle, hidden
    else:
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            attention["self_attn.%s_proj" % name] = rows, hidden
        mlp["mlp.gate_proj"] = mlp["mlp.up_proj"] = middle, hidden
    shapes = {name + ".weight": shape for name, shape in {**attention, **mlp}.items()}
    for key, modules in (("attention_bias", attention), ("mlp_bias", mlp)):
        if config.get(key):
            shapes.update({name + ".bias": shape[:1] for name, shape in modules.items()})
    shapes.update({"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)})
    if config["model_type"] == "qwen3":
        shapes.update({"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)})
    return shapes


def stored(values, kind):
    values = values.astype(np.float32)
    if kind == "bfloat16":
        return "BF16", (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return ("F16", values.astype("<f2").tobytes()) if kind == "float16" else ("F32", values.astype("<f4").tobytes())


def write(directory, config, shards=1):
    """Writes config.json and weights with the strengths of a trained model. Returns `directory`."""
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], config["hidden_size"]),
              "model.norm.weight": (config["hidden_size"],)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        for name, shape in shapes_of_block(config).items():
            shapes["model.layers.%d.%s" % (layer, name)] = shape
    random, tensors = np.random.default_rng(7), {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape)
        if len(shape) == 2:
            values *= 1.5 / np.sqrt(shape[1])
        else:
            values = 0.3 * values + (0.0 if name.endswith(".bias") else 1.0)
        kind, data = stored(values, config.get("torch_dtype") or config["dtype"])
        tensors[name] = kind, list(shape), data
    os.mkdir(directory)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f)
    if shards == 1:
        helpers.write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
        return directory
    files = ["model-%05d-of-%05d.safetensors" % (i + 1, shards) for i in range(shards)]
    names = {file: list(tensors)[i::shards] for i, file in enumerate(files)}
    for file in files:
        helpers.write_safetensors(os.path.join(directory, file), {name: tensors[name] for name in names[file]})
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as f:
        json.dump({"weight_map": {name: file for file in files for name in names[file]}}, f)
    return directory


def windows(config, count, length):
    return np.random.default_rng(11).integers(0, config["vocab_size"], (count, length))
