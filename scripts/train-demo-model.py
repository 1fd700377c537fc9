#!/usr/bin/env python3
"""Train the demo model: a byte-level BPE tokenizer and a Llama of 1.3 million parameters.

    train-demo-model.py --train data/demo-train.jsonl.gz --eval data/demo-eval.txt \\
        --output data/demo-model

The folder is a Hugging Face model in bfloat16. At the end the saved model is read back, its block
projections are rounded naively (per group of 64, minimum to maximum), and the perplexity at each
width is printed; the script fails unless int2 is clearly worse than int4 and int4 than int8.
"""

import argparse
import gzip
import json
import math
import pathlib
import random
import sys
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

BOS, EOS = "<s>", "</s>"
TOKENS_PER_STEP = 2048
SHORT, LONG = 256, 1024  # training windows: short ones first, the last part at full length
LONG_SHARE = 0.2
WARMUP = 100
GROUP_SIZE = 64


def train_tokenizer(texts, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tokenizer


def token_stream(tokenizer, texts, seed):
    """One long row of tokens: documents in random order, parted by end and start or a blank line."""
    rng = random.Random(seed)
    rng.shuffle(texts)
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    blank = tokenizer.encode("\n\n").ids
    stream = [bos]
    for encoding in tokenizer.encode_batch(texts):
        stream += encoding.ids + ([eos, bos] if rng.random() < 0.5 else blank)
    return torch.tensor(stream)


def demo_config(vocab_size):
    return LlamaConfig(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=384, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=LONG,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
        initializer_range=0.04)


def perplexity(model, ids, window):
    """Over consecutive windows, without a beginning-of-sequence token; float32."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(ids) - window + 1, window):
            x = ids[start:start + window][None]
            total += model(x, labels=x).loss.item() * (window - 1)
            count += window - 1
    return math.exp(total / count)


def train(model, stream, eval_ids, args):
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(args.seed)
    start = time.time()
    for step in range(args.steps):
        window = SHORT if step < (1 - LONG_SHARE) * args.steps else LONG
        at = torch.randint(len(stream) - window, (TOKENS_PER_STEP // window,), generator=generator)
        x = torch.stack([stream[i:i + window] for i in at.tolist()])
        progress = step / args.steps
        scale = min((step + 1) / WARMUP, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * scale
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x, labels=x).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"{time.time() - start:6.0f} s  step {step + 1} of {args.steps}  "
                  f"loss {loss.item():.3f}", end="", flush=True)
            if (step + 1) % 500 == 0:
                ppl = perplexity(model, eval_ids[:8192], 512)
                print(f"  evaluation perplexity {ppl:.3f}", end="")
            print(flush=True)


def save(model, tokenizer, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": BOS, "clean_up_tokenization_spaces": False, "eos_token": EOS,
                "model_max_length": LONG, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def round_naively(w, bits):
    """[out, in]: each group of 64 inputs to the nearest of 2^bits levels from minimum to maximum."""
    groups = w.reshape(-1, GROUP_SIZE)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-12)
    return (((groups - low) / scale).round() * scale + low).reshape(w.shape)


def report(folder, eval_text, window):
    """Print the perplexity at full precision and at naive widths; True if precision matters."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(eval_text).ids)
    ppl = {}
    for bits in (16, 8, 6, 4, 3, 2):
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if bits < 16:
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name.endswith("_proj.weight"):
                        p.copy_(round_naively(p, bits))
        ppl[bits] = perplexity(model, ids, window)
        label = "bf16" if bits == 16 else f"int{bits}"
        print(f"{label:5} {ppl[bits]:10.4f}  ({len(ids) // window} windows of {window} tokens)")
    return ppl[2] > 1.5 * ppl[4] and ppl[4] > 1.005 * ppl[8]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--train", type=pathlib.Path, help="JSON lines with the key text, gzip")
    parser.add_argument("--eval", type=pathlib.Path, required=True, help="plain text")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the model's folder")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--window", type=int, default=512, help="tokens a window in the report")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="measure --output, train nothing")
    args = parser.parse_args()

    logging.disable_progress_bar()
    eval_text = args.eval.read_text(encoding="utf-8")
    if not args.report_only:
        torch.manual_seed(args.seed)
        with gzip.open(args.train, "rt", encoding="utf-8") as f:
            texts = [json.loads(line)["text"] for line in f]
        tokenizer = train_tokenizer(texts, args.vocab_size)
        stream = token_stream(tokenizer, texts, args.seed)
        eval_ids = torch.tensor(tokenizer.encode(eval_text).ids)
        config = demo_config(args.vocab_size)
        config._attn_implementation = "eager"  # in bfloat16 on a CPU the fastest of them
        model = LlamaForCausalLM(config)
        print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(texts)} documents, "
              f"{len(stream)} training tokens, {len(eval_ids)} evaluation tokens", flush=True)
        train(model, stream, eval_ids, args)
        save(model, tokenizer, args.output)
    if not report(args.output, eval_text, args.window):
        raise SystemExit("train-demo-model: the widths do not differ enough; train longer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
