#!/usr/bin/env python3
"""Makes tests/golden/models/: small random checkpoints and the logits that transformers gives for them.

    pip install torch transformers safetensors numpy
    scripts/make-model-goldens.py [FOLDER [CASE...]]    # all, in place of what is there, or the cases that are named

Each case is a folder: config.json in the spelling that the case names, model.safetensors (or shards with an index; a
link where a case shares the weights of another), and expected.safetensors with `ids` I32 [sequences, length], `logits`
F32 [sequences * length, vocab_size] and the rotary tables `global.cos`, ... F32 [length, rotary_dim / 2], computed in
float32 from what stands in the folder. A setting that is
meant to matter is shown to: the logits must differ from those without it.
"""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gemma3 import modeling_gemma3

SEQUENCES, LENGTH, VOCAB = 2, 24, 64
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "initializer_range": 0.02,
    "use_cache": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "dtype": "float32",
}

GEMMA = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 24,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "initializer_range": 0.02,
    "use_cache": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "dtype": "float32",
}


def change(base, remove=(), **fields):
    config = json.loads(json.dumps(base))
    for name in remove:
        del config[name]
    config.update(fields)
    return config


def rope(**parameters):
    return change(LLAMA, max_position_embeddings=8, rope_parameters=dict(rope_theta=1000.0, **parameters))


# name -> config, type of the checkpoint, whose weights (its own: None), whose logits it must differ from, shards
CASES = {
    "llama": (change(LLAMA, num_key_value_heads=4), "F32", None, None, False),
    "llama-tied-bf16": (
        change(LLAMA, ["rope_parameters"], tie_word_embeddings=True, rope_theta=500.0, rope_scaling=None, torch_dtype="bfloat16"),
        "BF16", None, None, False,
    ),
    "llama-shards-f16": (LLAMA, "F16", None, None, True),
    "llama-shards-bf16": (change(LLAMA, ["num_key_value_heads"]), "BF16", None, None, True),
    "llama-biases": (change(LLAMA, attention_bias=True, mlp_bias=True), "BF16", None, None, False),
    "llama-head-dim": (change(LLAMA, head_dim=12, num_key_value_heads=1), "BF16", None, None, False),
    "llama-gelu": (change(LLAMA, ["num_key_value_heads"], hidden_act="gelu_pytorch_tanh"), "BF16", "llama-shards-bf16", "llama-shards-bf16", True),
    "rope-default": (rope(rope_type="default"), "BF16", None, None, False),
    "rope-linear": (rope(rope_type="linear", factor=4.0), "BF16", "rope-default", "rope-default", False),
    "rope-linear-v4": (
        change(rope(), ["rope_parameters"], rope_theta=1000.0, rope_scaling={"type": "linear", "factor": 4.0}),
        "BF16", "rope-default", "rope-default", False,
    ),
    "rope-dynamic": (rope(rope_type="dynamic", factor=3.0), "BF16", "rope-default", "rope-default", False),
    "rope-llama3": (
        rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=128),
        "BF16", "rope-default", "rope-default", False,
    ),
    "rope-llama3-v4": (
        change(rope(), ["rope_parameters"], rope_theta=1000.0, max_position_embeddings=256,
               rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 64}),
        "BF16", "rope-default", "rope-default", False,
    ),
    "rope-yarn": (rope(rope_type="yarn", factor=4.0), "BF16", "rope-default", "rope-default", False),
    "rope-yarn-options": (
        rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=6, beta_fast=1.5, beta_slow=0.4,
             mscale=0.9, mscale_all_dim=0.3, truncate=False),
        "BF16", "rope-default", "rope-yarn", False,
    ),
    "rope-yarn-no-factor": (
        change(rope(rope_type="yarn", factor=None, original_max_position_embeddings=16, attention_factor=0.8),
               max_position_embeddings=64),
        "BF16", "rope-default", "rope-yarn", False,
    ),
    "gemma3": (GEMMA, "F32", None, None, False),
    "gemma3-v4-bf16": (
        change(GEMMA, ["layer_types", "rope_parameters"], sliding_window_pattern=2, rope_theta=5000.0,
               rope_local_base_freq=50.0, rope_scaling={"rope_type": "linear", "factor": 8.0}, torch_dtype="bfloat16"),
        "BF16", None, None, False,
    ),
    "gemma3-wide-window": (change(GEMMA, sliding_window=64), "F32", "gemma3", "gemma3", False),
    "gemma3-dynamic": (
        change(GEMMA, max_position_embeddings=8, rope_parameters={
            "full_attention": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}),
        "F32", "gemma3", "gemma3", False,
    ),
    "gemma3-final-softcap": (change(GEMMA, final_logit_softcapping=3.0), "F32", "gemma3", "gemma3", False),
    "gemma3-attention-softcap": (change(GEMMA, attn_logit_softcapping=0.5), "F32", "gemma3", "gemma3", False),
    "gemma3-own-head": (
        change(GEMMA, tie_word_embeddings=False, attention_bias=True, num_key_value_heads=2, hidden_activation="silu",
               num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"]),
        "BF16", None, None, False,
    ),
}

