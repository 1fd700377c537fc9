#!/usr/bin/env python3
"""Makes tests/golden/block/*.safetensors: one transformer block's output and gradients, out of PyTorch.

    pip install torch transformers safetensors numpy
    scripts/make-block-goldens.py [FOLDER [CASE...]]    # all, or the cases that are named

The blocks are transformers' own decoder layers with random weights, in float32, with eager attention. In a file:
`config` F64 (the numbers of CONFIG and IF_GIVEN below, in that order), `x`, `y`, `dy`, `dx` [tokens, hidden_size], `cos`, `sin`
[length, rotary_dim / 2], and for every parameter `weight.NAME` and its gradient `grad.NAME`, where NAME is the tensor's
name within the block. Norms of the Gemma family are stored as the multiplier itself (1 + weight).
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import Gemma2Config, Gemma3TextConfig, GraniteConfig, LlamaConfig, Olmo2Config, Phi3Config, SmolLM3Config
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer
from transformers.models.granite.modeling_granite import GraniteDecoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.olmo2.modeling_olmo2 import Olmo2DecoderLayer
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer
from transformers.models.smollm3.modeling_smollm3 import SmolLM3DecoderLayer

CONFIG = ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
          "rms_norm_eps", "attention_scale", "softcap", "window", "sequences", "length"]  # fmt: skip
IF_GIVEN = ["residual_multiplier"]  # what a case need not have; behind the others

# A case's place is its seed.
CASES = {
    # Global, with a soft cap low enough to bend the scores.
    "gemma3-global": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2,
                          head_dim=8, softcap=2.0, window=0, sequences=2, length=48),  # fmt: skip
    # One key head for all queries, a window shorter than a tile of queries, more than one tile.
    "gemma3-local": dict(hidden_size=24, intermediate_size=28, num_attention_heads=3, num_key_value_heads=1,
                         head_dim=16, softcap=0.0, window=40, sequences=1, length=270),  # fmt: skip
    # GQA, head_dim other than hidden/heads, all biases.
    "llama": dict(hidden_size=32, intermediate_size=56, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                  bias=True, softcap=0.0, window=0, sequences=2, length=24),  # fmt: skip
    # A layer that does not rotate.
    "smollm3": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                    softcap=0.0, window=0, sequences=2, length=24),  # fmt: skip
    # A soft cap within a window.
    "gemma2": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                   softcap=2.0, window=7, sequences=2, length=48),  # fmt: skip
    # What attention and the feed-forward part add is multiplied.
    "granite": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                    bias=True, softcap=0.0, window=0, sequences=2, length=24, residual_multiplier=0.22),  # fmt: skip
    # Norms behind attention and the feed-forward part, and of all heads at once.
    "olmo2": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                  softcap=0.0, window=0, sequences=2, length=24),  # fmt: skip
    # Fused projections, and heads of which a part rotates, within a window.
    "phi3": dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                 rotary_dim=8, softcap=0.0, window=7, sequences=2, length=48),  # fmt: skip
}
EPS = 1e-5
SCALE = 0.4  # of queries times keys: the random ones are small


def rotary(case, theta=10000.0):
    dim = case.get("rotary_dim", case["head_dim"])
    inverse = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(case["length"], dtype=torch.float64)[:, None] * inverse
    return angles.cos().float(), angles.sin().float()


def mask(length, window):
    query, key = torch.arange(length)[:, None], torch.arange(length)[None]
    seen = (key <= query) & ((key > query - window) if window else True)
    return torch.where(seen, 0.0, float("-inf"))[None, None]


def make_layer(name, case):
    sizes = {key: case[key] for key in CONFIG[:5]}
    common = dict(sizes, rms_norm_eps=EPS, num_hidden_layers=1, attn_implementation="eager",
                  max_position_embeddings=512, vocab_size=8)  # fmt: skip
    if name == "llama":
        layer = LlamaDecoderLayer(LlamaConfig(**common, attention_bias=case["bias"], mlp_bias=case["bias"]), 0)
    elif name == "smollm3":
        layer = SmolLM3DecoderLayer(SmolLM3Config(**common, no_rope_layers=[0]), 0)
    elif name == "granite":
        layer = GraniteDecoderLayer(GraniteConfig(**common, attention_bias=case["bias"], mlp_bias=case["bias"],
                                                  residual_multiplier=case["residual_multiplier"]), 0)  # fmt: skip
    elif name == "olmo2":
        layer = Olmo2DecoderLayer(Olmo2Config(**common), 0)
    elif name == "phi3":
        layer = Phi3DecoderLayer(Phi3Config(**common, pad_token_id=0), 0)
    elif name == "gemma2":
        layer = Gemma2DecoderLayer(Gemma2Config(**common), 0)
    else:
        config = Gemma3TextConfig(**common, layer_types=["full_attention"])
        layer = Gemma3DecoderLayer(config, 0)
    layer.self_attn.scaling = SCALE
    layer.eval()
    with torch.no_grad():
        for parameter_name, parameter in layer.named_parameters():
            one = 1.0 if "norm" in parameter_name and not name.startswith("gemma") else 0.0
            parameter.copy_(one + 0.3 * torch.randn_like(parameter))
    return layer


def run(layer, x, case):
    """The soft cap goes straight to the attention function: Gemma3Attention does not hand on its configuration's.
    Gemma2Attention does, and takes no other."""
    cos, sin = rotary(case)
    wide = (torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None])
    softcap = {"softcap": case["softcap"] or None}
    if isinstance(layer, Gemma2DecoderLayer):
        layer.self_attn.attn_logit_softcapping = softcap.pop("softcap")
    y = layer(x, position_embeddings=wide, attention_mask=mask(case["length"], case["window"]), **softcap)
    return y[0] if isinstance(y, tuple) else y


def make(name, case, folder):
    torch.manual_seed(list(CASES).index(name))
    layer = make_layer(name, case)
    x = torch.randn(case["sequences"], case["length"], case["hidden_size"], requires_grad=True)
    dy = torch.randn_like(x)
    y = run(layer, x, case)
    y.backward(dy)
    if case["softcap"]:  # it has to be one that matters
        assert (run(layer, x, dict(case, softcap=0.0)) - y).abs().max() > 1e-2
    numbers = dict(case, rms_norm_eps=EPS, attention_scale=SCALE)
    cos, sin = rotary(case)
    keys = CONFIG + [key for key in IF_GIVEN if key in case]
    tensors = {"config": torch.tensor([float(numbers[key]) for key in keys], dtype=torch.float64),
               "x": x, "y": y, "dy": dy, "dx": x.grad, "cos": cos, "sin": sin}  # fmt: skip
    for parameter_name, parameter in layer.named_parameters():
        plus = 1.0 if "norm" in parameter_name and name.startswith("gemma") else 0.0
        tensors["weight." + parameter_name] = plus + parameter
        tensors["grad." + parameter_name] = parameter.grad
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()},
              folder / f"{name}.safetensors")  # fmt: skip


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests" / "golden" / "block"
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or CASES:
        make(name, CASES[name], folder)


if __name__ == "__main__":
    main()
