from __future__ import annotations

import json
from typing import Any

from batchgen.dataset.openai_logprobs import chat_logprobs, completion_logprobs


def entry(
    token: str, logprob: float, raw: bytes | None = None, top: list[Any] | None = None
) -> dict[str, Any]:
    """One token as the engine gives it; its bytes are those of its text where none are given."""
    given = list(token.encode() if raw is None else raw)
    return {"token": token, "logprob": logprob, "bytes": given, "top_logprobs": top or []}


def alternative(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def text_of(**fields: Any) -> str:
    return json.dumps({"refusal": None, **fields})


def test_what_was_not_asked_for_is_null() -> None:
    assert chat_logprobs(None) == (None, None)
    assert completion_logprobs(None, "a") == (None, None)


def test_a_chat_has_the_engines_own_form_without_the_prompts() -> None:
    content, prompt = [entry("a", -0.5)], [None, entry("b", -1.0)]
    given = {"content": content, "refusal": None}
    assert chat_logprobs(text_of(content=content)) == (given, None)
    assert chat_logprobs(text_of(content=content, prompt=prompt)) == (given, prompt)


def test_prompt_logprobs_alone() -> None:
    prompt = [None, entry("b", -1.0)]
    for text in (text_of(content=None, prompt=prompt), text_of(prompt=prompt)):
        assert chat_logprobs(text) == (None, prompt)
        assert completion_logprobs(text, "a") == (None, prompt)


def test_a_completion_has_openais_older_form() -> None:
    content = [
        entry(" a", -0.5, top=[alternative(" a", -0.5), alternative("b", -2.0)]),
        entry("cd", -3.0, top=[alternative("x", -0.25), alternative("y", -1.0)]),
    ]
    logprobs, _ = completion_logprobs(text_of(content=content), " acd")
    assert logprobs == {
        "tokens": [" a", "cd"],
        "token_logprobs": [-0.5, -3.0],
        "top_logprobs": [{" a": -0.5, "b": -2.0}, {"x": -0.25, "y": -1.0, "cd": -3.0}],
        "text_offset": [0, 2],
    }


def test_without_alternatives_there_are_no_top_logprobs() -> None:
    logprobs, _ = completion_logprobs(text_of(content=[entry("a", -0.5)]), "a")
    assert logprobs is not None
    assert logprobs["top_logprobs"] is None


def test_an_answer_without_tokens() -> None:
    logprobs, _ = completion_logprobs(text_of(content=[]), "")
    assert logprobs == {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": None,
        "text_offset": [],
    }


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    euro = "€".encode()
    content = [entry("\ufffd", -1.0, euro[:1]), entry("\ufffd", -1.0, euro[1:]), entry("!", -1.0)]
    logprobs, _ = completion_logprobs(text_of(content=content), "€!")
    assert logprobs is not None
    assert logprobs["tokens"] == [r"bytes:\xe2", r"bytes:\x82\xac", "!"]
    assert logprobs["text_offset"] == [0, 0, 1]


def test_two_tokens_of_one_text_keep_the_likelier() -> None:
    top = [alternative("a", -0.5), alternative("a", -2.0)]
    logprobs, _ = completion_logprobs(text_of(content=[entry("a", -2.0, top=top)]), "a")
    assert logprobs is not None
    assert logprobs["top_logprobs"] == [{"a": -0.5}]


def test_what_a_stop_string_cut_off_lies_at_the_end() -> None:
    content = [entry("ab", -1.0), entry("END", -1.0), entry("x", -1.0)]
    logprobs, _ = completion_logprobs(text_of(content=content), "ab")
    assert logprobs is not None
    assert logprobs["text_offset"] == [0, 2, 2]


def test_a_token_whose_bytes_are_not_known() -> None:
    content = [{**entry("<s>", -1.0), "bytes": None}, entry("a", -1.0)]
    logprobs, _ = completion_logprobs(text_of(content=content), "<s>a")
    assert logprobs is not None
    assert (logprobs["tokens"], logprobs["text_offset"]) == (["<s>", "a"], [0, 3])