QWEN2 = change(LLAMA, ["attention_bias", "mlp_bias", "rope_parameters", "dtype"], architectures=["Qwen2ForCausalLM"],
               model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1000.0, tie_word_embeddings=True, use_sliding_window=False,
               sliding_window=5, max_window_layers=1, attention_dropout=0.0, torch_dtype="bfloat16")
MISTRAL = change(QWEN2, ["max_window_layers", "use_sliding_window"], architectures=["MistralForCausalLM"], model_type="mistral",
                 tie_word_embeddings=False)
QWEN3 = change(QWEN2, architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=12, attention_bias=False,
               layer_types=["full_attention", "full_attention"])
CASES.update({
    "qwen2": (QWEN2, "BF16", None, None, False),
    "qwen3": (QWEN3, "BF16", None, None, False),
    "qwen3-biases": (
        change(QWEN3, ["rope_theta"], attention_bias=True, tie_word_embeddings=False,
               rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000.0,
                                "original_max_position_embeddings": 16}),
        "BF16", None, None, False,
    ),
    "mistral": (MISTRAL, "BF16", None, None, False),
    "mistral-no-window": (change(MISTRAL, sliding_window=None), "BF16", "mistral", "mistral", False),
})

# As transformers writes it: the interval stands beside a list that says something else.
SMOLLM3 = change(QWEN2, architectures=["SmolLM3ForCausalLM"], model_type="smollm3", num_hidden_layers=4,
                 layer_types=["full_attention"] * 4, max_window_layers=28, sliding_window=None, attention_bias=False,
                 mlp_bias=False, no_rope_layers=[1, 1, 1, 1], no_rope_layer_interval=4, pretraining_tp=2)
CASES.update({
    "smollm3-all-rotate": (SMOLLM3, "BF16", None, None, False),
    "smollm3": (change(SMOLLM3, no_rope_layers=[0, 1, 1, 0]), "BF16", "smollm3-all-rotate", "smollm3-all-rotate", False),
    "smollm3-interval": (
        change(SMOLLM3, ["no_rope_layer_interval", "layer_types"], no_rope_layers=None),
        "BF16", "smollm3-all-rotate", "smollm3-all-rotate", False,
    ),
    "smollm3-biases": (
        change(SMOLLM3, ["no_rope_layers", "rope_theta"], no_rope_layer_interval=2, attention_bias=True, mlp_bias=True,
               tie_word_embeddings=False, num_hidden_layers=2, layer_types=None),
        "BF16", None, None, False,
    ),
})
# Gemma 3 with images, of which only text is run here; the parts for images are as small as they may be.
IMAGES = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "boi_token_index": VOCAB - 3,
    "eoi_token_index": VOCAB - 2,
    "image_token_index": VOCAB - 1,
    "mm_tokens_per_image": 1,
    "initializer_range": 0.02,
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 4, "patch_size": 2, "vision_use_head": False,
    },
}
CASES.update({
    # In version 4's spelling, fields left out where they are transformers' defaults, and the names of published checkpoints.
    "gemma3-images": (
        change(IMAGES, torch_dtype="bfloat16", eos_token_id=[1, 2], text_config={
            "model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 6, "head_dim": 4,
            "query_pre_attn_scalar": 6, "vocab_size": VOCAB, "sliding_window": 5,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}),
        "BF16", None, None, False,
    ),
    # As transformers 5 writes it, with the names of its modules, in shards.
    "gemma3-images-v5": (
        change(IMAGES, dtype="bfloat16", tie_word_embeddings=False, text_config=change(
            GEMMA, ["architectures"], tie_word_embeddings=False, dtype="bfloat16")),
        "BF16", None, None, True,
    ),
})
# Gemma 2 as transformers 5 writes it, with caps low enough to bend everything; and as it is published, where both caps are left
# to their defaults, and attention is scaled so that they matter.
GEMMA2 = change(GEMMA, architectures=["Gemma2ForCausalLM"], model_type="gemma2", attn_logit_softcapping=2.0,
                final_logit_softcapping=3.0, rope_parameters={"rope_type": "default", "rope_theta": 1000.0}, dtype="bfloat16")
