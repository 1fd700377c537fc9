"""The programs that read slices, for test_readers.py: each makes a Reader of a slice."""
import contextlib
import importlib
import importlib.metadata
import itertools

import numpy as np

import readers_files


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


def largest_number(reader, ids):
    """The largest magnitude that a module of a torch model puts out."""
    import torch
    largest = [0.0]

    def look(module, given, output):
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, torch.Tensor):
            largest[0] = max(largest[0], float(output.abs().max()))
    hooks = [module.register_forward_hook(look) for module in reader.model.modules()]
    reader.logits(ids)
    for hook in hooks:
        hook.remove()
    return largest[0]


def transformers(folder, dtype="float32"):
    """dtype "auto": the one that the folder names."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype if dtype == "auto" else getattr(torch, dtype))
    return of_torch(model, version("transformers"))


def compressed_tensors(folder):
    reader = transformers(folder)
    reader.name += ", " + version("compressed-tensors")
    return reader


def gptqmodel(folder, dtype):
    """float32: its torch backend lists float16 and bfloat16 only, but its code is of any type."""
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    TorchLinear.SUPPORTS_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
    model = GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu", dtype=getattr(torch, dtype)).model
    return of_torch(model, version("gptqmodel") + ", torch backend")


class Float32:
    """mlx.core for a module of mlx-lm that asks for bfloat16 by name: Gemma's scale of embeddings, sqrt(hidden_size), is
    25.25 there instead of 25.298."""

    def __getattr__(self, name):
        import mlx.core
        return getattr(mlx.core, "float32" if name == "bfloat16" else name)


def mlx(folder, exact):
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.generate import generate_step
    model, _ = mlx_lm.load(folder)
    if exact:
        model.set_dtype(mx.float32)
    gemma = importlib.import_module("mlx_lm.models.gemma3_text")
    gemma.mx = Float32() if exact else mx

    def generate(ids, count):
        steps = generate_step(mx.array(ids), model, max_tokens=count)
        return [int(token) for token, _ in itertools.islice(steps, count)]
    return Reader(version("mlx") + ", " + version("mlx-lm"),
                  lambda ids: np.array(model(mx.array([ids]))[0].astype(mx.float32)), generate, model)


def mlx_types(reader):
    """The element types, by name, of the logits and of the cache of keys and values."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    cache = make_prompt_cache(reader.model)
    logits = reader.model(mx.array([[0, 1]]), cache=cache)
    parts = [logits] + [part for layer in cache for part in (layer.keys, layer.values)]
    return {str(part.dtype).removeprefix("mlx.core.") for part in parts}


def multiplies_in_tiles(binding):
    """Whether this llama.cpp rearranges matrices for AMX, where its products read memory that is not theirs: it crashes on
    files of every type and maker (its issue 20824, open in 2026)."""
    return b"AMX_INT8 = 1" in binding.llama_print_system_info()


@contextlib.contextmanager
def no_repacking(binding):
    """Models that are loaded herein keep their matrices as they are in the file: llama.cpp otherwise rearranges those of
    some types for its own kernels, and BLAS then cannot read them. llama-cpp-python has no argument for that."""
    defaults = binding.llama_cpp.llama_model_default_params

    def changed():
        params = defaults()
        params.use_extra_bufts = False
        return params
    binding.llama_cpp.llama_model_default_params = changed
    try:
        yield
    finally:
        binding.llama_cpp.llama_model_default_params = defaults


BLAS_BATCH = 32  # ggml-blas.cpp, min_batch: products with fewer tokens at a time are done by ggml's own kernels


