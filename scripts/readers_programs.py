"""The programs that read slices, for test_readers.py: each makes a Reader of a slice."""
import importlib.metadata
import itertools

import numpy as np


class Reader:
    """logits(ids) -> float32 [length, vocab]; generate(ids, count) -> ids that it chooses by itself, greedily."""

    def __init__(self, name, logits, generate, model=None):
        self.name, self.logits, self.generate, self.model = name, logits, generate, model


def version(package):
    return "%s %s" % (package, importlib.metadata.version(package))


def of_torch(model, name):
    import torch
    from transformers import GenerationConfig
    model.generation_config = GenerationConfig()  # greedy, and an end-of-text token is a token like others

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].float().numpy()

    def generate(ids, count):
        given = torch.tensor([ids])
        with torch.no_grad():
            result = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=count)
        return result[0, len(ids):].tolist()
    return Reader(name, logits, generate, model)


def transformers(folder):
    import torch
    from transformers import AutoModelForCausalLM
    return of_torch(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), version("transformers"))


def compressed_tensors(folder):
    reader = transformers(folder)
    reader.name += ", " + version("compressed-tensors")
    return reader


def gptqmodel(folder):
    import torch
    from gptqmodel import BACKEND, GPTQModel
    model = GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu", dtype=torch.float16).model
    return of_torch(model, version("gptqmodel") + ", torch backend")


def mlx(folder, exact):
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.generate import generate_step
    model, _ = mlx_lm.load(folder)
    if exact:
        model.set_dtype(mx.float32)

    def generate(ids, count):
        steps = generate_step(mx.array(ids), model, max_tokens=count)
        return [int(token) for token, _ in itertools.islice(steps, count)]
    return Reader(version("mlx") + ", " + version("mlx-lm"),
                  lambda ids: np.array(model(mx.array([ids]))[0].astype(mx.float32)), generate, model)


def llama_cpp(path, length, exact):
    import llama_cpp as binding
    cache = {"type_k": 0, "type_v": 0} if exact else {}  # float32 instead of float16
    model = binding.Llama(path, logits_all=True, n_ctx=length, n_batch=length, n_ubatch=length, verbose=False, **cache)

    def logits(ids):
        model.reset()
        model.eval(list(ids))
        return np.array(model.scores[:len(ids)], dtype=np.float32)

    def generate(ids, count):
        model.reset()
        steps = model.generate(list(ids), temp=0.0, top_k=1, repeat_penalty=1.0)
        return [int(token) for token in itertools.islice(steps, count)]
    return Reader(version("llama_cpp_python"), logits, generate, model)


# --- llama.cpp's arithmetic, emulated -------------------------------------------------------------

def round_blocks(x, block, half):
    """Activations as ggml rounds them before a product with a quantized matrix: 8 bits, one scale a block, d = max / 127,
    which is a float16 in Q8_0 and Q8_1 and a float32 in Q8_K."""
    import torch
    blocks = x.reshape(*x.shape[:-1], -1, block)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    codes = torch.round(blocks / torch.where(scale > 0, scale, torch.ones_like(scale)))
    return (codes * (scale.half().float() if half else scale)).reshape(x.shape)


ROUNDING = {"Q2_K": lambda x: round_blocks(x, 256, False), "F16": lambda x: x.half().float(),
            "BF16": lambda x: x.bfloat16().float(), "F32": lambda x: x}


def emulated_llama_cpp(folder, weights, head_type):
    """transformers in float32 on these numbers, the inputs of each linear layer rounded as ggml rounds them."""
    reader = transformers(folder)
    modules = dict(reader.model.named_modules())
    layers = [(prefix, kind) for prefix, (_, kind) in weights.items()] + [("lm_head", head_type)]
    for prefix, kind in layers:
        rounding = ROUNDING.get(kind, lambda x: round_blocks(x, 32, True))
        modules[prefix].register_forward_pre_hook(lambda _, given, rounding=rounding: (rounding(given[0]),))
    return reader