GEMMA2_PUBLISHED = change(
    GEMMA2, ["layer_types", "rope_parameters", "attn_logit_softcapping", "final_logit_softcapping", "dtype", "tie_word_embeddings",
             "use_bidirectional_attention"],
    num_hidden_layers=4, hidden_act="gelu_pytorch_tanh", sliding_window_size=5, cache_implementation="hybrid",
    query_pre_attn_scalar=1, rope_theta=5000.0, torch_dtype="bfloat16")
CASES.update({
    "gemma2-no-caps": (change(GEMMA2, attn_logit_softcapping=None, final_logit_softcapping=None), "BF16", None, None, False),
    "gemma2": (GEMMA2, "BF16", "gemma2-no-caps", "gemma2-no-caps", False),
    "gemma2-wide-window": (change(GEMMA2, sliding_window=64), "BF16", "gemma2-no-caps", "gemma2", False),
    "gemma2-published": (GEMMA2_PUBLISHED, "BF16", None, None, False),
    "gemma2-attention-uncapped": (
        change(GEMMA2_PUBLISHED, attn_logit_softcapping=None), "BF16", "gemma2-published", "gemma2-published", False),
    "gemma2-logits-uncapped": (
        change(GEMMA2_PUBLISHED, final_logit_softcapping=None), "BF16", "gemma2-published", "gemma2-published", False),
    "gemma2-own-head": (
        change(GEMMA2, tie_word_embeddings=False, attention_bias=True, num_key_value_heads=2, hidden_activation="silu",
               num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"],
               rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0}),
        "BF16", None, None, False,
    ),
})
# Granite with fields left to their defaults, where every multiplier is 1; with multipliers under which every part shows in
# gradients, too; and with such as published ones have.
GRANITE = change(LLAMA, ["rope_parameters", "attention_bias", "mlp_bias", "dtype"], architectures=["GraniteForCausalLM"],
                 model_type="granite", tie_word_embeddings=True, rope_theta=1000.0, rope_scaling=None, attention_dropout=0.1,
                 torch_dtype="bfloat16")
MULTIPLIERS = {"embedding_multiplier": 1.5, "attention_multiplier": 0.21875, "residual_multiplier": 0.6, "logits_scaling": 0.625}
CASES.update({
    "granite-plain": (GRANITE, "BF16", None, None, False),
    "granite": (
        change(GRANITE, attention_bias=False, mlp_bias=False, **MULTIPLIERS), "BF16", "granite-plain", "granite-plain", False),
    "granite-biases": (
        change(GRANITE, ["rope_theta", "rope_scaling", "torch_dtype"], tie_word_embeddings=False, attention_bias=True,
               mlp_bias=True, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0}, dtype="bfloat16",
               embedding_multiplier=12, attention_multiplier=0.125, residual_multiplier=0.22, logits_scaling=8.0),
        "BF16", None, None, False,
    ),
})
# OLMo 2 as it is published, with a key for each query; with fewer and all that transformers' classes read besides.
OLMO2 = change(GRANITE, architectures=["Olmo2ForCausalLM"], model_type="olmo2", attention_bias=False,
               tie_word_embeddings=False, attention_dropout=0.0, num_key_value_heads=4)
