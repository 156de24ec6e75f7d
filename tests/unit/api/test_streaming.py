from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from batchgen.api.auth import authenticated
from batchgen.api.shares import Shares
from batchgen.api.streaming import stream
from batchgen.errors import NotAllowed
from tests.support.api import OURS, THEIRS, Api, serving

PIECE = b"x" * 100_000


class Pieces:
    """Pieces without an end; each notes the thread that makes it."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        try:
            while True:
                self.threads.append(threading.get_ident())
                yield PIECE
        finally:
            self.threads.append(threading.get_ident())
            self.closed.set()


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database: no stream of these tests reads it."""
    return sqlite_url


@pytest.fixture
def pieces(api: Api) -> Pieces:
    """The pieces that the route /endless streams."""
    made = Pieces()
    router = APIRouter(dependencies=[Depends(authenticated)])

    @router.get("/endless")
    def endless(request: Request) -> StreamingResponse:
        return stream(request, iter(made), media_type="text/plain")

    @router.get("/short")
    def short(request: Request) -> StreamingResponse:
        return stream(request, iter([b"a", b"", b"b"]), media_type="text/plain", status=206)

    @router.get("/broken")
    def broken(request: Request) -> StreamingResponse:
        return stream(request, _broken(), media_type="text/plain")

    api.app.include_router(router)
    return made


def _key(api: Api, tenant: str = OURS) -> dict[str, str]:
    return {"authorization": f"Bearer {api.key(tenant)}"}


def _broken() -> Iterator[bytes]:
    raise NotAllowed("There is nothing yet.")
    yield b""


def test_a_caller_who_goes_away_ends_the_stream(api: Api, pieces: Pieces) -> None:
    with serving(api.app) as url:
        with httpx2.stream("GET", f"{url}/endless", headers=_key(api)) as answer:
            read = answer.iter_raw()
            assert all(next(read) for _ in range(20))
        assert pieces.closed.wait(60)
    assert len(pieces.threads) > 2
    # the first one is made before the answer begins
    assert len(set(pieces.threads[1:])) == 1


def test_an_empty_piece_is_not_the_end(api: Api, pieces: Pieces) -> None:
    answer = api.ours.get("/short")
    assert (answer.status_code, answer.content) == (206, b"ab")


def test_an_error_before_the_first_piece_has_its_status(api: Api, pieces: Pieces) -> None:
    assert api.ours.get("/broken").status_code == 409


def test_readers_of_one_tenant_leave_places_to_others(api: Api, pieces: Pieces) -> None:
    api.app.state.streams = Shares(2)
    with serving(api.app) as url:
        with ExitStack() as opened:
            for _ in range(3):  # of a caller who does not read: more than all places
                unread = httpx2.stream("GET", f"{url}/endless", headers=_key(api))
                assert opened.enter_context(unread).status_code == 200
            answer = httpx2.get(f"{url}/short", headers=_key(api, THEIRS), timeout=60)
        assert answer.text == "ab"
