#!/usr/bin/env python3
"""make_tasks.py TEXT COUNT: a zero-shot task of COUNT items on standard output, made from a text.

Of each paragraph the first ten words are the context and the next six the continuation; the wrong one has the same
words in the opposite order. Every third item has another context in the wrong choice and shares the continuation.
"""

import json
import sys

paragraphs = [line.split() for line in open(sys.argv[1], encoding="utf-8") if len(line.split()) >= 20]
for number in range(int(sys.argv[2])):
    words = paragraphs[number % len(paragraphs)]
    context, end = words[:10], words[10:16]
    right = {"context": " ".join(context), "continuation": " " + " ".join(end)}
    wrong = {"context": right["context"], "continuation": " " + " ".join(reversed(end))}
    if number % 3 == 2:
        wrong = {"context": " ".join(context[:3] + context[:2:-1]), "continuation": right["continuation"]}
    choices = [wrong, right] if number % 2 else [right, wrong]
    gold = choices.index(wrong if number % 4 == 3 else right)
    print(json.dumps({"id": f"demo/{number}", "choices": choices, "gold": gold}))
