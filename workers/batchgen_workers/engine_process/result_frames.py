"""Cuts answers into frames, by rows and, as log-probabilities make them long, by bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from batchgen.core.rows import Generation, RowError
from batchgen_workers.engine_process.frames import MAX_FRAME, ROWS_PER_FRAME

FRAME_BYTES = MAX_FRAME // 4  # of answers in one frame, as `weight` counts them
CHARACTER = 4  # bytes that a character takes at most
TOKEN = 5  # bytes that a token id takes at most

TOO_LARGE = RowError(
    code="result_too_large",
    message=f"The row's answers take more than {FRAME_BYTES >> 20} MiB: ask for fewer of them, for "
    "fewer tokens or for fewer log-probabilities.",
)


def in_result_frames(generations: Iterable[Generation]) -> Iterator[list[Generation]]:
    """Yield the answers in pieces that each fit into one frame.

    A row that does not fit alone gets an error, so that it does not end the engine for all rows.
    """
    piece: list[Generation] = []
    size = 0
    for generation in generations:
        held, bytes_held = generation, weight(generation)
        if bytes_held > FRAME_BYTES:
            held = msgspec.structs.replace(generation, choices=[], usage=None, error=TOO_LARGE)
            bytes_held = 0
        if piece and (len(piece) == ROWS_PER_FRAME or size + bytes_held > FRAME_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(held)
        size += bytes_held
    if piece:
        yield piece


def weight(generation: Generation) -> int:
    """Return the bytes that an answer takes on the wire at most; small fields are not counted."""
    return sum(
        CHARACTER * len(choice.text) + len(choice.logprobs or "") + TOKEN * len(choice.tokens or ())
        for choice in generation.choices
    )
