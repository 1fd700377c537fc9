#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: what the `tokenizers` package does, for tests/unit/test_text_golden.c to hold us to.

    make-tokenizer-goldens.py [--folder FOLDER]   write the goldens (default: tests/golden/tokenizer)
    make-tokenizer-goldens.py --folder FOLDER --write-variant NAME   one variant as FOLDER/NAME/tokenizer.json

text.bin            mixed text: many scripts, emoji, control characters, odd white space, code, broken UTF-8
byte-level.json     a tokenizer.json with a byte-level BPE trained on it here
sentencepiece.json  one with a SentencePiece-style BPE: byte tokens, and every way to make a token is a merge
variants.json       [{name, base, top, model, edits, count, crc32, ...}]: see build_variant() and expectations()
NAME.ids.gz         ids of text.bin as uint16 for the variants that real families use, to find where a test fails

The long text that the CRCs are of is made of text.bin by long_text(), which the test repeats.
"""

import argparse
import copy
import gzip
import itertools
import json
import pathlib
import random
import struct
import zlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LONG_SIZE = 1 << 20
TEXT_SIZE = 44_000

# --- text ----------------------------------------------------------------------------------------------------

ENGLISH = """the of and to in a is that it for was on are as with his they at be this have from or one had by word but
not what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my than
first water been call who oil its now find long down day did get come made may part over new sound take only little
work know place year live me back give most very after thing our just name good sentence man think say great where help
through much before line right too mean old any same tell boy follow came want show also around form three small set put
end does another well large must big even such because turn here why ask went men read need land different home us move
try kind hand picture again change off play spell air away animal house point page letter mother answer""".split()

SCRIPTS = {
    "latin": "Straße façade naïve Ærøskøbing Łódź žluťoučký kůň İstanbul ılık ﬁnal ﬂow Ǆ ǅ ŉ ſharp Kelvin Å".split(),
    "cyrillic": "Съешь же ещё этих мягких французских булок да выпей чаю".split(),
    "greek": "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία ΣΊΣΥΦΟΣ".split(),
    "hebrew": "דג סקרן שט בים מאוכזב שָׁלוֹם".split(),
    "arabic": "نص حكيم له سر قاطع وذو شأن عظيم ١٢٣٤ مُحَمَّد".split(),
    "devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा १२३ क्षत्रिय".split(),
    "tamil": "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல்".split(),
    "thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ๑๒๓ กว่าบรรดาฝูงสัตว์".split(),
    "georgian": "გთხოვთ ახლავე გაიაროთ რეგისტრაცია".split(),
    "han": "天地玄黃 宇宙洪荒 日月盈昃 我能吞下玻璃而不伤身体 𠀀𠀁𪚥".split(),
    "kana": "いろはにほへと ちりぬるを カタカナ ﾊﾝｶｸ がぎぐ ヷ".split(),
    "hangul": "키스의 고유조건은 입술끼리 한국어".split(),
    "math": "ℕ⊆ℝ ∀x∈𝔸 2H₂+O₂⇌2H₂O ½ ⅓ ² ³ Ⅷ ↉ ㊿ ∑∏∫ 𝟘𝟙𝟚 ＡＢＣ１２３".split(),
}

EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "1️⃣", "❤️‍🔥", "☕", "🧑🏿‍🚀", "🙂🙃", "\u200d", "\ufe0f"]

COMBINING = ["e\u0301", "n\u0303o", "a\u0328\u0301", "q\u0307\u0323", "q\u0323\u0307", "\u0301x", "\u1100\u1161\u11a8",
             "\uac00\u11a8", "\u0958", "\u2126", "\ufb03", "\u01c4", "o\u0308\u0304", "\u0344", "\U0001d15e"]

SPACES = [" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r", "\u00a0", "\u3000", "\u2028",
          "\u2029", "\u0085", "\u180e", "\u200b", "\ufeff", "\u2003 ", " \n ", "\x0b", "\x0c", "        ", "\n    ",
          " \t \n", "\u1680", "\u202f", "\u205f"]

CONTRACTIONS = ["don't", "I'll", "WE'VE", "it's", "you'RE", "I'm", "she'd", "'s", "'S", "'\u017f", "''ll", "o'clock",
                "y'all'd've", "'t was", "l'été", "’s", "rock'n'roll"]

NUMBERS = ["0", "7", "42", "365", "1999", "12345", "1234567890", "3.14159", "1,000,000", "-17", "1e-5", "0xFF", "2nd",
           "٣٤٥", "१२", "Ⅳ", "½", "1²", "10½km", "２０２４"]

CODE = ["def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i];\n}\n",
        "SELECT * FROM t WHERE a >= 10 AND b != 'x';", "<div class=\"a\">&nbsp;</div>", "if(!p||*p==0)return-1;",
        "https://example.org/a/b?c=d&e=%20#f", "user.name+tag@example.com", "{\"k\": [1, 2, {\"x\": null}]}",
        "$x_1 = \\frac{a}{b}$", "C:\\dir\\file.txt", "--flag=value -x", "/* ... */ // ...", "a->b->c::d<e<f>>()"]

ADDED = ["<s>", "</s>", "<unk>", "<bos>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<mask>", " <mask> ", "  <mask>",
         "<mask>  \n", "x<mask>y", "TOK", "xTOK", "TOKx", "TOK TOK", "a TOK.", "tok", "Tok", "TOKTOK", "é TOK é", "_TOK",
         "<a>", "<ab>", "<abc", "<abc>", "<ab", "<a><ab>", "<|im_start|><|im_end|>", "\n\n<bos>\n", "Héllo", "HÉLLO",
         "<x", "<|", "<start_of_turn>user\n", "STRIP", "  STRIP  ", " STRIP\u3000STRIP ", "\u200dTOK", "TOK\u0301"]

LITERALS = ["▁", "▁▁", "▁a", "a▁b", "Ġthe", "Ċ", "<0x0A>", "<0x41>", "<0x>", "\ufffd", "¿¡", "«»", "…", "—", "!!!", "?!?",
            "***", "$€£¥", "~`^|", "_under_score_", "a_b", "_"]

BROKEN = [b"\xff", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82z", b"\xf0\x9f\x98", b"\xf0\x9f\x98a", b"\xed\xa0\x80",
          b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80", b"\x80\x80", b"\xf5\x80", b"a\xf0\x80\x80b", b"\xe1\xa0\xc3\xa9"]


def long_words(rng):
    yield "a" * 700
    yield "ab" * 300
    yield "the" * 150
    yield "".join(rng.choice("etaoinshrdlu") for _ in range(1200))
    yield "".join(rng.choice(SCRIPTS["han"]) for _ in range(60))
    yield " " * 257
    yield "\n" * 65
    yield "=" * 129
    yield "é" * 90
    yield "😀" * 40
    yield "1" * 200
    yield "▁" * 33


def make_text():
    """Deterministic; bytes, because some of it is not UTF-8."""
    rng = random.Random(20240229)
    kinds = [lambda: rng.choice(ENGLISH), lambda: rng.choice(SCRIPTS[rng.choice(list(SCRIPTS))]),
             lambda: rng.choice(EMOJI), lambda: rng.choice(COMBINING), lambda: rng.choice(CONTRACTIONS),
             lambda: rng.choice(NUMBERS), lambda: rng.choice(CODE), lambda: rng.choice(ADDED),
             lambda: rng.choice(LITERALS), lambda: rng.choice(BROKEN), lambda: chr(rng.randrange(0, 32)),
             lambda: rng.choice(ENGLISH).upper(), lambda: rng.choice(ENGLISH).capitalize(),
             lambda: "".join(rng.choice(ENGLISH) for _ in range(3)),
             lambda: "".join(chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x370, 0x600)]))
                             for _ in range(4))]
    weights = [60, 12, 3, 2, 4, 5, 1, 3, 2, 1, 1, 2, 4, 1, 1]
    long_ones = [word.encode() for word in long_words(rng)]
    out = bytearray()
    sizes = [TEXT_SIZE * (i + 1) // (len(long_ones) + 1) for i in range(len(long_ones))]
    while len(out) < TEXT_SIZE:
        piece = rng.choices(kinds, weights)[0]()
        out += piece if isinstance(piece, bytes) else piece.encode()
        roll = rng.random()
        out += b" " if roll < 0.8 else rng.choice([",", ".", ". ", ", ", "; ", ""]).encode() if roll < 0.93 else \
            rng.choice(SPACES).encode()
        if sizes and len(out) >= sizes[0]:
            sizes.pop(0)
            out += long_ones.pop(0)
    return bytes(out)


def long_text(text):
    """The lines of text in rounds, each with another order and another separator, until there are LONG_SIZE bytes."""
    lines = text.split(b"\n")
    out, r = bytearray(), 0
    while len(out) < LONG_SIZE:
        for i in range(len(lines)):
            out += lines[(i * 7919 + r * 31) % len(lines)]
            out += (b"\n", b" ", b"")[r % 3]
        r += 1
    return bytes(out)


# --- tokenizers ----------------------------------------------------------------------------------------------

def added_token(token_id, content, special=True, **flags):
    token = {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": special}
    token.update(flags)
    return token


def shell(model, **top):
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model}
    whole.update(top)
    return whole


def training_lines(text):
    return [line for line in text.decode("utf-8", "ignore").split("\n") if line]


def train_byte_level(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False)
    tokenizer.train_from_iterator(training_lines(text), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    specials = [added_token(i, c) for i, c in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])]
    return shell(model, added_tokens=specials, decoder={"type": "ByteLevel", "add_prefix_space": True,
                                                        "trim_offsets": True, "use_regex": True})


def train_sentencepiece(text):
    """As SentencePiece models are converted: tokens have ranks, and each way to make one out of two is a merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=620, limit_alphabet=150, show_progress=False)
    tokenizer.train_from_iterator(training_lines(text), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    ranked = sorted(trained["vocab"], key=trained["vocab"].get)
    singles = [t for t in ranked if len(t) == 1]
    longer = ["▁▁", "▁▁▁▁", "\n\n", "▁▁▁"] + [t for t in ranked if len(t) > 1]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + longer + sorted(set(singles) | {"▁", "\n"})
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = []
    for token in longer:
        for cut in range(1, len(token)):
            if token[:cut] in vocab and token[cut:] in vocab:
                merges.append([token[:cut], token[cut:]])
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
             "vocab": vocab, "merges": merges}
    return shell(model, added_tokens=[added_token(i, c) for i, c in enumerate(["<unk>", "<s>", "</s>"])])


GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = dict(GPT2, use_regex=False)
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
MIXED = r"[aeiou]+|\s|\w\d|^x?"
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def sequence(*items):
    return {"type": "Sequence", "pretokenizers": list(items)}


def normalizers(*items):
    return {"type": "Sequence", "normalizers": list(items)}


def split(kind, pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def replace(kind, pattern, content):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def metaspace(**fields):
    return {"type": "Metaspace", "replacement": "▁", **fields}


def template(before, token_id, after=()):
    piece = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    names = [before, *after]
    return {"type": "TemplateProcessing", "single": [piece(before), a, *map(piece, after)],
            "pair": [piece(before), a, b], "special_tokens": {
                name: {"id": name, "ids": [token_id + i], "tokens": [name]} for i, name in enumerate(names)}}


def flagged_tokens(vocab, normalized):
    """Added tokens with every flag; some begin like others, so that the longest has to win. Those that the
    vocabulary has keep their id, the others come after it."""
    contents = [("<mask>", {"lstrip": True}), ("TOK", {"single_word": True}), ("<a>", {}), ("<ab", {"special": False}),
                ("<abc>", {}), ("STRIP", {"lstrip": True, "rstrip": True}), ("Héllo", {"special": False}),
                ("TOKTOK", {"rstrip": True}), ("\n\n", {"special": False}), ("<bos>", {"rstrip": True})]
    new_ids = itertools.count(max(vocab.values()) + 1)
    return [added_token(vocab[content] if content in vocab else next(new_ids), content,
                        **{"normalized": normalized, **flags}) for content, flags in contents]


def byte_level_variants(base):
    vocab = base["model"]["vocab"]
    specials = base["added_tokens"]
    flags = lambda normalized: specials + flagged_tokens(vocab, normalized)
    yield "smollm2", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, GPT2)}, {}, {}
    yield "llama3", {"pre_tokenizer": sequence(split("Regex", LLAMA3), BYTES), "post_processor": {
        "type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                                            "use_regex": True}, template("<|im_start|>", 1)]}}, \
        {"ignore_merges": True}, {"drop_merges_every": 7}
    yield "gpt2", {"pre_tokenizer": dict(GPT2, add_prefix_space=True), "added_tokens": flags(False)}, {}, \
        {"string_merges": True}
    yield "qwen2", {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence(split("Regex", QWEN2), BYTES)}, {}, {}
    yield "gpt4o", {"pre_tokenizer": sequence(split("Regex", GPT4O), BYTES), "post_processor":
                    template("<|endoftext|>", 0, ["<|im_start|>"])}, {}, {}
    for behavior in BEHAVIORS:
        for invert in (False, True):
            name = f"split-{behavior.lower()}{'-inverted' if invert else ''}"
            yield name, {"pre_tokenizer": sequence(split("Regex", MIXED, behavior, invert), BYTES)}, {}, {}
        yield f"split-string-{behavior.lower()}", \
            {"pre_tokenizer": sequence(split("String", " t", behavior), BYTES)}, {}, {}
        yield f"punctuation-{behavior.lower()}", \
            {"pre_tokenizer": sequence({"type": "Punctuation", "behavior": behavior}, BYTES)}, {}, {}
    yield "digits", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, BYTES)}, {}, {}
    yield "white-space", {"pre_tokenizer": sequence({"type": "Whitespace"}, BYTES)}, {}, {}
    yield "white-space-split", {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, BYTES)}, {}, {}
    yield "bytes-then-split", {"pre_tokenizer": sequence(BYTES, split("Regex", "Ġ+|[^a-z]"))}, {}, {}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield form.lower(), {"normalizer": {"type": form}, "pre_tokenizer": GPT2}, {}, {}
    yield "lowercase", {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": GPT2, "added_tokens": flags(True)}, {}, {}
    yield "strip", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}, "pre_tokenizer": GPT2,
                    "added_tokens": flags(False)}, {}, {}
    yield "replace", {"normalizer": normalizers(replace("Regex", r"(\w)\s+|(?<=[^\n])$", "<"),
                                                replace("String", "th", "")), "pre_tokenizer": GPT2}, {}, {}
    # Characters of other versions of Unicode: symbols and punctuation of 15 and 16; for Punctuation, which has version 8's,
    # also of 9, and two that were punctuation in 8.
    yield "newer-symbols", {"normalizer": replace("String", "th", "\U0001fa77th\U0001fae8t\u1b4e\U00010d6eh\U00010d8e"),
                            "pre_tokenizer": sequence(split("Regex", r"[\p{P}\p{S}]", "Removed"), BYTES)}, {}, {}
    yield "older-punctuation", {"normalizer": replace("String", "th", "\u1b4eth\u2e43t\u166dh\U000111c9"),
                                "pre_tokenizer": sequence({"type": "Punctuation", "behavior": "Removed"}, BYTES)}, {}, {}


