from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from batchgen_workers.logs import configure_logging, get_logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    noisy = {name: logging.getLogger(name).level for name in ("celery", "kombu", "alembic")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in noisy.items():
        logging.getLogger(name).setLevel(former)


def test_a_line_is_an_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    get_logger("batchgen.test").info("shard claimed", shard=3)
    captured = capsys.readouterr()
    assert captured.out == ""
    line = json.loads(captured.err)
    assert (line["event"], line["shard"], line["level"]) == ("shard claimed", 3, "info")


def test_libraries_are_heard_when_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    logging.getLogger("celery.worker").info("chatter")
    logging.getLogger("celery.worker").error("trouble")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["trouble"]


def test_details_are_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    get_logger("batchgen.test").debug("detail")
    assert capsys.readouterr().err == ""
    configure_logging(json=True, verbose=True)
    get_logger("batchgen.test").debug("detail")
    assert "detail" in capsys.readouterr().err


def test_an_exception_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        get_logger("batchgen.test").exception("failed")
    assert "ZeroDivisionError" in json.loads(capsys.readouterr().err)["exception"]
