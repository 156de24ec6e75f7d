"""Write the example inputs: prompts.jsonl (shorthand lines) and openai_batch.jsonl.

    python examples/make_prompts.py

The prompts are put together from templates and words of our own with a fixed seed, so that the
script always writes the same two files. Each kind of task is a function of a random generator.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
MODEL = "smollm2-135m"
SEED = 20
PROMPTS_OF_A_KIND = 32
BATCH_LINES = 24

Line = dict[str, Any]

NAMES = (
    "Ada",
    "Bela",
    "Chen",
    "Dora",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
)
GOODS = ("apples", "marbles", "stamps", "tickets", "candles", "postcards", "buttons", "shells")
PLACES = ("a harbour town", "a mountain village", "a railway museum", "a night market", "a school")
TOPICS = ("beekeeping", "bridges", "bread", "rain", "clocks", "maps", "bicycles", "the moon")
PEOPLE = ("a ten-year-old", "a new colleague", "a tourist", "a gardener", "a busy parent")
LANGUAGES = ("French", "German", "Spanish", "Italian")
SUBJECTS = (
    "The ferry",
    "Our oldest bakery",
    "The new library",
    "A small orchestra",
    "The night bus",
)
EVENTS = (
    "opened again after three years of repairs",
    "moved to the square behind the station",
    "gave away two hundred loaves in one morning",
    "lost its roof in the storm last week",
    "found a letter from 1911 under the floor",
)
EFFECTS = (
    "The queue reached as far as the post office.",
    "Nobody had expected so many children to come.",
    "The mayor promised to pay for half of it.",
    "Two volunteers now keep a diary of every day.",
    "Since then the street is quiet in the evening.",
)
REVIEWS = {
    "positive": (
        "The soup was hot and the waiter remembered us.",
        "It arrived early and works well.",
    ),
    "negative": ("The zip broke on the first day.", "We waited an hour and the food was cold."),
    "neutral": ("The box holds twelve pencils.", "The shop opens at nine and closes at six."),
}
SENTENCES = (
    "The train leaves at half past seven.",
    "My sister has two cats and a garden.",
    "Where can I buy a map of the city?",
    "It will rain in the afternoon.",
    "The museum is closed on Mondays.",
    "We would like a table by the window.",
    "He forgot his umbrella on the bus.",
    "The water in the lake is very cold.",
)
BLUNT = (
    "Send me the report now.",
    "Your plan is too expensive.",
    "I can't come on Friday.",
    "You forgot to lock the door again.",
    "The meeting was a waste of time.",
    "Fix the printer before noon.",
    "I don't like the blue one.",
    "Stop calling after eight.",
)
TONES = ("polite", "cheerful", "formal", "shorter")
OPENINGS = (
    "The lighthouse keeper counted the ships and",
    "To make a good cup of tea, first",
    "On the last page of the notebook she had written:",
    "The three most common birds in the park are",
    "Dear neighbour, I am writing because",
    "The old map showed a road that",
    "Water boils when",
    "List of things to pack for a week by the sea:\n1.",
)
ENDINGS = ("", " Nobody was surprised, because", " It began like this:", " In short,")


def arithmetic(rng: random.Random) -> Line:
    """A word problem with a whole-number answer, which is carried along."""
    name, other, goods = rng.choice(NAMES[:6]), rng.choice(NAMES[6:]), rng.choice(GOODS)
    many, few, times = rng.randint(12, 60), rng.randint(2, 11), rng.randint(2, 5)
    if rng.random() < 0.5:
        text = f"{name} has {many} {goods} and gives {few} of them to {other}. How many are left?"
        answer = many - few
    else:
        text = (
            f"{name} buys {times} boxes with {few} {goods} each and already had {many}. "
            f"How many {goods} does {name} have now?"
        )
        answer = times * few + many
    return {"messages": _user(text), "max_tokens": 64, "temperature": 0, "answer": answer}


def rewriting(rng: random.Random) -> Line:
    """A sentence in another tone."""
    text = f"Make this sentence {rng.choice(TONES)}: {rng.choice(BLUNT)}"
    return {"messages": _user(text), "max_tokens": 32}


def summary(rng: random.Random) -> Line:
    """A short text of our own in one sentence."""
    story = f"{rng.choice(SUBJECTS)} {rng.choice(EVENTS)}. {rng.choice(EFFECTS)}"
    system = {"role": "system", "content": "Answer in one short sentence."}
    return {
        "messages": [system, *_user(f"Summarise: {story}")],
        "max_tokens": 48,
        "temperature": 0,
    }


def classification(rng: random.Random) -> Line:
    """A review and its label, which is carried along."""
    label = rng.choice(tuple(REVIEWS))
    review = f"{rng.choice(REVIEWS[label])} I went with {rng.choice(NAMES)}."
    text = f"Is this review positive, negative or neutral? Answer with one word.\n\n{review}"
    return {"messages": _user(text), "max_tokens": 16, "temperature": 0, "label": label}


def brainstorming(rng: random.Random) -> Line:
    """Ideas, drawn with a temperature."""
    text = (
        f"Give {rng.randint(3, 5)} ideas for an afternoon about {rng.choice(TOPICS)} "
        f"in {rng.choice(PLACES)}."
    )
    return {"messages": _user(text), "max_tokens": 64, "temperature": 0.8, "top_p": 0.95}


def translation(rng: random.Random) -> Line:
    """One sentence in another language."""
    language = rng.choice(LANGUAGES)
    text = f"Translate into {language}: {rng.choice(SENTENCES)}"
    return {"messages": _user(text), "max_tokens": 32, "temperature": 0, "language": language}


def explanation(rng: random.Random) -> Line:
    """Something explained to someone, with the job's own sampling."""
    text = f"Explain {rng.choice(TOPICS)} to {rng.choice(PEOPLE)}, briefly."
    return {"messages": _user(text), "max_tokens": 56}


