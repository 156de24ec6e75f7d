"""Chat templates, rendered in a separate process with limits for memory and time.

template = ChatTemplate("{% for message in messages %}…")
template.render([{"role": "user", "content": "Hello"}], {"bos_token": "<s>"})
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from batchgen.errors import ModelError, UnsafeModel
from batchgen.models import template_process
from batchgen.models.trust.jsons import read_json

ATTEMPTS = 2  # if the process was killed from outside, the prompt may be fine
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "TZ", "SYSTEMROOT")
HELLO = [{"role": "user", "content": "Hello"}]


class TemplateFailed(ModelError):
    """The chat template did not render these messages."""

    def __init__(self, message: str, *, unsafe: bool = False) -> None:
        #: True if the template exceeded a limit or did something forbidden.
        self.unsafe = unsafe
        super().__init__(message)


class ChatTemplate:
    """One chat template and the process that renders it. Not thread-safe."""

    def __init__(self, source: str) -> None:
        """Keep the template; its process starts with the first prompt."""
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """Return the prompt of a chat; raise TemplateFailed.

        `variables` are the special tokens that the template may read.
        """
        request = json.dumps({"messages": messages, "variables": variables}, default=str)
        for _ in range(ATTEMPTS):
            reply = self._ask(request)
            if reply is not None:
                return _text_of(json.loads(reply))
            if self.close() == -signal.SIGPROF:
                limit = template_process.PROCESSOR_LIMIT
                raise TemplateFailed(f"it takes more than {limit:g} s", unsafe=True)
        raise TemplateFailed("its process died twice", unsafe=True)

    def close(self) -> int | None:
        """End the process and return its exit status, None if there is no process."""
        if self._process is None or self._finalizer is None:
            return None
        self._finalizer()
        status, self._process = self._process.returncode, None
        return status

    def _ask(self, request: str) -> bytes | None:
        """Send one request and return the reply, None if the process has ended."""
        process = self._process or self._start()
        try:
            _send(process.stdin, request)
        except BrokenPipeError:
            return None
        assert process.stdout is not None
        return process.stdout.readline() or None

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", template_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its messages may contain a prompt
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        )
        self._process = process
        self._finalizer = weakref.finalize(self, _end, process)
        with suppress(BrokenPipeError):  # the first prompt raises it again
            _send(process.stdin, json.dumps(self._source))
        return process


def check_templates(folder: Path) -> None:
    """Raise UnsafeModel if a template of the model exceeds a limit or does something forbidden.

    If a template only refuses the sample, as some do without a system message, it is accepted.
    """
    for source in _templates_of(folder):
        template = ChatTemplate(source)
        try:
            template.render(HELLO, {"bos_token": "", "eos_token": ""})
        except TemplateFailed as error:
            if error.unsafe:
                raise UnsafeModel(
                    f"The chat template cannot be used: {error.message}. Take the one of a model "
                    "that you trust."
                ) from error
        finally:
            template.close()


def _templates_of(folder: Path) -> list[str]:
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    document = read_json(config) if config.exists() else {}
    found = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(found, dict):
        found = list(found.values())
    elif isinstance(found, list):  # [{"name": …, "template": …}]
        found = [one.get("template") for one in found if isinstance(one, dict)]
    else:
        found = [found]
    if file.exists():
        found.append(file.read_text(encoding="utf-8", errors="replace"))
    return [source for source in found if isinstance(source, str)]


def _text_of(reply: dict[str, Any]) -> str:
    if "error" in reply:
        raise TemplateFailed(str(reply["error"]), unsafe=bool(reply["unsafe"]))
    text: str = reply["text"]
    return text


def _send(pipe: IO[bytes] | None, line: str) -> None:
    assert pipe is not None
    pipe.write(line.encode("ascii") + b"\n")
    pipe.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None and process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    process.kill()
    process.wait()
