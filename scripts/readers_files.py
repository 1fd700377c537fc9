"""What the files of a slice hold, as plain weights, read without matquant: for test_readers.py; and a model to try with."""
import json
import pathlib
import shutil

import numpy as np


def unpack(words, count, width):
    """[..., words] of uint32 to [..., count] codes: a bit stream, least significant bits first."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    bits = bits[..., :count * width].reshape(*words.shape[:-1], count, width)
    return (bits << np.arange(width, dtype=np.uint8)).sum(-1).astype(np.float32)


def gptq_weights(tensors, prefix, width, dtype="float32"):
    """dtype: what the scales are rounded to before they are multiplied with."""
    import torch
    packed, zeros = (tensors[prefix + part].numpy().view(np.uint32) for part in (".qweight", ".qzeros"))
    index, scales = tensors[prefix + ".g_idx"].numpy(), tensors[prefix + ".scales"].to(getattr(torch, dtype)).float().numpy()
    codes = unpack(packed.T.copy(), len(index), width)
    return scales.T[:, index] * (codes - unpack(zeros, scales.shape[1], width).T[:, index])


def compressed_weights(tensors, prefix, width):
    """In the element type of the scales: transformers unpacks the weights into it."""
    import torch
    packed, scales = tensors[prefix + ".weight_packed"].numpy().view(np.uint32), tensors[prefix + ".weight_scale"]
    out, columns = tensors[prefix + ".weight_shape"].numpy()
    codes = unpack(packed, columns, width)
    size = columns // scales.shape[1]
    if prefix + ".weight_zero_point" in tensors:
        zeros = tensors[prefix + ".weight_zero_point"].numpy().view(np.uint32).T.copy()
        zeros = np.repeat(unpack(zeros, out, width).T, size, 1)
    else:
        zeros = 2 ** (width - 1)
    exact = np.repeat(scales.float().numpy(), size, 1) * (codes - zeros)
    return torch.from_numpy(exact).to(scales.dtype).float().numpy()


MARKERS = {"gptq": (".qweight", gptq_weights), "compressed-tensors": (".weight_packed", compressed_weights)}
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def plain_name(name):
    """Of a tensor of a language model that may be one part of several: what it is called in one that is all."""
    return name.replace("model.language_model.", "model.").removeprefix("language_model.")



def folder_tensors(folder):
    from safetensors.torch import load_file  # numpy has no bfloat16
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def rounded_otherwise(exact, folder, dtype):
    """Names of the tensors of a folder that are not those of another, of float32, rounded to this type."""
    import torch
    wanted, found = folder_tensors(exact), folder_tensors(folder)
    return sorted(wanted.keys() ^ found.keys()) + [name for name in wanted.keys() & found.keys()
                                                   if found[name].dtype != getattr(torch, dtype) or
                                                   not torch.equal(wanted[name].to(found[name].dtype), found[name])]


def parts_otherwise(folder, model):
    """Names of the tensors of a folder that are no language model's and that a model of transformers' has not, or has with
    other numbers."""
    import torch
    state, wrong = model.state_dict(), []
    for name, tensor in folder_tensors(folder).items():
        if not plain_name(name).startswith(("model.layers.", "model.norm.", EMBEDDING, HEAD)):
            module = "model." + name.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
            if module not in state or not torch.equal(state[module].float(), tensor.to(state[module].dtype).float()):
                wrong.append(name)
    return wrong


def folder_weights(folder, width, reader, *dtype):
    """{P: weights} of the packed layers of a folder, and of its embeddings and head, packed or not."""
    marker, read = MARKERS[reader]
    tensors = folder_tensors(folder)
    widths = own_widths(folder)
    tensors = {plain_name(name): tensor for name, tensor in tensors.items()}
    prefixes = [name[:-len(marker)] for name in tensors if name.endswith(marker)]
    packed = {prefix: read(tensors, prefix, widths.get(prefix, width), *dtype) for prefix in prefixes}
    if any(".qkv_proj." in name for name in tensors):  # gptqmodel takes the other fused projection apart
        for prefix in [prefix for prefix in prefixes if prefix.endswith(".gate_proj")]:
            fused = prefix.replace(".gate_proj", ".gate_up_proj")
            packed[fused] = np.concatenate([packed.pop(prefix), packed.pop(prefix.replace(".gate_", ".up_"))])
    plain = {prefix: tensors[prefix + ".weight"].float().numpy() for prefix in (EMBEDDING, HEAD)
             if prefix + ".weight" in tensors}
    return {**packed, **plain}


def own_widths(folder):
    """{P: bits} of a folder of GPTQ's: the layers that have a width for themselves."""
    quantization = json.loads((pathlib.Path(folder) / "config.json").read_text())["quantization_config"]
    return {plain_name(pattern[3:-1].replace("\\.", ".")): own["bits"]
            for pattern, own in quantization.get("dynamic", {}).items() if pattern.startswith("+:")}


