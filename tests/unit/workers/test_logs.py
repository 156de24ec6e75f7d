from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from batchgen.errors import Corrupt
from batchgen_workers.logs import configure_logging, get_logger
from tests.support.logs import logging_to_stderr

SECRET = "a prompt"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with logging_to_stderr():
        yield


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


def test_an_exception_says_where_and_what_but_quotes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(json=True)
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise Corrupt("The part is short.") from error
    except Corrupt:
        get_logger("batchgen.test").exception("failed")
    said = json.loads(capsys.readouterr().err)["exception"]
    assert "test_logs.py" in said
    assert said.index("KeyError") < said.index("The part is short.")
    assert SECRET not in said


def test_what_a_library_says_of_an_exception_is_kept_out_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(json=True)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("celery").error("trouble", exc_info=True)
    assert SECRET not in capsys.readouterr().err


def test_an_exception_nobody_catches_quotes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)

    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(SECRET), None)
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["uncaught exception"] * 2
    assert SECRET not in "".join(lines)