CASES.update({
    "olmo2": (OLMO2, "BF16", None, None, False),
    "olmo2-biases": (
        change(OLMO2, ["rope_theta", "rope_scaling", "torch_dtype", "rms_norm_eps"], num_key_value_heads=2, head_dim=12,
               attention_bias=True, tie_word_embeddings=True, num_hidden_layers=3, dtype="bfloat16",
               rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000.0,
                                "original_max_position_embeddings": 16}),
        "BF16", None, None, False,
    ),
})
# Phi-3 as it is published, and Phi-4-mini, with fewer of its key heads and a window that binds nothing.
PHI3 = change(LLAMA, ["mlp_bias", "rope_parameters", "dtype", "num_key_value_heads"], architectures=["Phi3ForCausalLM"],
              model_type="phi3", attention_dropout=0.0, embd_pdrop=0.0, resid_pdrop=0.0, pad_token_id=0, rope_scaling=None,
              rope_theta=1000.0, sliding_window=5, original_max_position_embeddings=64, torch_dtype="bfloat16",
              auto_map={"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"})
PHI4_MINI = change(PHI3, num_key_value_heads=2, partial_rotary_factor=0.75, max_position_embeddings=256, sliding_window=4096,
                   original_max_position_embeddings=32, full_attn_mod=1, interpolate_factor=1, lm_head_bias=False,
                   mlp_bias=False, tie_word_embeddings=True)
LONGROPE = {"long_factor": [1, 2.5, 8], "short_factor": [1.0, 1.25, 3.0], "type": "longrope"}
CASES.update({
    "phi3-no-window": (change(PHI3, ["sliding_window"]), "BF16", None, None, False),
    "phi3": (PHI3, "BF16", "phi3-no-window", "phi3-no-window", False),
    "phi4-mini-unscaled": (PHI4_MINI, "BF16", None, None, False),
    "phi4-mini": (change(PHI4_MINI, rope_scaling=LONGROPE), "BF16", "phi4-mini-unscaled", "phi4-mini-unscaled", False),
    "phi4-mini-factor": (
        change(PHI4_MINI, rope_scaling=dict(LONGROPE, factor=40.0)),
        "BF16", "phi4-mini-unscaled", "phi4-mini", False,
    ),
    # As transformers 5 writes it.
    "phi4-mini-v5": (
        change(PHI4_MINI, ["rope_scaling", "rope_theta", "partial_rotary_factor", "torch_dtype"], dtype="bfloat16",
               rope_parameters={"rope_type": "longrope", "rope_theta": 1000.0, "partial_rotary_factor": 0.75,
                                "original_max_position_embeddings": 32, "attention_factor": 0.8,
                                "long_factor": LONGROPE["long_factor"], "short_factor": LONGROPE["short_factor"]}),
        "BF16", "phi4-mini-unscaled", "phi4-mini", False,
    ),
})
# What tensors are called in published checkpoints of transformers' modules.
PUBLISHED = {
    "gemma3-images": {"model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.vision_model.",
                      "model.multi_modal_projector.": "multi_modal_projector."},
}


def hand_over_attention_softcap():
    """transformers reads attn_logit_softcapping for Gemma 3 but does not hand it to its attention function (which has
    the parameter). What is expected here is what the field's documentation says."""
    plain = modeling_gemma3.eager_attention_forward

    def capped(module, *arguments, **options):
        return plain(module, *arguments, softcap=module.attn_logit_softcapping, **options)

    modeling_gemma3.eager_attention_forward = capped


