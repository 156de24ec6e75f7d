"""Prompts and answers of a real model, from lines to texts, through its tokenizer and template."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batchgen.core.rows import Generation, InputRow
from batchgen.engine.config import EngineConfig
from batchgen.engine.engine import Engine
from batchgen.models.record import ModelRecord
from batchgen.requests.lines import parse_line
from batchgen_workers.shard.answers import as_request
from tests.support.jobs import lease_without_store
from tests.unit.engine.conftest import run

Ask = Callable[..., Generation]
CAPITAL = "The capital of France is"


@pytest.fixture(scope="module")
def engine(smollm2: ModelRecord) -> Engine:
    return Engine(
        EngineConfig(model_path=smollm2.path, model_name=smollm2.name, kv_memory="200MB", threads=1)
    )


@pytest.fixture(scope="module")
def ask(engine: Engine) -> Ask:
    def asked(**line: Any) -> Generation:
        fields = {"temperature": 0, "max_tokens": 8, "return_token_ids": True, **line}
        row = parse_line(json.dumps(fields).encode(), row=0, defaults={}, model=None)
        assert isinstance(row, InputRow), row
        return run(engine, as_request(row, key=0, lease=lease_without_store()))[0]

    return asked


def test_a_prompt_of_token_ids_is_its_text(engine: Engine, ask: Ask) -> None:
    ids = engine.tokenizer.backend(CAPITAL)["input_ids"]
    answer = ask(prompt=ids)
    assert answer.choices == ask(prompt=CAPITAL).choices
    assert answer.choices[0].text.startswith(" Paris")
    error = ask(prompt=[*ids, 49_152]).error
    assert error is not None and (error.code, error.param) == ("invalid_value", "prompt")


def test_a_stop_text_may_begin_the_answer_or_be_a_special_token(engine: Engine, ask: Ask) -> None:
    (choice,) = ask(prompt=CAPITAL, stop=" Paris").choices
    assert (choice.text, choice.finish_reason) == ("", "stop")
    chat = [{"role": "user", "content": "Say hello."}]
    (end,) = engine.tokenizer.backend.convert_tokens_to_ids(["<|im_end|>"])
    free, held = (
        ask(messages=chat, max_tokens=60, ignore_eos=True, **how).choices[0]
        for how in ({}, {"stop": "<|im_end|>"})
    )
    cut = (free.tokens or []).index(end) + 1
    assert (held.tokens, held.finish_reason) == ((free.tokens or [])[:cut], "stop")
    assert held.text == engine.tokenizer.decode((free.tokens or [])[:cut])


def test_a_developer_is_the_system_and_a_replayed_answer_is_taken(ask: Ask) -> None:
    empty: dict[str, Any] = {
        "annotations": [],
        "audio": None,
        "refusal": None,
        "function_call": None,
    }
    chat: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi!", "tool_calls": None, "name": None, **empty},
        {"role": "user", "content": "Bye"},
    ]
    plain = [{"role": each["role"], "content": each["content"]} for each in chat]
    plain[0]["role"], plain[1]["content"] = "system", "Hello"
    assert ask(messages=chat).choices == ask(messages=plain).choices


def test_a_call_that_the_template_leaves_out_is_refused(ask: Ask) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    error = ask(messages=chat).error
    assert error is not None and (error.code, error.param) == ("template_error", "messages[1]")
