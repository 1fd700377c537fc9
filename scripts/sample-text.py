#!/usr/bin/env python3
"""Sample English text from SmolLM2: the training, calibration and evaluation text of the demo model.

Every document is the model's answer to one of the requests below about one of the topics below
(temperature, top-k and top-p sampling, key-value cache, all rows of the batch at their own
positions, a finished row replaced at once). Documents that are too short, repeat themselves or are
not plain English are dropped. `sample` appends documents to a JSON-lines file; `split` divides
that file into parts that share no document:

    sample-text.py sample --model models/smollm2 --output build/text.jsonl --bytes 660000
    sample-text.py split --input build/text.jsonl --output data
"""

import argparse
import gzip
import json
import pathlib
import random
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOPICS = """a fox|a river|the moon|an old house|a garden|a sailor|a teacher|a bridge|a mountain
a library|the winter|a market|a train|a lost dog|a clock|bread|a doctor|the desert|a painter|a king
honey bees|a forest|a lighthouse|the rain|a farmer|a musician|a village school|trees|a small boat
a letter|the sea|the stars|a blacksmith|salt|a wolf|a young girl|two brothers|a grandmother|glass
a bakery|a wooden bridge|horses|the wind|a map|a castle|coffee|a shepherd|paper|a lake|a volcano
an island|a storm|an engineer|a museum|a tailor|the first snow|a bicycle|cotton|a judge|whales
a mirror|a well|rice|a song|a piano|the harvest|a caravan|a city park|an owl|a summer festival
a miller|the night sky|a wooden chair|a hospital|iron|a rabbit|a coal mine|tea|a stone wall|ants
a telescope|a football team|a ferry|wheat|a kitchen|an astronaut|a carpenter|a cat|a newspaper
a windmill|soap|a queen|a waterfall|a detective|a printing press|a turtle|the harbor|a camel"""
TOPICS = TOPICS.replace("\n", "|").split("|")

REQUESTS = """Write a short story about {0}.
Write a story for young children about {0}.
Tell me an old folk tale about {0}.
Describe {0} in a few paragraphs of plain prose.
Explain to a child why people care about {0}.
Write a letter to a friend about {0}.
Write a diary entry about {0}.
Write the first page of a novel about {0}.
Write a conversation between two friends about {0}.
Write a short essay about {0}.
Write about a childhood memory of {0}.
Tell a funny story about {0}.
Tell a story about {0} that begins sadly and ends well.
Write a newspaper report about {0}.
What can we learn from {0}? Answer in plain prose.
Write a bedtime story about {0}.
Write a scene by the sea with {0}.
Describe a winter morning with {0}.
Write a short history of {0} in simple words.
Write a fable about {0}.""".split("\n")

CHAT = "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n"


def prompt_order(seed):
    """Endless (name, prompt): all pairs in a shuffled order, then again in another order."""
    rng = random.Random(seed)
    pairs = [(r, t) for r in range(len(REQUESTS)) for t in range(len(TOPICS))]
    while True:
        rng.shuffle(pairs)
        for r, t in pairs:
            yield f"{r}-{t}", CHAT.format(REQUESTS[r].format(TOPICS[t]))


def plain_english(text):
    """Whether a document is long enough, ends a sentence, repeats nothing and is plain text."""
    if len(text) < 250 or sum(c.isascii() for c in text) < 0.995 * len(text):
        return False
    marks = ("http", "www.", "```", "<|", "\\", "def ", "import ", "{", "**", "##")
    if any(mark in text for mark in marks):
        return False
    if sum(c.isalpha() or c in " ,.\n'\"" for c in text) < 0.94 * len(text):
        return False
    words = text.split()
    grams = [tuple(words[i:i + 5]) for i in range(len(words) - 4)]
    return len(set(grams)) > 0.9 * len(grams)


def last_sentence(text):
    """The text up to the end of its last whole sentence."""
    end = max(text.rfind(mark) + len(mark) for mark in (". ", ".\n", "! ", "? ", '." ', '."\n'))
    if text[-1:] in ".!?" or text[-2:] == '."':
        return text
    return text[:end].rstrip()


