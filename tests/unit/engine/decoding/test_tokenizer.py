"""Prompts to tokens, tokens to bytes, and stop strings wherever they lie in an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest, RowError
from batchgen.engine.decoding.stops import INCOMPLETE, PARTIAL, Decode, StopScanner, read
from batchgen.engine.decoding.tokenizer import Tokenizer
from batchgen.errors import UnsupportedModel
from tests.support.tiny_models import CHAT_TEMPLATE, save_tokenizer

PARAMS = SamplingParams()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return Tokenizer(path)


@pytest.fixture(scope="session")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Return one that leaves the space of a text's first token out, as sentencepiece's do."""
    pieces = ["<unk>", "</s>", "<end>", "▁Paris", "▁is", "s", "▁", "<0xC3>", "<0xA9>"]
    backend = Backend(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.add_special_tokens(["<unk>", "</s>", "<end>"])
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return saved(tmp_path_factory.mktemp("spaced"), backend)


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


def saved(path: Path, backend: Backend) -> Tokenizer:
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(path)
    return Tokenizer(path)


def scan(decode: Decode, ids: list[int], *stop: str, uncounted: int = 0) -> str | None:
    """Return the answer that a stop string ends; the first tokens do not count."""
    scanner = StopScanner(decode, stop)
    texts = (scanner.push(token, counts=i >= uncounted) for i, token in enumerate(ids))
    return next((text for text in texts if text is not None), None)


def search(decode: Decode, ids: list[int], *stop: str, uncounted: int = 0) -> str | None:
    """Return the same by searching the whole text anew after every token."""
    begin = 0
    for count in range(1, len(ids) + 1):
        text = decode(ids[:count])
        if text.endswith(INCOMPLETE):
            continue
        if count <= uncounted:
            begin = len(text)
        elif found := [at for s in stop if (at := text.find(s, begin)) >= 0]:
            return text[: min(found)]
    return None


def pieces(*parts: bytes) -> Decode:
    """Return a decoder of a vocabulary whose tokens hold any bytes."""

    def decode(ids: Sequence[int]) -> str:
        return b"".join(parts[i] for i in ids).decode(errors="replace")

    return decode


def test_messages_go_through_the_chat_template(tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "be the fox"}, {"role": "user", "content": "jump"}]
    got = tokenizer.encode(GenerationRequest(key=0, params=PARAMS, messages=messages))
    expected = "<|im_start|>system\nbe the fox<|im_end|>\n<|im_start|>user\njump<|im_end|>\n"
    assert got == ids_of(tokenizer, expected + "<|im_start|>assistant\n")


def test_token_ids_are_taken_as_they_are(tokenizer: Tokenizer) -> None:
    request = GenerationRequest(key=0, params=PARAMS, prompt_token_ids=[5, 6])
    assert tokenizer.encode(request) == [5, 6]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("Paris", [1, 3]), ("<s>Paris", [1, 3]), ("<s><s>Paris", [1, 1, 3]), ("</s>Paris", [1, 2, 3])],
)
@pytest.mark.parametrize("ends", [False, True])
def test_a_prompt_that_has_its_beginning_gets_no_second_one(
    tmp_path: Path, prompt: str, expected: list[int], ends: bool
) -> None:
    backend = Backend(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "Paris": 3}, "<unk>"))
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A" + " </s>" * ends, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    found = ids_of(saved(tmp_path, backend), prompt)
    assert found == expected + [2] * ends


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


def test_a_text_that_the_template_leaves_out_is_the_rows_error(tmp_path: Path) -> None:
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    tokenizer = with_template(tmp_path, template)
    error = refusal(
        tokenizer, [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]
    )
    assert (error.code, error.param) == ("template_error", "messages[1]")
    assert "'system'" in error.message


@pytest.mark.parametrize(
    ("template", "note"),
    [
        (CHAT_TEMPLATE, None),
        (None, None),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            None,
        ),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "no system"),
        (
            "{% if messages[0].role == 'user' %}{{ raise_exception('no') }}{% endif %}"
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            None,
        ),
        ("always the same", "no text of a user"),
    ],
)
def test_what_the_template_cannot_do_is_known_at_load(
    tmp_path: Path, template: str | None, note: str | None
) -> None:
    notes = with_template(tmp_path, template).notes
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel):
        Tokenizer(tmp_path)


