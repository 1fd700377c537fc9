#!/usr/bin/env python3
"""make_random_model.py KIND DEMO OUT: a small model with random weights, always the same, and the demo model's tokenizer.

KIND wide: a Llama of one block whose rows are 256 long, as K-quants want them. KIND tall: one whose feed-forward network is
worth sharing out between threads. KIND gemma: a Gemma 3 whose windows are shorter than a text; its third and sixth block see all of it.
KIND images: the same as the language model of a Gemma 3 with images, config.json and names as in published ones.
KIND gemma2: a Gemma 2 with short windows in its first and third block, and caps so low that they matter.
KIND gemma2-deep: one of as many tiny blocks as Gemma 2 27B has, which scales queries likewise.
KIND qwen2-heads: the same as KIND qwen2, but that its heads are together larger than the model.
KIND olmo2-tied: the same as KIND olmo2, but that its embeddings are its head.
KIND tiny: a Llama of some 20,000 weights beside its embeddings.
KIND qwen2, qwen3, mistral, smollm3, granite, olmo2: small ones of these families, Mistral's without windows and with rotary
settings as transformers 5 spells them, SmolLM3's of four blocks, the last of which does not rotate; what they leave to
transformers' defaults are fields for which mlx-lm has others, or none, and other bases are none that a reader has by default.
KIND dynamic: a Llama of two blocks with dynamic rotary scaling, from 128 tokens on.
KIND phi3, phi4-mini: with projections of several linears, the latter with heads of which three quarters rotate, and longrope.
"""
import array
import json
import math
import os
import random
import shutil
import struct
import sys

NORMS = ("input_layernorm", "post_attention_layernorm")
OUTPUT_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
GEMMA_NORMS = NORMS + ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def wide(demo):
    """config.json."""
    return {**demo, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
            "num_key_value_heads": 4, "head_dim": 64}


def tall(demo):
    return {**wide(demo), "hidden_size": 128, "intermediate_size": 2176, "num_attention_heads": 2, "num_key_value_heads": 2}


def tiny(demo):
    return {**wide(demo), "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2,
            "head_dim": 16}


def gemma(demo):
    kept = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "max_position_embeddings",
            "attention_dropout", "initializer_range", "use_cache")
    return {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", **{key: demo[key] for key in kept},
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 64, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": 64, "sliding_window": 48,
            "layer_types": (["sliding_attention"] * 2 + ["full_attention"]) * 2,
            "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
            "tie_word_embeddings": True, "attention_bias": False, "attn_logit_softcapping": None,
            "final_logit_softcapping": None, "use_bidirectional_attention": False}


def images(demo):
    """In the text's own member, what is transformers' default is left out."""
    whole = gemma(demo)
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "head_dim", "query_pre_attn_scalar", "sliding_window")
    text = {"model_type": whole["model_type"], **{key: whole[key] for key in kept}, "sliding_window_pattern": 3,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    tokens = {name + "_token_index": demo["vocab_size"] + i for i, name in enumerate(("boi", "eoi", "image"))}
    return {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", **tokens,
            "eos_token_id": demo["eos_token_id"], "initializer_range": 0.02, "mm_tokens_per_image": 4, "text_config": text,
            "torch_dtype": "bfloat16",
            "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                              "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
                              "vision_use_head": False}}


def family(demo, architecture, **fields):
    kept = ("vocab_size", "bos_token_id", "eos_token_id", "dtype", "max_position_embeddings", "attention_dropout",
            "initializer_range", "use_cache")
    return {"architectures": [architecture + "ForCausalLM"], "model_type": architecture.lower(),
            **{key: demo[key] for key in kept}, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "rope_theta": 300.0, "tie_word_embeddings": True, "pad_token_id": 0, **fields}


def dynamic(demo):
    config = family(demo, "Llama", rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 300.0},
                    max_position_embeddings=128)
    del config["rope_theta"]
    return config


def qwen2(demo):
    config = family(demo, "Qwen2", use_sliding_window=False, sliding_window=32768, max_window_layers=2, num_attention_heads=2,
                    num_key_value_heads=1)
    del config["head_dim"]  # it is always hidden_size / num_attention_heads
    del config["rope_theta"]
    return config