def random_state(config, seed):
    """Weights large enough that attention is far from uniform and every part shows in the logits."""
    generator = np.random.default_rng(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        values = generator.standard_normal(tuple(tensor.shape))
        if "norm" in name:
            values = values * 0.2 + (0.0 if config["model_type"].startswith("gemma") else 1.0)
        elif name.endswith(".bias"):
            values *= 0.3
        elif "embed_tokens" in name or "lm_head" in name:
            values *= 0.3
        else:
            values *= 1.6 / np.sqrt(tensor.shape[-1])
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state


def published(name, prefixes):
    for own, other in prefixes.items():
        if name.startswith(own):
            return other + name[len(own):]
    return name


def write_weights(folder, state, kind, shards):
    prefixes = PUBLISHED.get(folder.name, {})
    state = {published(name, prefixes): tensor.to(TYPES[kind]).contiguous() for name, tensor in state.items()}
    metadata = {"format": "pt"}
    if not shards:
        save_file(state, folder / "model.safetensors", metadata)
        return
    names = sorted(state)
    parts = [names[0::3], names[1::3], names[2::3]]
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in state.values())}, "weight_map": {}}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        save_file({name: state[name] for name in part}, folder / file, metadata)
        index["weight_map"].update({name: file for name in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def link_weights(folder, owner):
    for file in sorted((folder.parent / owner).glob("model*")):
        os.symlink(f"../{owner}/{file.name}", folder / file.name)


def rotary_tables(model, prefix, *layer_type):
    """The first half of each row: the second is the same again."""
    x = torch.zeros(1, LENGTH, 1)
    text = getattr(model.model, "language_model", model.model)
    cos, sin = text.rotary_emb(x, torch.arange(LENGTH)[None], *layer_type)
    half = cos.shape[-1] // 2
    return {f"{prefix}.cos": cos[0, :, :half].contiguous(), f"{prefix}.sin": sin[0, :, :half].contiguous()}


def check_language_model(model, ids, logits):
    """That a model with images computes of text what its language model does by itself."""
    alone = AutoModelForCausalLM.from_config(model.config.text_config, attn_implementation="eager")
    alone.model, alone.lm_head = model.model.language_model, model.lm_head
    assert torch.equal(alone.eval()(ids).logits.reshape(logits.shape), logits)


def expected_of(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    with torch.no_grad():
        result = {"logits": model(ids).logits.reshape(-1, VOCAB).float().contiguous()}
        if not model.config.model_type.startswith("gemma3"):
            result.update(rotary_tables(model, "global"))
        else:
            result.update(rotary_tables(model, "global", "full_attention"))
            result.update(rotary_tables(model, "local", "sliding_attention"))
        if hasattr(model.model, "language_model"):
            check_language_model(model, ids, result["logits"])
    return result


def make(root, name):
    config, kind, owner, different, shards = CASES[name]
    seed, folder = list(CASES).index(name), root / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if owner is None:
        write_weights(folder, random_state(config, seed), kind, shards)
    else:
        link_weights(folder, owner)
    ids = torch.tensor(np.random.default_rng(1000 + seed if owner is None else 7).integers(0, VOCAB, (SEQUENCES, LENGTH)))
    ids = ids if owner is None else load_file(root / owner / "expected.safetensors")["ids"].long()
    result = expected_of(folder, ids)
    logits = result["logits"]
    save_file({"ids": ids.to(torch.int32).contiguous(), **result}, folder / "expected.safetensors")
    largest = logits.abs().max().item()
    line = f"{name}: largest logit {largest:.2f}"
    if different is not None:
        distance = (logits - load_file(root / different / "expected.safetensors")["logits"]).abs().max().item() / largest
        assert distance > 0.02, f"{name} does not differ from {different}"
        line += f", differs from {different} by {distance:.2f} of it"
    print(line)


def main():
    if any(word.startswith("-") for word in sys.argv[1:]):
        sys.exit(__doc__.strip())
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests/golden/models")
    names = sys.argv[2:]
    if not names and root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    hand_over_attention_softcap()
    for name in names or CASES:
        make(root, name)
    total = sum(f.stat().st_size for f in root.rglob("*") if f.is_file() and not f.is_symlink())
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
