"""Arithmetic word problems of our own with seeded numbers: as many prompts as are wanted."""

from __future__ import annotations

import random

SEED = 4
NAMES = ("Ada", "Bela", "Chen", "Dora", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kofi")
GOODS = ("apples", "marbles", "stamps", "tickets", "candles", "postcards", "buttons", "shells")
PLACES = ("at the harbour", "at the night market", "in the school hall", "behind the old station")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

STEPS = (
    "On {day} {name} buys {few} boxes of {goods} with {times} in each box.",
    "Then {other} comes by {place} and asks for {few} of the {goods}, which {name} gladly gives.",
    "On the way home {name} counts everything twice and finds {few} {goods} more than expected.",
    "{other} has {times} times as many, but keeps them in a drawer and never shows them.",
    "Every friend brings {few} more {goods}, and there are {times} friends {place} on {day}.",
    "By {day} evening {few} {goods} are broken and have to be thrown away.",
)
QUESTIONS = (
    "How many {goods} does {name} have in the end? Explain every step.",
    "How many {goods} are left, and how many would each of {times} children get?",
    "If each of the {goods} costs {few} cents, what are all of them worth together?",
)


def word_problems(count: int) -> list[str]:
    """Return `count` problems of three to eight sentences; the first ones are always the same."""
    rng = random.Random(SEED)  # noqa: S311 - prompts, not secrets
    return [_problem(rng) for _ in range(count)]


def _problem(rng: random.Random) -> str:
    name, other = rng.sample(NAMES, 2)
    subject = {"name": name, "other": other, "goods": rng.choice(GOODS)}
    told = rng.sample(STEPS, rng.randint(1, len(STEPS)))
    start = "{name} collects {goods} and has {many} of them {place}."
    sentences = [start, *told, rng.choice(QUESTIONS)]
    return " ".join(
        sentence.format(
            **subject,
            many=rng.randint(20, 90),
            few=rng.randint(2, 12),
            times=rng.randint(2, 6),
            place=rng.choice(PLACES),
            day=rng.choice(DAYS),
        )
        for sentence in sentences
    )