def qwen2_heads(demo):
    return {**qwen2(demo), "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}


def qwen3(demo):
    return family(demo, "Qwen3", use_sliding_window=False, sliding_window=None, max_window_layers=2, attention_bias=False)


def mistral(demo):
    config = family(demo, "Mistral", sliding_window=None, rope_parameters={"rope_type": "default", "rope_theta": 300.0})
    del config["rope_theta"], config["tie_word_embeddings"]  # not tied
    return config


def smollm3(demo):
    return family(demo, "SmolLM3", use_sliding_window=False, sliding_window=None, num_hidden_layers=4, attention_bias=False,
                  mlp_bias=False)


def granite(demo):
    config = family(demo, "Granite", embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.5,
                    logits_scaling=2.0)
    del config["head_dim"]  # it is always hidden_size / num_attention_heads
    return config


def olmo2(demo):
    config = family(demo, "Olmo2", tie_word_embeddings=False, attention_bias=False)
    del config["head_dim"]  # it is always hidden_size / num_attention_heads
    return config


def olmo2_tied(demo):
    return {**olmo2(demo), "tie_word_embeddings": True}


def gemma2(demo):
    config = family(demo, "Gemma2", num_hidden_layers=4, hidden_activation="gelu_pytorch_tanh", attention_bias=False,
                    query_pre_attn_scalar=64, sliding_window=64, attn_logit_softcapping=1.0, final_logit_softcapping=2.0)
    del config["hidden_act"]
    return config


def gemma2_deep(demo):
    return {**gemma2(demo), "num_hidden_layers": 46, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 16}


def phi3(demo, **fields):
    """As published files have it; the window binds nothing."""
    code = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    config = family(demo, "Phi3", auto_map=code, embd_pdrop=0.0, resid_pdrop=0.0, attention_bias=False, rope_scaling=None,
                    sliding_window=262144, tie_word_embeddings=False, num_key_value_heads=4, **fields)
    del config["head_dim"]
    return config


def phi4_mini(demo):
    pairs = range(12)  # that rotate, of a head's 32 numbers
    longrope = {"type": "longrope", "short_factor": [1 + 0.1 * i for i in pairs], "long_factor": [1 + 0.9 * i for i in pairs]}
    return {**phi3(demo), "num_key_value_heads": 2, "partial_rotary_factor": 0.75, "tie_word_embeddings": True,
            "rope_scaling": longrope, "max_position_embeddings": 65536, "original_max_position_embeddings": 2048,
            "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False}


KINDS = {"wide": wide, "tall": tall, "tiny": tiny, "gemma": gemma, "images": images, "qwen2": qwen2,
         "qwen2-heads": qwen2_heads, "qwen3": qwen3, "mistral": mistral, "smollm3": smollm3, "gemma2": gemma2,
         "gemma2-deep": gemma2_deep, "granite": granite, "olmo2": olmo2, "olmo2-tied": olmo2_tied, "dynamic": dynamic,
         "phi3": phi3, "phi4-mini": phi4_mini}


def vision_shapes(config):
    """{NAME: shape} of what reads images."""
    vision, tower = config["vision_config"], "vision_tower.vision_model."
    size, ffn, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    matrices = {"self_attn.%s_proj" % part: [size, size] for part in ("q", "k", "v", "out")}
    matrices.update({"mlp.fc1": [ffn, size], "mlp.fc2": [size, ffn]})
    shapes = {tower + "embeddings.patch_embedding.weight": [size, 3, patch, patch],
              tower + "embeddings.patch_embedding.bias": [size],
              tower + "embeddings.position_embedding.weight": [(vision["image_size"] // patch) ** 2, size]}
    for name, shape in matrices.items():
        shapes[tower + "encoder.layers.0.%s.weight" % name] = shape
        shapes[tower + "encoder.layers.0.%s.bias" % name] = shape[:1]
    for name in ("encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2", "post_layernorm"):
        shapes[tower + name + ".weight"] = shapes[tower + name + ".bias"] = [size]
    return {**shapes, "multi_modal_projector.mm_input_projection_weight": [size, config["text_config"]["hidden_size"]],
            "multi_modal_projector.mm_soft_emb_norm.weight": [size]}


def shapes_of(config):
    """{NAME without .weight: shape}."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    is_gemma = config["model_type"].startswith("gemma")
    shapes = {"model.embed_tokens": [config["vocab_size"], hidden]}
    for layer in range(config["num_hidden_layers"]):
        prefix = "model.layers.%d." % layer
        linears = (("self_attn.q_proj", [q, hidden]), ("self_attn.k_proj", [kv, hidden]),
                   ("self_attn.v_proj", [kv, hidden]), ("self_attn.o_proj", [hidden, q]),
                   ("mlp.gate_proj", [ffn, hidden]), ("mlp.up_proj", [ffn, hidden]), ("mlp.down_proj", [hidden, ffn]))
        if config["model_type"] == "phi3":
            linears = (("self_attn.qkv_proj", [q + 2 * kv, hidden]), ("mlp.gate_up_proj", [2 * ffn, hidden]),
                       ("self_attn.o_proj", [hidden, q]), ("mlp.down_proj", [hidden, ffn]))
        for name, shape in linears:
            shapes[prefix + name] = shape
        is_olmo = config["model_type"] == "olmo2"
        for name in GEMMA_NORMS if is_gemma else OUTPUT_NORMS if is_olmo else NORMS:
            shapes[prefix + name] = [hidden]
        if config["model_type"] in ("gemma3_text", "qwen3", "olmo2"):  # of the last over all heads
            shapes[prefix + "self_attn.q_norm"] = [q if is_olmo else size]
            shapes[prefix + "self_attn.k_norm"] = [kv if is_olmo else size]
    shapes["model.norm"] = [hidden]
    return shapes if config.get("tie_word_embeddings", is_gemma) else {**shapes, "lm_head": [config["vocab_size"], hidden]}


def biases_of(config, shapes):
    """The same for biases."""
    if config["model_type"] != "qwen2":
        return {}
    return {name: shape[:1] for name, shape in shapes.items() if name.endswith(("q_proj", "k_proj", "v_proj"))}


def bf16(values):
    """Cut off, not rounded: any weights will do."""
    words = array.array("I", array.array("f", values).tobytes())
    return array.array("H", (word >> 16 for word in words)).tobytes()


def values_of(name, shape, source, is_gemma):
    if len(shape) >= 2:
        return [source.gauss(0, 0.06) for _ in range(math.prod(shape))]
    if name.endswith(("q_norm", "k_norm", "post_feedforward_layernorm")) and not is_gemma:
        return [source.gauss(1, 0.2) for _ in range(shape[0])]
    return [source.gauss(0, 0.1) for _ in range(shape[0])] if is_gemma else [1.0] * shape[0]  # Gemma adds 1


def main():
    kind, demo, out = sys.argv[1:]
    with open(os.path.join(demo, "config.json"), encoding="utf-8") as file:
        config = KINDS[kind](json.load(file))
    source, header, data, end = random.Random(1), {}, [], 0
    text = config.get("text_config", config)
    shapes, prefix = shapes_of(text), "" if text is config else "language_model."
    is_gemma = text["model_type"].startswith("gemma")
    values = [(prefix + name + ".weight", shape, values_of(name, shape, source, is_gemma)) for name, shape in shapes.items()]
    values += [(name + ".bias", shape, values_of(name, shape, source, True))
               for name, shape in biases_of(text, shapes).items()]
    if text is not config:
        values += [(name, shape, values_of(name, shape, source, True)) for name, shape in vision_shapes(config).items()]
    for name, shape, numbers in values:
        data.append(bf16(numbers))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + len(data[-1])]}
        end += len(data[-1])
    os.mkdir(out)
    for name in os.listdir(demo):
        if name.startswith(("tokenizer", "generation_config", "chat_template")):
            shutil.copyfile(os.path.join(demo, name), os.path.join(out, name))
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))


main()