def conversation(rng: random.Random) -> Line:
    """A chat that has begun."""
    name, topic = rng.choice(NAMES), rng.choice(TOPICS)
    turns = [
        {"role": "user", "content": f"Hello, I am {name} and I like {topic}."},
        {"role": "assistant", "content": f"Hello {name}! What would you like to know?"},
        *_user(f"Ask me one question about {topic}, and use my name."),
    ]
    return {"messages": turns, "max_tokens": 40, "temperature": 0.7, "top_k": 40}


def completion(rng: random.Random) -> Line:
    """A raw text to go on with, up to the end of a line."""
    text = f"{rng.choice(SUBJECTS)} {rng.choice(EVENTS)}.{rng.choice(ENDINGS)}"
    if rng.random() < 0.3:
        text = f"{rng.choice(NAMES)}'s notes, page {rng.randint(2, 99)}. {rng.choice(OPENINGS)}"
    return {"prompt": text, "max_tokens": 24, "stop": "\n"}


KINDS: tuple[Callable[[random.Random], Line], ...] = (
    arithmetic,
    rewriting,
    summary,
    classification,
    brainstorming,
    translation,
    explanation,
    conversation,
    completion,
)


def prompts() -> list[Line]:
    """Return the shorthand lines, no prompt twice, the kinds in turn."""
    rng = random.Random(SEED)  # noqa: S311 - examples, not secrets
    seen: set[str] = set()
    lines = []
    for i in range(PROMPTS_OF_A_KIND):
        for kind in KINDS:
            line = _unseen(kind, rng, seen)
            if i % 2 == 0:
                line = {"id": f"{kind.__name__}-{i}", **line}
            if "temperature" in line and line["temperature"] > 0 and i % 4 == 1:
                line["seed"] = 1_000 + i
            lines.append({**line, "kind": kind.__name__})
    return lines


def batch_lines() -> list[Line]:
    """Return OpenAI batch lines: chats, as one file of theirs is for one endpoint."""
    chats = [line for line in prompts() if "messages" in line]
    return [
        {
            "custom_id": f"request-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": MODEL,
                "messages": chat["messages"],
                "max_tokens": chat["max_tokens"],
                "temperature": chat.get("temperature", 0),
            },
        }
        for i, chat in enumerate(chats[:BATCH_LINES], start=1)
    ]


def text_of(lines: list[Line]) -> str:
    """Return JSON lines as they stand in the files."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main() -> None:
    """Write both files beside this script."""
    (FOLDER / "prompts.jsonl").write_text(text_of(prompts()), encoding="utf-8")
    (FOLDER / "openai_batch.jsonl").write_text(text_of(batch_lines()), encoding="utf-8")


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _unseen(kind: Callable[[random.Random], Line], rng: random.Random, seen: set[str]) -> Line:
    while True:
        line = kind(rng)
        asked = json.dumps(line.get("messages", line.get("prompt")))
        if asked not in seen:
            seen.add(asked)
            return line


if __name__ == "__main__":
    main()
