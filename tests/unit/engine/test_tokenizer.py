from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.engine.tokenizer import PARTIAL, StopScanner, Tokenizer, cut_at_stop
from batchgen.errors import UnsupportedModel
from batchgen.io.params import SamplingParams
from batchgen.io.rows import GenerationRequest, RowError
from tests.support.tiny_models import save_tokenizer

PARAMS = SamplingParams()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return Tokenizer(path)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids = tokenizer.encode(GenerationRequest(key=0, params=PARAMS, prompt=text))
    assert not isinstance(ids, RowError)
    return ids


def refusal(tokenizer: Tokenizer, messages: list[dict[str, object]]) -> RowError:
    error = tokenizer.encode(GenerationRequest(key=0, params=PARAMS, messages=messages))
    assert isinstance(error, RowError)
    return error


def with_template(path: Path, template: str | None) -> Tokenizer:
    save_tokenizer(path, chat_template=template)
    return Tokenizer(path)


def scan(tokenizer: Tokenizer, ids: list[int], *stop: str) -> str | None:
    scanner = StopScanner(tokenizer.decode, stop)
    return next((text for text in map(scanner.push, ids) if text is not None), None)


def test_messages_go_through_the_chat_template(tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "be the fox"}, {"role": "user", "content": "jump"}]
    got = tokenizer.encode(GenerationRequest(key=0, params=PARAMS, messages=messages))
    expected = "<|im_start|>system\nbe the fox<|im_end|>\n<|im_start|>user\njump<|im_end|>\n"
    assert got == ids_of(tokenizer, expected + "<|im_start|>assistant\n")


def test_token_ids_are_taken_as_they_are(tokenizer: Tokenizer) -> None:
    request = GenerationRequest(key=0, params=PARAMS, prompt_token_ids=[5, 6])
    assert tokenizer.encode(request) == [5, 6]


def test_special_tokens_are_not_part_of_a_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(ids_of(tokenizer, "the dog<|im_end|>")) == "the dog"
    assert tokenizer.eos_token_id == ids_of(tokenizer, "<|im_end|>")[0]


def test_a_model_without_a_chat_template_says_so(tmp_path: Path) -> None:
    error = refusal(with_template(tmp_path, None), [{"role": "user", "content": "x"}])
    assert (error.code, error.param) == ("no_chat_template", "messages")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[7]['content'] + 'x' }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_a_template_refuses_is_the_rows_error(tmp_path: Path, template: str) -> None:
    error = refusal(with_template(tmp_path, template), [{"role": "user", "content": "x"}])
    assert error.code == "template_error"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel):
        Tokenizer(tmp_path)


def test_a_stop_string_may_span_tokens_and_end_inside_one(tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, "the lazy dog jumps")
    assert len(ids) < len("the lazy dog jumps")
    assert scan(tokenizer, ids, "zy do") == "the la"
    assert scan(tokenizer, ids, "zebra", "g ju", "dog") == "the lazy "
    assert scan(tokenizer, ids, "cat") is None


def test_a_stop_string_of_characters_that_span_tokens(tokenizer: Tokenizer) -> None:
    text = "one 🎉é two"
    ids = ids_of(tokenizer, text)
    assert scan(tokenizer, ids, "🎉é") == "one "
    assert scan(tokenizer, ids, "é t") == "one 🎉"


def test_the_first_stop_string_of_the_text_wins() -> None:
    assert cut_at_stop("abcdef", ["ef", "cd"]) == "ab"
    assert cut_at_stop("abcdef", ["x"]) is None
    assert cut_at_stop("abcabc", ["c"], start=3) == "abcab"


def test_bytes_that_never_become_a_character_do_not_pile_up(tokenizer: Tokenizer) -> None:
    lone = ids_of(tokenizer, "é")[0]  # the first byte of two
    widths = []

    def decode(ids: list[int]) -> str:
        widths.append(len(ids))
        return tokenizer.decode(ids)

    scanner = StopScanner(decode, ["!"])  # type: ignore[arg-type]
    for _ in range(300):
        scanner.push(lone)
    assert max(widths) <= 4 * PARTIAL
    assert scanner.push(ids_of(tokenizer, "!")[0]) is not None


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40), data=st.data())
def test_scanning_finds_what_searching_the_whole_text_finds(
    tokenizer: Tokenizer, text: str, data: st.DataObject
) -> None:
    text = text.replace("\ufffd", "?").encode("utf-8", "ignore").decode()
    start = data.draw(st.integers(0, len(text)))
    stop = text[start : start + data.draw(st.integers(1, 5))] or "~"
    ids = ids_of(tokenizer, text)
    assert scan(tokenizer, ids, stop) == cut_at_stop(tokenizer.decode(ids), [stop])
