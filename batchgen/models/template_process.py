"""The program that renders chat templates: `python template_process.py`, with jinja2 only.

A template comes with a model and is a program: it may loop for ever, or write more than the memory
holds. In this process the kernel limits its time and memory, it cannot open files, and the
environment holds no secrets.

stdin, a line each     the template, then {"messages": …, "variables": …} for each prompt
stdout, a line each    {"text": …} or {"error": …, "unsafe": …}; end of file after the time limit
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.debug
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

if TYPE_CHECKING:
    from jinja2.parser import Parser

PROCESSOR_LIMIT = 1.0  # seconds of processor time for one prompt
MEMORY_LIMIT = 256 << 20  # bytes of address space
WARM_UP = (
    "{{ strftime_now('%d') ~ '\\n' ~ [{'a': 1.5}] | tojson | pprint }}{{ 'a b' | wordwrap(1) }}"
)
TEXT_LIMIT = 4 << 20  # characters of a prompt
ERROR_LIMIT = 500  # characters

# Keys of a message's reasoning; templates read the first.
REASONING = ("reasoning_content", "thinking", "reasoning")


def main() -> None:
    """Render prompts until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the parent process decides when to end
    lines = iter(sys.stdin)
    template = json.loads(next(lines))
    confine()
    compiled = None
    for line in lines:
        # After the limit, the signal kills the process at any point.
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_LIMIT)
        try:
            request = json.loads(line)
            compiled = compiled or compile_template(template)
            reply: dict[str, Any] = {"text": render(compiled, **request)}
        except Exception as error:  # noqa: BLE001 (a template can raise anything)
            reply = {"error": _describe(error), "unsafe": isinstance(error, UNSAFE)}
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def confine() -> None:
    """Set permanent limits for memory and files of this process."""
    # Render once before, because Python loads modules at their first use and needs files for it.
    render(compile_template(WARM_UP), [{}], {})
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError):  # a lower limit is set already, or the system has none
            resource.setrlimit(kind, (limit, limit))


def compile_template(source: str) -> jinja2.Template:
    """Return the template in the environment that transformers gives it; raise SecurityError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=lambda format: datetime.now().strftime(format),
        dict=_Dict(),
        namespace=_Namespace,
    )
    _refuse_internals(environment.parse(source))
    return environment.from_string(source)


def render(
    template: jinja2.Template, messages: list[dict[str, Any]], variables: dict[str, Any]
) -> str:
    """Return the prompt of a chat, equal to that of transformers' `apply_chat_template`."""
    if not messages:
        raise ValueError("There is no message.")
    text = template.render(
        messages=[_with_reasoning(message) for message in messages],
        tools=None,
        documents=None,
        add_generation_prompt=True,
        **variables,
    )
    if len(text) > TEXT_LIMIT:
        raise TooLarge(f"it writes {len(text):,} characters; at most {TEXT_LIMIT:,} are accepted")
    return text


class TooLarge(TemplateError):
    """The prompt has more than TEXT_LIMIT characters."""


UNSAFE = (SecurityError, TooLarge, MemoryError, RecursionError)


class Generation(Extension):
    """Renders `{% generation %}` blocks as their content; they mark answers for training."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's way)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the content of a block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Dict:
    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace holds nothing named {name!r}")
        super().__setitem__(name, value)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[name] for name in REASONING if name in message), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _refuse_internals(tree: nodes.Template) -> None:
    """Raise SecurityError for `''.__class__` and similar names, which no chat needs."""
    names = [node.attr for node in tree.find_all(nodes.Getattr)]
    constants = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    for name in (*names, *(text for text in constants if text.isidentifier())):
        if name.startswith("__"):
            raise SecurityError(f"it uses Python's internals ({name})")


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_LIMIT >> 20} MiB of memory"
    return str(error)[:ERROR_LIMIT] or type(error).__name__


if __name__ == "__main__":
    main()