def sentencepiece_variants(base):
    vocab = base["model"]["vocab"]
    specials = base["added_tokens"]
    flags = lambda normalized: specials + flagged_tokens(vocab, normalized)
    decoder = lambda *items: {"type": "Sequence", "decoders": list(items)}
    to_spaces, strip = replace("String", "▁", " "), {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    bytes_and_fuse = ({"type": "ByteFallback"}, {"type": "Fuse"})
    llama2 = {"normalizer": normalizers({"type": "Prepend", "prepend": "▁"}, replace("String", " ", "▁")),
              "post_processor": template("<s>", 1), "decoder": decoder(to_spaces, *bytes_and_fuse, strip)}
    yield "llama2", llama2, {}, {}
    yield "gemma3", {"normalizer": replace("String", " ", "▁"), "pre_tokenizer": split("String", " ", "MergedWithPrevious"),
                     "post_processor": template("<s>", 1), "decoder": decoder(to_spaces, *bytes_and_fuse),
                     "added_tokens": flags(False)}, {}, {}
    yield "llama2-added", dict(llama2, added_tokens=flags(True)), {}, {}
    yield "llama2-no-bytes", llama2, {"byte_fallback": False}, {}
    yield "llama2-no-fuse", llama2, {"byte_fallback": False, "fuse_unk": False}, {}
    yield "llama2-no-unk", llama2, {"byte_fallback": False, "unk_token": None}, {}
    yield "llama2-few-bytes", llama2, {}, {"drop_bytes": True}
    yield "llama2-few-bytes-no-fuse", llama2, {"fuse_unk": False}, {"drop_bytes": True}
    metaspaces = {"always": {"prepend_scheme": "always", "split": True}, "first": {"prepend_scheme": "first", "split": True},
                  "never": {"prepend_scheme": "never", "split": True}, "first-whole": {"prepend_scheme": "first", "split": False},
                  "always-whole": {"prepend_scheme": "always", "split": False},
                  "never-whole": {"prepend_scheme": "never", "split": False}, "legacy": {"add_prefix_space": True}}
    for name, fields in metaspaces.items():
        yield f"metaspace-{name}", {"pre_tokenizer": metaspace(**fields), "added_tokens": flags(False), "decoder":
                                    decoder({"type": "ByteFallback"}, metaspace(**fields))}, {}, {}
    yield "metaspace-normalized", {"normalizer": {"type": "NFKC"}, "pre_tokenizer": metaspace(prepend_scheme="first"),
                                   "added_tokens": flags(True), "decoder": metaspace(prepend_scheme="first")}, {}, {}
    yield "llama-v5", {"pre_tokenizer": metaspace(prepend_scheme="first", split=False), "post_processor": template("<s>", 1),
                       "decoder": decoder(to_spaces, *bytes_and_fuse, strip)}, {}, {}
    yield "no-decoder", {"normalizer": replace("String", " ", "▁")}, {"ignore_merges": True}, {}


def build_variant(base, top, model, edits):
    """The base with fields replaced; the edits are what the test does to the tables themselves."""
    whole = copy.deepcopy(base)
    whole.update(copy.deepcopy(top))
    whole["model"].update(model)
    if edits.get("drop_merges_every"):
        n = edits["drop_merges_every"]
        whole["model"]["merges"] = [m for i, m in enumerate(whole["model"]["merges"]) if i % n != n - 1]
    if edits.get("string_merges"):
        whole["model"]["merges"] = [" ".join(m) for m in whole["model"]["merges"]]
    if edits.get("drop_bytes"):
        for byte in range(0x90, 0xA0):
            del whole["model"]["vocab"][f"<0x{byte:02X}>"]
    return whole


# --- what is expected ----------------------------------------------------------------------------------------

def ids_crc(ids):
    return zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))


