from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

import anyio
import pytest

from batchgen.client.bodies import CHUNK, UploadBody
from batchgen.library.line_stream import LineStream

CONTENT = b"0123456789" * 100_000  # several chunks


class Pipe(io.RawIOBase):
    """A source that can be read once."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


@pytest.fixture(params=["file", "pipe"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> BinaryIO:
    if request.param == "pipe":
        return cast("BinaryIO", Pipe(CONTENT))
    (tmp_path / "prompts").write_bytes(CONTENT)
    return (tmp_path / "prompts").open("rb")


def test_every_attempt_sends_the_same_bytes(source: BinaryIO) -> None:
    with source, UploadBody(source) as body:
        first = body.chunks()
        assert next(first) + next(first) == CONTENT[: 2 * CHUNK]  # then the connection broke
        assert b"".join(body.chunks()) == CONTENT
        assert b"".join(body.chunks()) == CONTENT


def test_an_event_loop_gets_the_same(source: BinaryIO) -> None:
    async def send() -> bytes:
        with UploadBody(source) as body:
            await anext(body.achunks())
            return b"".join([chunk async for chunk in body.achunks()])

    with source:
        assert anyio.run(send) == CONTENT


def test_a_file_is_sent_from_where_it_is(tmp_path: Path) -> None:
    file = io.BytesIO(b"skipped" + CONTENT)
    file.seek(7)
    body = UploadBody(file)
    assert body.size == len(CONTENT)
    assert b"".join(body.chunks()) == CONTENT
    assert UploadBody(cast("BinaryIO", Pipe(CONTENT))).size is None


def test_a_generator_is_read_once_and_only_as_far_as_it_was_sent() -> None:
    read = []

    def lines() -> object:
        for number in range(1000):
            read.append(number)
            yield b"x" * 1000

    source = cast("BinaryIO", io.BufferedReader(LineStream(lines())))  # type: ignore[arg-type]
    with UploadBody(source) as body:
        next(body.chunks())
        assert CHUNK // 1000 <= len(read) < 300
        assert b"".join(body.chunks()) == b"x" * 1_000_000
    assert read == list(range(1000))
