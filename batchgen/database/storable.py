"""Text from elsewhere on its way into a column."""

from __future__ import annotations

LIMIT = 2000  # characters


def storable(words: str) -> str:
    """Return the words in a form both databases store: no NUL, no lone surrogate, not endless.

    What an exception says must never be why its report fails.
    """
    return words.replace("\0", " ").encode("utf-8", "replace").decode()[:LIMIT]
