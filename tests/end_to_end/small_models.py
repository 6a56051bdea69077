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

# Biases of q, k and v only; a window that use_sliding_window switches off; turned by yarn.
QWEN2_WITH_YARN = dict(COMMON, architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=40, intermediate_size=48,
                       max_position_embeddings=256, sliding_window=5, use_sliding_window=False, rope_theta=1000.0,
                       torch_dtype="bfloat16", rope_scaling={"type": "yarn", "factor": 4.0,
                                                            "original_max_position_embeddings": 16})

# Norms behind attention and MLP, and of all heads as one vector.
OLMO2 = dict(COMMON, architectures=["Olmo2ForCausalLM"], model_type="olmo2", hidden_size=48, intermediate_size=64,
             max_position_embeddings=128, rope_theta=10000.0, torch_dtype="bfloat16")

# Norms on both sides, caps, windows in every other layer, heads scaled by another number than their width.
GEMMA2 = dict(COMMON, architectures=["Gemma2ForCausalLM"], model_type="gemma2", hidden_size=40, head_dim=16,
              intermediate_size=64, max_position_embeddings=128, sliding_window=7, query_pre_attn_scalar=10,
              attn_logit_softcapping=5.0, final_logit_softcapping=8.0, hidden_activation="gelu_pytorch_tanh",
              rope_theta=1000.0, torch_dtype="bfloat16")

# Two bases of rope, windows but in every third layer, norms of each head.
GEMMA3 = dict(COMMON, architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", hidden_size=40, head_dim=16,
              num_hidden_layers=4, intermediate_size=64, max_position_embeddings=128, sliding_window=6,
              sliding_window_pattern=3, query_pre_attn_scalar=16, hidden_activation="gelu_pytorch_tanh",
              rope_theta=100000.0, rope_local_base_freq=500.0, rope_scaling={"rope_type": "linear", "factor": 2.0},
              torch_dtype="bfloat16")

GRANITE = dict(COMMON, architectures=["GraniteForCausalLM"], model_type="granite", hidden_size=48, intermediate_size=64,
               max_position_embeddings=128, embedding_multiplier=6.0, residual_multiplier=0.3, attention_multiplier=0.1,
               logits_scaling=4.0, tie_word_embeddings=True, rope_theta=10000.0, torch_dtype="bfloat16")

# One layer that is not turned, and sees a window.
SMOLLM3 = dict(COMMON, architectures=["SmolLM3ForCausalLM"], model_type="smollm3", hidden_size=48, intermediate_size=64,
               max_position_embeddings=128, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=6,
               rope_theta=10000.0, torch_dtype="bfloat16")

MIXTRAL = dict(COMMON, architectures=["MixtralForCausalLM"], model_type="mixtral", hidden_size=48, intermediate_size=32,
               max_position_embeddings=256, num_local_experts=4, num_experts_per_tok=2, rope_theta=10000.0,
               torch_dtype="bfloat16")

# The middle layer is dense; weights of the experts are not divided by their sum.
QWEN3_MOE = dict(COMMON, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=48, head_dim=16,
                 intermediate_size=64, moe_intermediate_size=32, num_experts=6, num_experts_per_tok=3, mlp_only_layers=[1],
                 norm_topk_prob=False, max_position_embeddings=256, rope_theta=10000.0, torch_dtype="bfloat16")

OLMOE = dict(COMMON, architectures=["OlmoeForCausalLM"], model_type="olmoe", hidden_size=48, intermediate_size=32,
             num_experts=6, num_experts_per_tok=2, norm_topk_prob=True, clip_qkv=1.5, max_position_embeddings=256,
             rope_theta=10000.0, torch_dtype="bfloat16")

# Groups of experts, one for all tokens, a dense first layer, latent vectors.
DEEPSEEK_V3 = dict(COMMON, architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", hidden_size=48,
                   intermediate_size=64, moe_intermediate_size=32, n_routed_experts=6, num_experts_per_tok=2, n_group=3,
                   topk_group=2, n_shared_experts=2, first_k_dense_replace=1, routed_scaling_factor=1.5, norm_topk_prob=True,
                   num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16,
                   v_head_dim=12, max_position_embeddings=256, rope_theta=1000.0, torch_dtype="bfloat16",
                   rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0,
                                 "mscale_all_dim": 0.7})

# The same without a latent vector of the queries, and heads whose halves turn.
DEEPSEEK_V3_HALF = dict(DEEPSEEK_V3, q_lora_rank=None, rope_interleave=False, rope_scaling=None, n_shared_experts=1)


