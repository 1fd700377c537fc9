"""Reading checkpoint folders with nothing but json and struct, and cutting a master's codes by hand as
include/matquant/format.h says. What the readers of this folder (read_*.py) have in common; shares no code with matquant.
"""
import array
import json
import os
import re
import struct
import sys


def check(condition, message):
    if not condition:
        sys.exit("%s: %s" % (os.path.basename(sys.argv[0]), message))


def read_json(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def read_tensors(folder):
    """{name: (dtype, shape, bytes)} of all safetensors files of a folder."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + length])
        header.pop("__metadata__", None)
        for tensor, entry in header.items():
            begin, end = entry["data_offsets"]
            check(tensor not in tensors, tensor + " is there twice")
            tensors[tensor] = (entry["dtype"], entry["shape"], data[8 + length + begin:8 + length + end])
    return tensors


# What the names of a published model with images begin with, and those of transformers' modules.
MODULES = (("language_model.model.", "model.language_model."), ("language_model.lm_head", "lm_head"),
           ("vision_tower.vision_model.", "model.vision_tower."), ("vision_tower.", "model.vision_tower."),
           ("multi_modal_projector.", "model.multi_modal_projector."))
OTHER_PARTS = ("model.vision_tower.", "model.multi_modal_projector.")  # than the language model


def module_name(name):
    for published, module in MODULES:
        if name.startswith(published):
            return module + name[len(published):]
    return name


def read_modules(folder):
    """The same, whichever of their names the folder has."""
    return {module_name(name): tensor for name, tensor in read_tensors(folder).items()}


def text_of(config):
    """What config.json says of the language model."""
    return config.get("text_config", config)


def halves(data):
    return struct.unpack("<%de" % (len(data) // 2), data)


def float32(values):
    """Doubles, each rounded once to float32."""
    return array.array("f", values)


def numbers(tensor):
    """The values of an F32, F16 or BF16 tensor as float32."""
    dtype, _, data = tensor
    if dtype == "F32":
        return array.array("f", data)
    if dtype == "F16":
        return float32(halves(data))
    check(dtype == "BF16", "a tensor of type " + dtype)
    widened = bytearray(2 * len(data))
    widened[2::4], widened[3::4] = data[0::2], data[1::2]
    return array.array("f", bytes(widened))


def rounded(values, dtype):
    """The bytes of float32 values rounded to nearest, ties to even."""
    if dtype == "F32":
        return values.tobytes()
    if dtype == "F16":
        return struct.pack("<%de" % len(values), *values)
    words = struct.unpack("<%dI" % len(values), values.tobytes())
    return struct.pack("<%dH" % len(words), *((word + 0x7fff + (word >> 16 & 1)) >> 16 for word in words))


def cut(code, width, rule):
    if rule == "top" or width == 8:
        return code >> (8 - width)
    rounded = (code + (1 << (7 - width))) >> (8 - width)
    return rounded if rule == "round-extra" else min(rounded, (1 << width) - 1)


def split_words(words):
    """Of a command line: the words PATTERN=R, and the others."""
    return [word for word in words if "=" in word], [word for word in words if "=" not in word]


class Master:
    """The WIDTH-bit model in a master's folder; layers in whose names the last of these patterns (PATTERN=R) is found have R
    bits."""

    def __init__(self, folder, width, patterns=()):
        self.folder, self.width, self.tensors, self.patterns = folder, width, read_modules(folder), patterns
        self.config = read_json(folder, "config.json")
        self.settings = self.config["quantization_config"]
        self.slice_bits = self.bits_of(width)
        embeddings = self.settings.get("embeddings", {"layers": [], "min_bits": 0})
        self.embeddings, self.min_bits = [module_name(name) for name in embeddings["layers"]], embeddings["min_bits"]
        self.ignored = [module_name(name) for name in self.settings.get("ignored", [])]
        self.prefixes = [name[:-6] for name in self.tensors if name.endswith(".codes")]

    def bits_of(self, width):
        """Bits that a slice takes: one more where there is an extra level."""
        return width + (self.settings["slice_rule"] == "round-extra" and width < 8)

    def width_of(self, prefix):
        """The width of a layer's slice: an embedding's is no narrower than min_bits."""
        width = self.width
        for pattern in self.patterns:
            regex, _, bits = pattern.rpartition("=")
            width = int(bits) if re.search(regex, prefix) else width
        return max(width, self.min_bits) if prefix in self.embeddings else width

    def description(self):
        """How a model card begins to say what the slice is."""
        widths = [self.width_of(prefix) for prefix in self.prefixes]
        if widths == [max(self.width, self.min_bits) if prefix in self.embeddings else self.width for prefix in self.prefixes]:
            return "A slice of %d bits, " % self.width
        counts = ["%d of %d" % (widths.count(width), width) for width in sorted(set(widths), reverse=True)]
        counts[0] = counts[0].replace(" of", " layer%s of" % ("s" * (widths.count(max(widths)) > 1))) + " bits"
        return "A slice of mixed widths (%s), with norms of %d bits where a block has several, " % (
            ", ".join(counts), self.width)

    def linear(self, prefix):
        """Rows, columns, groups; slices, scales, biases, one after the other."""
        dtype, (rows, columns), codes = self.tensors[prefix + ".codes"]
        check(dtype == "U8", prefix + ".codes is not U8")
        width = self.width_of(prefix)
        scales, biases = (halves(self.tensors["%s.%s.w%d" % (prefix, part, width)][2])
                          for part in ("scales", "biases"))
        table = bytes(cut(code, width, self.settings["slice_rule"]) for code in range(256))
        return rows, columns, len(scales) // rows, codes.translate(table), scales, biases

    def private_width(self, name):
        """Whose numbers a norm has: of the width that all layers of its block have, or of all blocks, if it is in none; where
        they have several, of the model's."""
        block = re.match(r".*?\.[0-9]+\.", name)
        layers = [prefix for prefix in self.prefixes if prefix not in self.embeddings]
        widths = {self.width_of(prefix) for prefix in layers if prefix.startswith(block.group() if block else "")}
        return widths.pop() if len(widths) == 1 else self.width

    def weights(self, prefix):
        """The weights as float32, one row after the other. scale * slice + bias of float16 numbers and a byte is exact in
        a double."""
        rows, columns, groups, slices, scales, biases = self.linear(prefix)
        size = columns // groups
        values = []
        for group in range(rows * groups):
            scale, bias = scales[group], biases[group]
            values.extend(scale * s + bias for s in slices[group * size:(group + 1) * size])
        return float32(values)

    def plain(self, dtype=None, others=True):
        """{name: tensor} of what is not quantized: a width's own in place of the common one; in this element type; with
        what is not the language model's or without."""
        result = {}
        for name in self.tensors:
            _, _, end = name.rpartition(".")
            if not others and name.startswith(OTHER_PARTS):
                continue
            if end != "codes" and not (len(end) == 2 and end[0] == "w" and end[1] in "2345678"):
                tensor = self.tensors.get("%s.w%d" % (name, self.private_width(name)), self.tensors[name])
                result[name] = tensor if dtype is None else (dtype, tensor[1], rounded(numbers(tensor), dtype))
        return result


TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def check_config(master, config, added, dtype=None):
    """config.json is the master's but for its quantization and the members in added, and says this dtype."""
    if dtype is not None:
        key = "torch_dtype" if "torch_dtype" in master.config else "dtype"
        check(config[key] == TORCH_NAMES[dtype], "config.json: other dtype")
        added = tuple(added) + (key,)
    wanted = {key: value for key, value in master.config.items() if key != "quantization_config"}
    check({key: value for key, value in config.items() if key not in added} ==
          {key: value for key, value in wanted.items() if key not in added}, "config.json has something else changed")


def check_small_files(master, folder, extra=()):
    """What stood beside the tensors came along, and `extra` was added; the model card is there."""
    def small(path):
        return {name for name in os.listdir(path) if ".safetensors" not in name
                and name not in ("config.json", "matquant.json", "README.md") + tuple(extra)}
    check(small(master.folder) == small(folder), "other small files")
    for name in small(folder):
        with open(os.path.join(folder, name), "rb") as copy, open(os.path.join(master.folder, name), "rb") as original:
            check(copy.read() == original.read(), name + " differs")
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as card:
        check(master.description() in card.read(), "README.md does not say what this is")
