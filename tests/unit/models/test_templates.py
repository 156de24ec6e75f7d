"""Chat templates: what transformers makes of them, and what they may take."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import UnsafeModel
from batchgen.models.template_process import MEMORY_LIMIT, TEXT_LIMIT
from batchgen.models.templates import ChatTemplate, TemplateFailed, check_templates
from tests.support.tiny_models import CHAT_TEMPLATE, save_tokenizer
from tests.support.workers import is_alive, wait_until

HELLO = [{"role": "user", "content": "Hello"}]
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be <b>brief</b> & “kind”."},
    {"role": "user", "content": [{"type": "text", "text": "é\n🎉"}], "name": None},
    {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"id": 1, "f": 0.5}]},
    {"role": "tool", "content": "{}"},
]

# What templates of real models make use of.
FAITHFUL = {
    "whole messages": "{{ messages | tojson }}",
    "json with options": "{{ messages[2] | tojson(indent=2, sort_keys=true) }}",
    "special tokens": "{{ bos_token }}{% for m in messages %}{{ eos_token }}{% endfor %}",
    "whitespace": "{% for m in messages %}\n  {%- if loop.first %}\n  A\n  {% endif %}\n B "
    "{% endfor %}\n",
    "loop controls": "{% for m in messages %}{% if loop.index == 3 %}{% break %}{% endif %}"
    "{{ m.role }}{% endfor %}",
    "a namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}",
    "a macro": "{% macro f(x) -%} <{{ x | trim | upper }}> {%- endmacro %}{{ f(' a ') }}",
    "absent values": "{{ tools is none }}{{ documents is none }}{{ messages[1].name is defined }}"
    "{{ nothing is defined }}{{ nothing }}",
    "reasoning": "{{ messages[2].reasoning_content }}{{ messages[2].thinking }}",
    "a generation block": "{% for m in messages %}{% generation %}{% set x = 1 %}{{ m.role }}"
    "{% endgeneration %}{{ x }}{% endfor %}",
    "the prompt": "{% if add_generation_prompt %}yes{% endif %}",
    "today": "{{ strftime_now('%Y %B %d') }}",
    "a dict": "{{ dict(a=1) | items | list }}{{ {'b': 2} | dictsort }}",
    "methods": "{{ messages[0].content.split('.')[0].strip() }}{{ messages[0].items() | list }}",
    "types": "{{ messages[1].content is string }}{{ messages[2].tool_calls[0].f is number }}",
}

RUNAWAYS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "calls that double": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "a loop in one filter": "{{ range(99999) | map('string') | map('center', 2000) | list }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a long string": "{{ 'x' * 10 ** 10 }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a large number": "{{ 9 ** (9 ** 9) }}",
    "a list that doubles": "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "much text": "{% for a in range(99999) %}{{ 'much text ' * 10 }}{% endfor %}",
}

INTERNALS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{% for m in messages %}{{ m.pop.__globals__ }}{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
]


@pytest.fixture(scope="module")
def transformers_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return AutoTokenizer.from_pretrained(path, local_files_only=True)


@pytest.fixture
def hello() -> Iterator[ChatTemplate]:
    template = ChatTemplate("{{ messages[0].content }}")
    assert template.render(HELLO, {}) == "Hello"
    yield template
    template.close()


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, *FAITHFUL.values()], ids=["chat", *FAITHFUL])
def test_a_prompt_is_what_transformers_makes(transformers_tokenizer: Any, source: str) -> None:
    tokenizer = transformers_tokenizer
    chat = HELLO if source is CHAT_TEMPLATE else CHAT
    expected = tokenizer.apply_chat_template(
        chat, chat_template=source, tokenize=False, add_generation_prompt=True
    )
    assert ChatTemplate(source).render(chat, tokenizer.special_tokens_map) == expected


@pytest.mark.parametrize("source", RUNAWAYS.values(), ids=RUNAWAYS)
def test_what_a_template_may_take_is_bounded(source: str) -> None:
    template = ChatTemplate(source)
    began = time.thread_time()
    with pytest.raises(TemplateFailed) as error:
        template.render(HELLO, {})
    assert error.value.unsafe
    assert time.thread_time() - began < 1.0  # the time it takes is not ours
    template.close()


@pytest.mark.parametrize("source", INTERNALS)
def test_what_python_is_made_of_is_out_of_reach(source: str) -> None:
    with pytest.raises(TemplateFailed) as error:
        ChatTemplate(source).render(HELLO, {})
    assert error.value.unsafe


def test_a_runaway_costs_one_prompt_and_the_next_is_rendered() -> None:
    template = ChatTemplate(
        "{% for a in range(messages[0].n) %}{% for b in range(messages[0].n) %}{% endfor %}"
        "{% endfor %}done"
    )
    for n, fails in ((1, False), (99_999, True), (2, False)):
        if fails:
            with pytest.raises(TemplateFailed, match="takes more than 1 s"):
                template.render([{"n": n}], {})
        else:
            assert template.render([{"n": n}], {}) == "done"


def test_a_long_prompt_is_no_runaway(hello: ChatTemplate) -> None:
    text = "é" * (TEXT_LIMIT // 4)
    assert hello.render([{"content": text}], {}) == text


def test_half_a_character_goes_through(hello: ChatTemplate) -> None:
    assert hello.render([{"content": "\ud83d"}], {}) == "\ud83d"


def test_no_message_is_an_error_of_the_row(hello: ChatTemplate) -> None:
    with pytest.raises(TemplateFailed, match="no message") as error:
        hello.render([], {})
    assert not error.value.unsafe


def test_who_kills_the_process_costs_no_prompt(hello: ChatTemplate) -> None:
    for _ in range(3):
        os.kill(pid_of(hello), signal.SIGKILL)
        assert hello.render(HELLO, {}) == "Hello"


def test_it_has_neither_secrets_nor_files(
    hello: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello.close()
    monkeypatch.setenv("BATCHGEN_DATABASE_URL", "postgresql://u:s3cret@localhost/db")
    hello.render(HELLO, {})
    process = Path(f"/proc/{pid_of(hello)}")
    assert b"s3cret" not in (process / "environ").read_bytes()
    limits = (process / "limits").read_text()
    for name, limit in (("Max open files", 0), ("Max address space", MEMORY_LIMIT)):
        line = next(line for line in limits.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == [str(limit)] * 2


def test_nothing_is_left_behind() -> None:
    template = ChatTemplate("x")
    template.render(HELLO, {})
    pid = pid_of(template)
    del template
    gc.collect()
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": RUNAWAYS["nested loops"]},
        {"chat_template": [{"name": "default", "template": "x"}, {"template": INTERNALS[0]}]},
        {"chat_template": {"default": "x", "tool_use": RUNAWAYS["a long string"]}},
    ],
)
def test_a_model_with_such_a_template_is_refused(tmp_path: Path, config: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsafeModel, match="chat template"):
        check_templates(tmp_path)


def test_a_template_in_a_file_of_its_own_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(INTERNALS[0])
    with pytest.raises(UnsafeModel, match="__"):
        check_templates(tmp_path)


@pytest.mark.parametrize("source", ["{{ raise_exception('no system message') }}", "{% if %}"])
def test_a_template_that_refuses_the_sample_is_left_to_its_rows(
    tmp_path: Path, source: str
) -> None:
    (tmp_path / "chat_template.jinja").write_text(source)
    check_templates(tmp_path)


def pid_of(template: ChatTemplate) -> int:
    process = template._process
    assert process is not None
    return process.pid