def expectations(whole, text, long_bytes):
    """CRC-32 of the ids (int32, little-endian) of the long text, with what the template adds, and of its decoding, with and
    without special tokens. Where byte tokens are missing, decoding makes ill-formed text, which the two treat
    differently: no CRC then."""
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    ids = tokenizer.encode(long_bytes.decode("utf-8", "replace")).ids
    expected = {"count": len(ids), "crc32": ids_crc(ids)}
    if f"<0x{0x90:02X}>" in whole["model"]["vocab"] or "<s>" not in whole["model"]["vocab"]:
        for key, skip in (("decoded_crc32", False), ("decoded_skipped_crc32", True)):
            expected[key] = zlib.crc32(tokenizer.decode(ids, skip_special_tokens=skip).encode())
    return expected, tokenizer.encode(text.decode("utf-8", "replace")).ids


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path, default=here / "tests/golden/tokenizer")
    parser.add_argument("--write-variant")
    options = parser.parse_args()
    text = make_text()
    bases = {"byte-level": train_byte_level(text), "sentencepiece": train_sentencepiece(text)}
    sources = {"byte-level": byte_level_variants, "sentencepiece": sentencepiece_variants}
    variants = [(base, *variant) for base, make in sources.items() for variant in make(bases[base])]
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.write_variant:
        base, name, *changes = next(v for v in variants if v[1] == options.write_variant)
        (options.folder / name).mkdir(exist_ok=True)
        write_json(options.folder / name / "tokenizer.json", build_variant(bases[base], *changes))
        return
    long_bytes = long_text(text)
    listed = []
    for base, name, top, model, edits in variants:
        expected, ids = expectations(build_variant(bases[base], top, model, edits), text, long_bytes)
        listed.append({"name": name, "base": base, "top": top, "model": model, "edits": edits, **expected})
        if name in ("smollm2", "llama3", "llama2", "gemma3", "metaspace-first"):
            packed = gzip.compress(struct.pack(f"<{len(ids)}H", *ids), mtime=0)
            (options.folder / f"{name}.ids.gz").write_bytes(packed)
    for base, whole in bases.items():
        write_json(options.folder / f"{base}.json", whole)
    (options.folder / "text.bin").write_bytes(text)
    (options.folder / "variants.json").write_text(
        "[\n" + ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in listed) + "\n]\n",
        encoding="utf-8")
    print(f"{len(listed)} variants, text of {len(text)} bytes, long text of {len(long_bytes)}")


if __name__ == "__main__":
    main()