class Matrix:
    """A matrix of a GGUF file, rows in Hugging Face's order: weights [out, in]; kind, the name of its type; offsets, the
    numbers m [out, blocks] of Q4_1 and Q5_1, None in types without."""

    def __init__(self, weights, kind, offsets):
        self.weights, self.kind, self.offsets = weights, kind, offsets


GGUF_NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj"}
FUSED = {**GGUF_NAMES, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}  # Phi-3's
BYTES_WITH_OFFSET = {"Q4_1": 20, "Q5_1": 24}  # of a block; d and m, of float16, come first


def in_order(rows, heads):
    """Rows of so many heads, of which llama.cpp has the two halves in turn; heads None: as they are."""
    return rows if heads is None else rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def gguf_matrices(path, config):
    """{P: Matrix} of a GGUF file: the linear layers, the embeddings and the head, which may be the embeddings."""
    from gguf import GGUFReader
    from gguf.quants import dequantize
    heads = {}
    if config["model_type"] in ("llama", "mistral", "smollm3", "granite"):
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    names, result = FUSED if config["model_type"] == "phi3" else GGUF_NAMES, {}
    for tensor in GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and parts[2] in names and parts[3] == "weight":
            prefix, count = "model.layers.%s.%s" % (parts[1], names[parts[2]]), heads.get(parts[2])
        elif parts[0] in ("token_embd", "output"):
            prefix, count = EMBEDDING if parts[0] == "token_embd" else HEAD, None
        else:
            continue
        kind, offsets = tensor.tensor_type.name, None
        if kind in BYTES_WITH_OFFSET:
            blocks = np.array(tensor.data).reshape(int(tensor.shape[1]), -1, BYTES_WITH_OFFSET[kind])
            offsets = np.ascontiguousarray(blocks[:, :, 2:4]).view(np.float16)[..., 0].astype(np.float32)
            offsets = in_order(offsets, count)
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        result[prefix] = Matrix(in_order(weights, count), kind, offsets)
    result.setdefault(HEAD, result[EMBEDDING])
    return result


def gguf_kinds(matrices):
    """The types of the linear layers, and of the embeddings and the head if they are quantized, too."""
    text = " and ".join(sorted({matrix.kind for prefix, matrix in matrices.items() if prefix not in (EMBEDDING, HEAD)}))
    others = sorted({matrices[prefix].kind for prefix in (EMBEDDING, HEAD)} - {"F32", "F16", "BF16"})
    return text + (", embeddings " + " and ".join(others) if others else "")


def put_weights(folder, weights):
    """Replaces matrices of a plain float32 folder, the head only where it is none of the embeddings'."""
    from safetensors.numpy import load_file, save_file
    path = pathlib.Path(folder) / "model.safetensors"
    tensors = load_file(path)
    names = {plain_name(name): name for name in tensors}
    for prefix, values in weights.items():
        name = names.get(prefix + ".weight")
        assert name or prefix == HEAD, prefix
        if name:
            tensors[name] = np.ascontiguousarray(values, dtype=np.float32)
    save_file(tensors, path, metadata={"format": "pt"})


def untie(source, folder):
    """A copy of a model whose head is the embeddings, with a head of its own: each number of them but up to 5 % more or
    less, always the same."""
    import torch
    from safetensors.torch import load_file, save_file
    source, folder = pathlib.Path(source), pathlib.Path(folder)
    shutil.copytree(source, folder)
    config = json.loads((source / "config.json").read_text())
    assert config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}, indent=2))
    tensors = load_file(source / "model.safetensors")
    embeddings = tensors[EMBEDDING + ".weight"]
    factors = 1 + 0.05 * (2 * torch.rand(embeddings.shape, generator=torch.Generator().manual_seed(0)) - 1)
    tensors[HEAD + ".weight"] = (embeddings.float() * factors).to(embeddings.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