def llama_cpp(path, length, exact, float32_cache=False):
    """As it comes, with its own kernels (batches too small for BLAS), but for AMX's; exact: in float32, matrices unpacked
    and multiplied by BLAS, which takes BLAS_BATCH tokens at a time, so that generate() only drafts one by one and then runs
    the whole."""
    import llama_cpp as binding
    cache = {"type_k": 0, "type_v": 0} if exact or float32_cache else {}  # instead of float16
    with no_repacking(binding) if exact or multiplies_in_tiles(binding) else contextlib.nullcontext():
        model = binding.Llama(path, logits_all=True, n_ctx=length, n_batch=length,
                              n_ubatch=length if exact else BLAS_BATCH // 2, verbose=False, **cache)

    def logits(ids):
        assert len(ids) >= BLAS_BATCH or not exact
        model.reset()
        model.eval(list(ids))
        return np.array(model.scores[:len(ids)], dtype=np.float32)

    def generate(ids, count):
        def drafted(text):
            """One token at a time, by its kernels."""
            model.reset()
            steps = model.generate(text, temp=0.0, top_k=1, repeat_penalty=1.0)
            return [int(token) for token in itertools.islice(steps, len(ids) + count - len(text))]
        text = list(ids) + drafted(list(ids))
        for _ in range(count if exact else 0):  # each draft is checked at once, until it is what would be chosen one by one
            best = logits(text)[:-1].argmax(1)
            wrong = [i for i in range(len(ids), len(text)) if text[i] != best[i - 1]]
            if not wrong:
                break
            text = text[:wrong[0]] + [int(best[wrong[0] - 1])]
            text += drafted(text)
        return text[len(ids):]
    return Reader(version("llama_cpp_python"), logits, generate, model)


# --- llama.cpp's arithmetic, emulated -------------------------------------------------------------

def round_blocks(x, block, half):
    """Activations as ggml rounds them before a product with a quantized matrix: 8 bits, one scale a block, d = max / 127,
    which is a float16 in Q8_0 (for Q4_0, Q5_0, Q8_0) and Q8_1 (for Q4_1, Q5_1) and a float32 in Q8_K (for K-quants). Also
    by how much the sums of the blocks that Q8_1 keeps, in float16, differ from those of the rounded numbers: [..., blocks]."""
    import torch
    blocks = x.reshape(*x.shape[:-1], -1, block)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    codes = torch.round(blocks / torch.where(scale > 0, scale, torch.ones_like(scale)))
    kept = scale.half().float() if half else scale
    return (codes * kept).reshape(x.shape), ((scale * codes.sum(-1, keepdim=True)).half().float() -
                                             kept * codes.sum(-1, keepdim=True))[..., 0]


def emulated_layer(module, kind, offsets):
    """A linear layer that multiplies as llama.cpp does with a matrix of this type."""
    import torch
    plain = module.forward
    if kind in ("F32", "F16", "BF16"):
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
        module.forward = lambda x: plain(x.to(dtype).float())
        return
    block, half = (256, False) if kind.endswith("_K") else (32, True)
    moved = None if offsets is None else torch.from_numpy(offsets.T.copy())

    def forward(x):
        rounded, difference = round_blocks(x, block, half)
        result = plain(rounded)
        return result if moved is None else result + difference @ moved  # the offset m multiplies the kept sum
    module.forward = forward


def emulate_gelu(function):
    """ggml looks GELU up in a table of float16; beyond 10 it is 0 or x."""
    import torch
    plain = function.forward
    function.forward = lambda x: torch.where(x <= -10, torch.zeros_like(x), torch.where(
        x >= 10, x, plain(x.half().float()).half().float()))


def emulated_llama_cpp(folder, matrices):
    """transformers in float32 on these numbers, with llama.cpp's products in its linear layers and its GELU. Embeddings are
    only looked up, in float32."""
    reader = transformers(folder)
    text = getattr(reader.model.model, "language_model", reader.model.model)
    modules = {readers_files.HEAD: reader.model.lm_head, **{"model." + name: part for name, part in text.named_modules()}}
    for prefix, matrix in matrices.items():
        if prefix != readers_files.EMBEDDING:
            emulated_layer(modules[prefix], matrix.kind, matrix.offsets)
    for layer in text.layers:
        activation = getattr(layer.mlp, "act_fn", None) or layer.mlp.activation_fn
        if "GELU" in type(activation).__name__:
            emulate_gelu(activation)
    return reader
