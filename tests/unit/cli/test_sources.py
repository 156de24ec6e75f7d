from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import click
import pytest

from batchgen.errors import MissingInput
from batchgen_cli import sources
from batchgen_cli.sources import open_input

LINE = b'{"prompt": "x"}\n'


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(LINE)
    with open_input(str(tmp_path / "p.jsonl")) as source:
        assert source.seekable()
        assert source.read() == LINE


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "no such file"),
        (".", "is a directory"),
        ("socket", "it is a socket"),
        ("/dev/zero", "it is a device"),
        ("/dev/urandom", "it is a device"),
    ],
)
def test_what_is_no_file_is_named(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(MissingInput, match=reason) as caught, open_input(name):
            pass
    assert name in caught.value.message


def test_the_null_device_is_empty() -> None:
    with open_input(os.devnull) as source:
        assert source.read() == b""


def test_a_pipe_that_nobody_writes_to_is_waited_for_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said: list[str] = []

    def say(message: str, *, err: bool) -> None:
        said.append(message)
        assert err
        threading.Thread(target=pipe.write_bytes, args=(2 * LINE,)).start()

    monkeypatch.setattr(sources, "PATIENCE", 0)
    monkeypatch.setattr(click, "echo", say)
    with open_input(str(pipe)) as source:
        assert source.read() == 2 * LINE
    [message] = said
    assert str(pipe) in message


def test_a_pipe_that_is_written_to_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)  # as a writer that has begun
    os.write(held, LINE)
    with open_input(str(pipe)) as source:
        os.close(held)
        assert source.read() == LINE
    assert capsys.readouterr().err == ""