def latent_attention(config):
    c, heads = config, config["num_attention_heads"]
    head, hidden = c["qk_rope_head_dim"] + c["qk_nope_head_dim"], c["hidden_size"]
    shapes = {"kv_a_proj_with_mqa": (c["kv_lora_rank"] + c["qk_rope_head_dim"], hidden),
              "kv_b_proj": (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"]),
              "o_proj": (hidden, heads * c["v_head_dim"]), "kv_a_layernorm": (c["kv_lora_rank"],)}
    if c["q_lora_rank"]:
        shapes.update(q_a_proj=(c["q_lora_rank"], hidden), q_b_proj=(heads * head, c["q_lora_rank"]),
                      q_a_layernorm=(c["q_lora_rank"],))
    else:
        shapes["q_proj"] = heads * head, hidden
    return shapes


def attention_of_block(config):
    kind, hidden = config["model_type"], config["hidden_size"]
    if kind == "deepseek_v3":
        return latent_attention(config)
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"o_proj": (hidden, queries)}
    if kind == "phi3":
        shapes["qkv_proj"] = queries + 2 * keys, hidden
    else:
        shapes.update(q_proj=(queries, hidden), k_proj=(keys, hidden), v_proj=(keys, hidden))
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        shapes.update(q_norm=(head,), k_norm=(head,))
    if kind in ("olmo2", "olmoe"):
        shapes.update(q_norm=(queries,), k_norm=(keys,))
    return shapes


def mlp_of_block(config, layer):
    """Weights below the block, but for those of the attention."""
    kind, hidden = config["model_type"], config["hidden_size"]
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts")
    if not experts or layer in config.get("mlp_only_layers", []) or layer < config.get("first_k_dense_replace", 0):
        middle = config["intermediate_size"]
        if kind == "phi3":
            return {"mlp.gate_up_proj": (2 * middle, hidden), "mlp.down_proj": (hidden, middle)}
        return {"mlp.gate_proj": (middle, hidden), "mlp.up_proj": (middle, hidden), "mlp.down_proj": (hidden, middle)}
    middle = config.get("moe_intermediate_size") or config["intermediate_size"]
    p, names = ("block_sparse_moe", "w1 w3 w2") if kind == "mixtral" else ("mlp", "gate_proj up_proj down_proj")
    shapes = {p + ".gate": (experts, hidden)}
    for expert in range(experts):
        for name, shape in zip(names.split(), ((middle, hidden), (middle, hidden), (hidden, middle))):
            shapes["%s.experts.%d.%s" % (p, expert, name)] = shape
    shared = config.get("n_shared_experts", 0) * middle
    if shared:
        shapes.update({"mlp.shared_experts.gate_proj": (shared, hidden), "mlp.shared_experts.up_proj": (shared, hidden),
                       "mlp.shared_experts.down_proj": (hidden, shared)})
    return shapes


def modules_of_block(config, layer):
    """Names of the linear layers that are quantized."""
    attention = ["self_attn." + name for name, shape in attention_of_block(config).items() if len(shape) == 2]
    return attention + [name for name in mlp_of_block(config, layer) if not name.endswith(".gate")]


def shapes_of_block(config, layer):
    kind, hidden = config["model_type"], config["hidden_size"]
    attention = {"self_attn." + name: shape for name, shape in attention_of_block(config).items()}
    mlp = mlp_of_block(config, layer)
    shapes = {name + ".weight": shape for name, shape in {**attention, **mlp}.items()}
    if "mlp.gate" in mlp and kind == "deepseek_v3":
        shapes["mlp.gate.e_score_correction_bias"] = mlp["mlp.gate"][:1]
    biased = list(attention.items()) if config.get("attention_bias") else []
    biased += mlp.items() if config.get("mlp_bias") else []
    if kind == "qwen2":
        biased += [(name, shape) for name, shape in attention.items() if not name.endswith("o_proj")]
    shapes.update({name + ".bias": shape[:1] for name, shape in biased if len(shape) == 2})
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind == "olmo2":
        norms = ["post_attention_layernorm", "post_feedforward_layernorm"]
    if kind in ("gemma2", "gemma3_text"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes.update({name + ".weight": (hidden,) for name in norms})
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
    if not config.get("tie_word_embeddings", config["model_type"] in ("gemma2", "gemma3_text", "smollm3")):
        shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        for name, shape in shapes_of_block(config, layer).items():
            shapes["model.layers.%d.%s" % (layer, name)] = shape
    random, tensors = np.random.default_rng(7), {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape)
        if len(shape) == 2:
            values *= 1.5 / np.sqrt(shape[1])
        else:
            less_one = config["model_type"].startswith("gemma")  # weights of norms are stored so
            values = 0.3 * values + (0.0 if "bias" in name or less_one else 1.0)
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