class Sampler:
    """Llama forward for one token a row, with every row of the batch at its own position."""

    def __init__(self, folder, batch, length, dtype):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.w = {k.removeprefix("model."): v for k, v in model.state_dict().items()}
        c = self.config = model.config
        self.head_dim = c.hidden_size // c.num_attention_heads
        shape = (c.num_hidden_layers, batch, c.num_key_value_heads, length, self.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype)
        self.values = torch.zeros(shape, dtype=dtype)
        self.rows = torch.arange(batch)
        base = c.rope_parameters["rope_theta"]
        inv = base ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angle = torch.arange(length)[:, None] * inv
        self.cos = torch.cat([angle, angle], -1).cos().to(dtype)
        self.sin = torch.cat([angle, angle], -1).sin().to(dtype)

    def norm(self, x, name):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.w[name],
                                            self.config.rms_norm_eps)

    def rotate(self, x, pos):
        half = self.head_dim // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos[pos][:, None] + turned * self.sin[pos][:, None]

    def step(self, tokens, pos):
        """tokens, pos: [batch] -> logits [batch, vocab]; writes the cache at pos of each row."""
        c, w, b = self.config, self.w, tokens.shape[0]
        linear = torch.nn.functional.linear
        reach = int(pos.max()) + 1
        mask = torch.where(torch.arange(reach) <= pos[:, None], 0.0, float("-inf"))
        mask = mask[:, None, None].to(self.keys.dtype)
        x = w["embed_tokens.weight"][tokens]
        for i in range(c.num_hidden_layers):
            p = f"layers.{i}."
            h = self.norm(x, p + "input_layernorm.weight")
            q = linear(h, w[p + "self_attn.q_proj.weight"]).view(b, -1, self.head_dim)
            k = linear(h, w[p + "self_attn.k_proj.weight"]).view(b, -1, self.head_dim)
            v = linear(h, w[p + "self_attn.v_proj.weight"]).view(b, -1, self.head_dim)
            self.keys[i, self.rows, :, pos] = self.rotate(k, pos)
            self.values[i, self.rows, :, pos] = v
            # [batch, kv heads, queries per kv head, head_dim]: grouped queries share their keys.
            q = self.rotate(q, pos).view(b, c.num_key_value_heads, -1, self.head_dim)
            att = q @ self.keys[i, :, :, :reach].transpose(-1, -2) * self.head_dim ** -0.5 + mask
            att = att.float().softmax(-1).to(q.dtype) @ self.values[i, :, :, :reach]
            x = x + linear(att.reshape(b, -1), w[p + "self_attn.o_proj.weight"])
            h = self.norm(x, p + "post_attention_layernorm.weight")
            gate = torch.nn.functional.silu(linear(h, w[p + "mlp.gate_proj.weight"]))
            x = x + linear(gate * linear(h, w[p + "mlp.up_proj.weight"]),
                           w[p + "mlp.down_proj.weight"])
        return linear(self.norm(x, "norm.weight"), w["embed_tokens.weight"])


def draw(logits, temperature, top_k, top_p, generator):
    """[batch, vocab] -> [batch]: one token a row from the top_k most likely, cut at top_p."""
    best, index = logits.float().topk(top_k, dim=-1)
    p = (best / temperature).softmax(-1)
    p[p.cumsum(-1) - p > top_p] = 0
    return index.gather(1, torch.multinomial(p, 1, generator=generator)).squeeze(1)