class TestTokenBytes:
    def test_a_byte_level_vocabulary_spells_them(self, tokenizer: Tokenizer) -> None:
        specials = set(tokenizer.backend.all_special_ids)
        letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
        for token in range(len(tokenizer.backend)):
            name: str = tokenizer.backend.convert_ids_to_tokens(token)
            spelled = name.encode() if token in specials else bytes(letters[c] for c in name)
            assert tokenizer.token_bytes(token) == spelled
        assert {tokenizer.token_bytes(i) for i in range(360)} >= {bytes([i]) for i in range(256)}

    def test_an_id_of_the_model_alone_has_none(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.token_bytes(360) == tokenizer.token_bytes(10**6) == b""

    def test_ids_may_have_gaps(self, tmp_path: Path) -> None:
        backend = Backend(models.BPE({"</s>": 0, "ÿþ": 2, "Ġx": 7}, []))
        backend.decoder = decoders.ByteLevel()
        tokenizer = saved(tmp_path, backend)
        found = [tokenizer.token_bytes(token) for token in (0, 1, 2, 3, 7, 8)]
        assert found == [b"</s>", b"", b"\xff\xfe", b"", b" x", b""]

    def test_a_tokenizer_written_in_python_tells_text(self, tmp_path: Path) -> None:
        python: Any = ByT5Tokenizer()
        python.save_pretrained(tmp_path)
        tokenizer = Tokenizer(tmp_path)
        assert tokenizer.token_bytes(python("x")["input_ids"][0]) == b"x"
        assert tokenizer.token_bytes(10**6) == b""

    def test_a_vocabulary_without_bytes_tells_text(self, tmp_path: Path) -> None:
        backend = Backend(models.Unigram([("</s>", 0.0), ("été", -1.0), ("b", -1.0)], unk_id=0))
        backend.decoder = decoders.Metaspace()
        assert saved(tmp_path, backend).token_bytes(1).decode() == "été"


class TestContext:
    def answer(self, tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
        return read(tokenizer.decode, ids, before=tokenizer.context(prompt))

    def test_a_first_token_reads_as_it_does_behind_its_prompt(self, spaced: Tokenizer) -> None:
        assert spaced.decode([3, 4]) == "Paris is"
        assert self.answer(spaced, [3, 4], [3, 4]) == " Paris is"
        assert self.answer(spaced, [3, 4], [5]) == "s"
        assert self.answer(spaced, [3, 4] * 50, [6, 3]) == "  Paris"

    def test_special_tokens_between_are_no_text(self, spaced: Tokenizer) -> None:
        assert self.answer(spaced, [3, 2, 2, 1], [3]) == " Paris"
        assert self.answer(spaced, [1, 2], [3]) == "Paris"
        assert self.answer(spaced, [3] + [2] * 100, [3]) == "Paris"  # not looked for so far back

    def test_a_prompt_may_end_inside_a_character(self, spaced: Tokenizer) -> None:
        assert self.answer(spaced, [3, 7], [3]) == "Paris"
        assert self.answer(spaced, [3, 7, 8], [3]) == " Paris"

    def test_stop_strings_are_looked_for_in_that_text(self, spaced: Tokenizer) -> None:
        for stop, expected in (
            (" Paris", ""),
            ("is i", " Par"),
            ("s", " Pari"),
            ("Paris Paris", None),
        ):
            scanner = spaced.scanner([stop], spaced.context([3, 4]))
            found = [scanner.push(token) for token in (3, 4)]
            assert next((text for text in found if text is not None), None) == expected
        assert scanner.finish() == " Paris is"
        assert scanner.finish(ended=True) == " Paris"

    def test_a_stop_text_may_hold_special_tokens(self, spaced: Tokenizer) -> None:
        assert spaced.stop_tokens(["<end>", "s", "Paris<end>"]) == {2}
        scanner = spaced.scanner(["is<end>"], spaced.context([2, 3]))
        assert [scanner.push(token) for token in (1, 3, 2)] == [None, None, " Par"]
        other = spaced.scanner(["is<end>"], [])
        assert [other.push(token) for token in (1, 3, 1, 4)] == [None] * 4
        assert other.finish() == "Paris is"

    def test_a_byte_level_text_is_the_same_behind_anything(self, tokenizer: Tokenizer) -> None:
        ids = ids_of(tokenizer, " the dog 🎉")
        for prompt in ("", "one", "one 🎉", "<|im_end|>\n"):
            assert self.answer(tokenizer, ids_of(tokenizer, prompt), ids) == " the dog 🎉"


class TestStopScanner:
    def test_a_stop_string_may_span_tokens_and_end_inside_one(self, tokenizer: Tokenizer) -> None:
        ids = ids_of(tokenizer, "the lazy dog jumps")
        assert len(ids) < len("the lazy dog jumps")
        assert scan(tokenizer.decode, ids, "zy do") == "the la"
        assert scan(tokenizer.decode, ids, "zebra", "g ju", "dog") == "the lazy "
        assert scan(tokenizer.decode, ids, "cat") is None

    def test_a_stop_string_of_characters_that_span_tokens(self, tokenizer: Tokenizer) -> None:
        ids = ids_of(tokenizer, "one 🎉é two")
        assert scan(tokenizer.decode, ids, "🎉é") == "one "
        assert scan(tokenizer.decode, ids, "é t") == "one 🎉"

    def test_the_first_stop_string_of_the_text_wins(self) -> None:
        assert scan(pieces(b"abcdef"), [0], "ef", "cd") == "ab"
        assert scan(pieces(b"abc"), [0, 0], "ca", "bca") == "a"

    def test_tokens_that_do_not_count_stop_nothing(self) -> None:
        decode = pieces(b"stop", b" st", b"op")
        assert scan(decode, [0, 1, 2], "stop") == ""
        assert scan(decode, [0, 1, 2], "stop", uncounted=1) == "stop "
        # It begins in a token that does not count.
        assert scan(decode, [0, 1, 2], "stop", uncounted=2) is None
        assert scan(decode, [0, 1, 2, 0], "stop", uncounted=2) == "stop stop"

    def test_a_row_of_tokens_that_all_end_inside_a_character(self) -> None:
        decode = pieces(b"\xf0", b"\x9f\x8e\x89\xf0", b"\x9f\x8e\x89!")
        assert scan(decode, [0, *[1] * 19, 2], "🎉!") == "🎉" * 19

    def test_bytes_that_never_become_a_character_do_not_pile_up(self, tokenizer: Tokenizer) -> None:
        lone = ids_of(tokenizer, "é")[0]  # the first byte of two
        widths = []

        def decode(ids: Sequence[int]) -> str:
            widths.append(len(ids))
            return tokenizer.decode(ids)

        scanner = StopScanner(decode, ["!"])
        for _ in range(300):
            scanner.push(lone)
        assert max(widths) <= 2 * PARTIAL + 2
        assert scanner.push(ids_of(tokenizer, "!")[0]) is not None

    def test_the_work_for_a_token_does_not_grow_with_the_answer(self) -> None:
        widths = []

        def decode(ids: Sequence[int]) -> str:
            widths.append(len(ids))
            return "word " * len(ids)

        scanner = StopScanner(decode, ["never"])
        for _ in range(500):
            assert scanner.push(0) is None
        assert max(widths) <= 3

    def test_an_answer_without_a_stop_string_is_whole_in_the_end(self) -> None:
        decode = pieces(b"one ", b"\xf0\x9f", b"\x8e\x89", b". \xf0")
        scanner = StopScanner(decode, ["zzz"])
        assert [scanner.push(token) for token in (0, 1)] == [None, None]
        assert scanner.finish() == "one " + INCOMPLETE
        assert scanner.push(2) is None
        assert scanner.finish() == "one 🎉"

    def test_what_was_held_back_is_searched_in_the_end(self) -> None:
        scanner = StopScanner(pieces(b"one", b". \xf0"), [". "])
        assert [scanner.push(token) for token in (0, 1)] == [None, None]
        assert scanner.finish() == "one"

    def test_forks_go_on_independently(self) -> None:
        decode = pieces(b"a", b"bc", b"d")
        scanner = StopScanner(decode, ["abc", "ad"])
        assert scanner.push(0) is None
        child = scanner.fork()
        assert child.push(1) == ""
        assert scanner.push(0) is None
        assert scanner.push(2) == "a"
        assert scanner.finish() == "a"


@settings(max_examples=120, deadline=None)
@given(text=st.text(max_size=40), data=st.data())
def test_scanning_finds_what_searching_the_whole_text_finds(
    tokenizer: Tokenizer, text: str, data: st.DataObject
) -> None:
    text = text.replace("\ufffd", "?").encode("utf-8", "ignore").decode()
    stop = []
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop.append(text[start : start + data.draw(st.integers(1, 5))] or "~")
    ids = ids_of(tokenizer, text)
    uncounted = data.draw(st.integers(0, len(ids)))
    expected = search(tokenizer.decode, ids, *stop, uncounted=uncounted)
    assert scan(tokenizer.decode, ids, *stop, uncounted=uncounted) == expected


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.text("ab é🎉", min_size=1, max_size=3), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 4), min_size=60, max_size=60),
    stop=st.lists(st.text("ab é🎉", min_size=1, max_size=4), min_size=1, max_size=3),
    uncounted=st.integers(0, 10),
)
def test_tokens_may_hold_any_bytes(
    parts: list[str], cuts: list[int], stop: list[str], uncounted: int
) -> None:
    data, tokens = "".join(parts).encode(), []
    for size in cuts:
        tokens.append(data[:size])
        data = data[size:]
    tokens = [token for token in tokens if token]
    decode, ids = pieces(*tokens), list(range(len(tokens)))
    expected = search(decode, ids, *stop, uncounted=uncounted)
    assert scan(decode, ids, *stop, uncounted=uncounted) == expected


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(key=0, params=PARAMS, prompt="half \ud83d of a smile"),
        GenerationRequest(
            key=0, params=PARAMS, messages=[{"role": "user", "content": "half \ud83d of a smile"}]
        ),
    ],
)
def test_half_a_character_is_refused(tokenizer: Tokenizer, request_: GenerationRequest) -> None:
    error = tokenizer.encode(request_)
    assert isinstance(error, RowError) and error.code == "invalid_text"
    assert error.param == ("prompt" if request_.prompt is not None else "messages")
