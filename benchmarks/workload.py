"""Prompts through a model's chat template, and how many tokens each is answered with.

The lengths are those of W1: log-normal with a mean of about 60 tokens, drawn once for 128 rows and
repeated after that, so that more rows are more of the same work.
"""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.task import Row
from benchmarks.word_problems import word_problems

PERIOD = 128  # rows
SHORTEST, LONGEST = 4, 256  # tokens
SIGMA = 0.8  # of the logarithm
MEDIAN = 64 / 1.377  # tokens: with this spread a mean of 64, before the longest are cut

Messages = list[dict[str, Any]]


def workload(model: Path, rows: int, *, file: Path | None = None) -> list[Row]:
    """Return `rows` prompts with their answer lengths; ValueError if `file` has fewer."""
    return list(zip(encode(model, chats(rows, file=file)), answer_lengths(rows), strict=True))


def chats(count: int, *, file: Path | None = None) -> list[Messages]:
    """Return the first `count` lines of a JSONL file as chats, word problems without a file.

    A line has `messages`, a `question` or a `prompt`. Raises ValueError where there are too few.
    """
    if file is None:
        return [_user(text) for text in word_problems(count)]
    with file.open(encoding="utf-8") as lines:
        found = [_messages(json.loads(line)) for line in islice(lines, count)]
    if len(found) < count:
        raise ValueError(f"{file.name} has {len(found)} rows, and {count} are wanted.")
    return found


def encode(model: Path, conversations: list[Messages]) -> list[list[int]]:
    """Return the token ids of chats, ready to be answered."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    texts = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for messages in conversations
    ]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def texts(count: int, *, file: Path | None = None) -> list[str]:
    """Return what the first `count` lines of a JSONL file say, and their `answer` if there is one.

    Without a file these are word problems. Raises ValueError where there are too few.
    """
    found = ["\n".join(part["content"] for part in chat) for chat in chats(count, file=file)]
    if file is None:
        return found
    with file.open(encoding="utf-8") as lines:
        answers = [json.loads(line).get("answer", "") for line in islice(lines, count)]
    return [f"{text}\n{answer}".strip() for text, answer in zip(found, answers, strict=True)]


def answer_lengths(count: int) -> list[int]:
    """Return how many tokens each of `count` rows is answered with."""
    rng = random.Random(0)  # noqa: S311 - lengths, not secrets
    drawn = [int(rng.lognormvariate(0, SIGMA) * MEDIAN) for _ in range(PERIOD)]
    lengths = [max(SHORTEST, min(LONGEST, length)) for length in drawn]
    return [lengths[i % PERIOD] for i in range(count)]


def random_prompts(model: Path, count: int, *, tokens: int) -> list[list[int]]:
    """Return `count` different prompts of `tokens` tokens each, cut out of word problems."""
    text = " ".join(word_problems(count + tokens))
    (ids,) = encode(model, [_user(text)])
    step = max(1, (len(ids) - tokens) // count)
    return [ids[i * step : i * step + tokens] for i in range(count)]


def _messages(line: dict[str, Any]) -> Messages:
    if "messages" in line:
        messages: Messages = line["messages"]
        return messages
    return _user(line["question"] if "question" in line else line["prompt"])


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]
