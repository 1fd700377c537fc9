"""What the files of a slice hold, as plain weights, read without matquant: for test_readers.py."""
import pathlib

import numpy as np


def unpack(words, count, width):
    """[..., words] of uint32 to [..., count] codes: a bit stream, least significant bits first."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    bits = bits[..., :count * width].reshape(*words.shape[:-1], count, width)
    return (bits << np.arange(width, dtype=np.uint8)).sum(-1).astype(np.float32)


def gptq_weights(tensors, prefix, width):
    packed, zeros = (tensors[prefix + part].numpy().view(np.uint32) for part in (".qweight", ".qzeros"))
    index, scales = tensors[prefix + ".g_idx"].numpy(), tensors[prefix + ".scales"].float().numpy()
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


def folder_weights(folder, width, reader):
    """{P: weights} of the packed layers of a folder."""
    from safetensors.torch import load_file  # numpy has no bfloat16
    marker, read = MARKERS[reader]
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        tensors.update(load_file(path))
    return {name[:-len(marker)]: read(tensors, name[:-len(marker)], width) for name in tensors if name.endswith(marker)}


GGUF_NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj"}


def gguf_weights(path, config):
    """{P: (weights, type)} of the matrices of a GGUF file's blocks, rows in Hugging Face's order."""
    from gguf import GGUFReader
    from gguf.quants import dequantize
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    result = {}
    for tensor in GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and parts[2] in GGUF_NAMES and parts[3] == "weight":
            weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            if config["model_type"] == "llama" and parts[2] in heads:
                weights = weights.reshape(heads[parts[2]], -1, 2, weights.shape[1]).swapaxes(1, 2)
                weights = weights.reshape(-1, weights.shape[3])
            prefix = "model.layers.%s.%s" % (parts[1], GGUF_NAMES[parts[2]])
            result[prefix] = weights, tensor.tensor_type.name
    return result


def gguf_offsets(path, config):
    """{P: [out, blocks]} the offsets m of the layers in Q4_1 and Q5_1, rows in Hugging Face's order."""
    from gguf import GGUFReader
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    result = {}
    for tensor in GGUFReader(path).tensors:
        size = {"Q4_1": 20, "Q5_1": 24}.get(tensor.tensor_type.name)
        if size is not None and tensor.name.startswith("blk."):
            _, layer, name, _ = tensor.name.split(".")
            blocks = np.array(tensor.data).reshape(int(tensor.shape[1]), -1, size)
            offsets = np.ascontiguousarray(blocks[:, :, 2:4]).view(np.float16)[..., 0].astype(np.float32)
            if config["model_type"] == "llama" and name in heads:
                offsets = offsets.reshape(heads[name], -1, 2, offsets.shape[1]).swapaxes(1, 2)
                offsets = offsets.reshape(-1, offsets.shape[3])
            result["model.layers.%s.%s" % (layer, GGUF_NAMES[name])] = offsets
    return result


def gguf_head_type(path):
    from gguf import GGUFReader
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    return types.get("output.weight", types["token_embd.weight"])


def put_weights(folder, weights):
    """Replaces layers of a plain float32 folder."""
    from safetensors.numpy import load_file, save_file
    path = pathlib.Path(folder) / "model.safetensors"
    tensors = load_file(path)
    for prefix, values in weights.items():
        assert prefix + ".weight" in tensors, prefix
        tensors[prefix + ".weight"] = np.ascontiguousarray(values, dtype=np.float32)
    save_file(tensors, path, metadata={"format": "pt"})