def sample(args):
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    sampler = Sampler(args.model, args.batch, args.length, torch.bfloat16)
    tokenizer = sampler.tokenizer
    stops = {tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")}
    prompts = prompt_order(args.seed)

    def fresh():
        name, text = next(prompts)
        ids = tokenizer.encode(text, add_special_tokens=False)
        return [name, ids, len(ids)]

    # One [prompt's name, tokens so far, how many of them are the prompt] for each row of the batch.
    rows = [fresh() for _ in range(args.batch)]
    pos = torch.zeros(args.batch, dtype=torch.long)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    start, kept, dropped, size, steps = time.time(), 0, 0, 0, 0
    with open(args.output, "w", encoding="utf-8") as out, torch.inference_mode():
        while time.time() - start < 60 * args.minutes and size < args.bytes:
            tokens = torch.tensor([row[1][p] for row, p in zip(rows, pos.tolist())])
            logits = sampler.step(tokens, pos)
            new = draw(logits, args.temperature, args.top_k, args.top_p, generator).tolist()
            pos += 1
            steps += 1
            for b, token in enumerate(new):
                name, ids, given = rows[b]
                if pos[b] < len(ids):
                    continue  # still reading the prompt
                if token not in stops and len(ids) + 1 < args.length:
                    ids.append(token)
                    continue
                text = last_sentence(tokenizer.decode(ids[given:]).strip())
                if plain_english(text):
                    record = {"prompt": name, "text": text}
                    out.write(json.dumps(record, ensure_ascii=False) + "\n")
                    kept, size = kept + 1, size + len(text.encode())
                else:
                    dropped += 1
                rows[b], pos[b] = fresh(), 0
            if steps % 100 == 0:
                out.flush()
                print(f"{time.time() - start:6.0f} s  {steps} steps  {kept} documents  "
                      f"{size} bytes  {dropped} dropped", flush=True)
    return 0


def write_documents(path, documents):
    """JSON lines, compressed; no time stamp in the gzip header: same documents, same bytes."""
    lines = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in documents)
    with open(path, "wb") as f, gzip.GzipFile("", "wb", fileobj=f, mtime=0) as g:
        g.write(lines.encode())


def split(args):
    """Divide the documents: of every 20 one to evaluation, three to calibration, 16 to training."""
    with open(args.input, encoding="utf-8") as f:
        documents = [json.loads(line)["text"] for line in f if line.endswith("\n")]
    documents = list(dict.fromkeys(documents))
    random.Random(args.seed).shuffle(documents)
    parts = {"eval": [], "calib": [], "train": []}
    for i, text in enumerate(documents):
        kind = "eval" if i % 20 == 0 else "calib" if i % 20 in (1, 2, 3) else "train"
        limit = {"eval": args.eval_bytes, "calib": args.calib_bytes}.get(kind)
        full = limit is not None and sum(map(len, parts[kind])) >= limit
        parts["train" if full else kind].append(text)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "demo-eval.txt").write_text("\n\n".join(parts["eval"]) + "\n",
                                               encoding="utf-8")
    write_documents(args.output / "demo-calib.jsonl.gz", parts["calib"])
    write_documents(args.output / "demo-train.jsonl.gz", parts["train"])
    for name, texts in parts.items():
        print(f"{name}: {len(texts)} documents, {sum(len(t.encode()) for t in texts)} bytes")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("sample", help="sample documents into a JSON-lines file")
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--output", type=pathlib.Path, required=True)
    p.add_argument("--minutes", type=float, default=120, help="stop after this long")
    p.add_argument("--bytes", type=int, default=4_000_000, help="or after this much text")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--length", type=int, default=352, help="tokens of prompt and document")
    p.add_argument("--temperature", type=float, default=0.9)
    p.add_argument("--top-k", type=int, default=64)
    p.add_argument("--top-p", type=float, default=0.95)
    p.add_argument("--seed", type=int, default=1)
    p.set_defaults(run=sample)
    p = commands.add_parser("split", help="divide it into train, calibration and evaluation")
    p.add_argument("--input", type=pathlib.Path, required=True)
    p.add_argument("--output", type=pathlib.Path, required=True, help="a folder")
    p.add_argument("--eval-bytes", type=int, default=60_000)
    p.add_argument("--calib-bytes", type=int, default=110_000)
    p.add_argument("--seed", type=int, default=1)
    p.set_defaults(run=split)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
