from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.core.rows import BadRow
from batchgen.errors import BadLines, EmptyInput, InvalidInput, InvalidParameter
from batchgen.inputs.ingest import (
    OnInvalid,
    StoredInput,
    ValidationReport,
    ingest,
    validate,
)
from batchgen.inputs.stored_input import index_key, input_key, parse_rows
from batchgen.requests.other_models import MAX_NAMES, OtherModels
from batchgen.requests.values.strict_json import MAX_LINE_BYTES
from batchgen.storage.storage import LocalStorage
from tests.support.permissions import writable

GOOD = b'{"prompt": "a", "id": "x"}\n{"messages": [{"role": "user", "content": "b"}]}\n'
LINES = st.sampled_from(
    [
        b'{"prompt": "a"}',
        b'{"prompt": "a", "id": "q"}',
        b'{"prompt": 5, "id": "q"}',
        b'{"prompt": "a", "id": "row-1"}\r',
        b"",
        b"{",
    ]
)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "home")


def store(
    storage: LocalStorage, source: bytes | BinaryIO, on_invalid: OnInvalid = OnInvalid.REFUSE
) -> StoredInput:
    return ingest(
        io.BytesIO(source) if isinstance(source, bytes) else source,
        storage=storage,
        defaults={},
        model="m",
        on_invalid=on_invalid,
    )


def left_behind(storage: LocalStorage) -> list[str]:
    return sorted(str(p.relative_to(storage.root)) for p in storage.root.rglob("*") if p.is_file())


def pipe(data: bytes) -> BinaryIO:
    """A stream that cannot be read twice; `data` must fit a pipe's buffer."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(data)
    return os.fdopen(reader, "rb")


def test_bytes_are_stored_by_content_beside_their_index(storage: LocalStorage) -> None:
    stored = store(storage, GOOD)
    sha256 = hashlib.sha256(GOOD).hexdigest()
    assert stored == StoredInput(
        sha256=sha256, bytes=len(GOOD), n_rows=2, n_bad=0, lengths=stored.lengths
    )
    assert storage.path(input_key(sha256)).read_bytes() == GOOD
    offsets = np.frombuffer(storage.path(index_key(sha256)).read_bytes(), "<u8")
    assert offsets.tolist() == [0, GOOD.index(b"\n") + 1, len(GOOD)]
    assert left_behind(storage) == [input_key(sha256), index_key(sha256)]


def test_a_pipe_is_stored_the_same(storage: LocalStorage) -> None:
    with pipe(GOOD) as source:
        assert store(storage, source) == store(storage, GOOD)


def test_the_same_bytes_again_heal_what_was_damaged(storage: LocalStorage) -> None:
    first = store(storage, GOOD)
    for key in (input_key(first.sha256), index_key(first.sha256)):
        before = storage.path(key).read_bytes()
        writable(storage.path(key)).write_bytes(b"damaged")
        assert store(storage, GOOD) == first
        assert storage.path(key).read_bytes() == before
    assert len(left_behind(storage)) == 2


def test_bad_lines_refuse_the_input(storage: LocalStorage) -> None:
    with pytest.raises(BadLines) as caught:
        store(storage, GOOD + b"{\n")
    assert caught.value.total == 1
    assert "line 3" in caught.value.message
    assert left_behind(storage) == []


def test_bad_lines_can_become_error_rows(storage: LocalStorage) -> None:
    stored = store(storage, GOOD + b"{\n", OnInvalid.ROW_ERROR)
    assert (stored.n_rows, stored.n_bad) == (3, 1)
    rows = list(parse_rows(storage, stored.sha256, 0, 3, defaults={}, model="m"))
    assert [isinstance(row, BadRow) for row in rows] == [False, False, True]


@pytest.mark.parametrize("policy", OnInvalid)
def test_repeated_ids_always_refuse_the_input(storage: LocalStorage, policy: OnInvalid) -> None:
    with pytest.raises(BadLines, match="line 1"):
        store(storage, GOOD[:27] * 2, policy)
    assert left_behind(storage) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", EmptyInput), (b"\xef\xbb\xbf", EmptyInput), (b"\x1f\x8b\x08\0", InvalidInput)],
)
def test_what_holds_no_lines_leaves_nothing_behind(
    storage: LocalStorage, data: bytes, error: type[InvalidInput]
) -> None:
    with pytest.raises(error):
        store(storage, data)
    assert left_behind(storage) == []
    with pytest.raises(error):
        validate(io.BytesIO(data), defaults={})


class Interrupted(io.BytesIO):
    """A source in the middle of which the user presses Ctrl-C."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise KeyboardInterrupt
        return super().read(40)


def test_an_interrupted_ingest_leaves_nothing_behind(storage: LocalStorage) -> None:
    with pytest.raises(KeyboardInterrupt):
        store(storage, Interrupted(GOOD))
    assert left_behind(storage) == []


def test_defaults_are_checked_before_anything_is_read(storage: LocalStorage) -> None:
    with pytest.raises(InvalidParameter):
        validate(Interrupted(), defaults={"temperature": 9})
    with pytest.raises(InvalidParameter):
        ingest(
            Interrupted(),
            storage=storage,
            defaults={"n": 0},
            model="m",
            on_invalid=OnInvalid.REFUSE,
        )


def test_a_report_of_everything_wrong() -> None:
    data = GOOD + b'{"prompt": "c", "id": "x"}\n\n{"prompt": "d"}\n'
    report = validate(io.BytesIO(data), defaults={})
    assert (report.n_rows, report.n_bad) == (5, 2)
    assert [(each.line, each.code) for each in report.problems] == [
        (3, "duplicate_custom_id"),
        (4, "blank_line"),
    ]


def test_validation_begins_where_the_source_stands() -> None:
    source = io.BytesIO(b"not read\n" + GOOD[:27] * 2)
    source.seek(9)
    report = validate(source, defaults={})
    assert [each.line for each in report.problems] == [2]


def test_a_pipe_is_validated_the_same() -> None:
    data = GOOD + GOOD[:27]
    with pipe(data) as source:
        assert validate(source, defaults={}) == validate(io.BytesIO(data), defaults={})


def test_validation_knows_the_model() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "b"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    data = json.dumps(line).encode()
    assert validate(io.BytesIO(data), defaults={}) == ValidationReport(
        n_rows=1, n_bad=0, problems=[]
    )
    report = validate(io.BytesIO(data), defaults={}, model="other")
    assert (report.n_bad, report.other_models) == (0, OtherModels(lines=1, names={"m": 1}))


def test_lines_of_other_models_are_counted_once(storage: LocalStorage) -> None:
    asked = ["a", "b", "m", "a", None, "m", "a"]
    lines = [
        {
            "custom_id": f"{row}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"prompt": "x"} | ({"model": model} if model else {}),
        }
        for row, model in enumerate(asked)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = store(storage, data).other_models
    assert found == OtherModels(lines=4, names={"a": 3, "b": 1})
    assert found.notice("m") == "4 lines name another model ('a' 3, 'b' 1); m answers them"


def test_the_names_of_other_models_are_bounded() -> None:
    found = OtherModels()
    for number in range(1000):
        found.add(f"model-{number}")
    assert (found.lines, len(found.names)) == (1000, MAX_NAMES)
    assert str(found.notice("m")).endswith("'model-10' 1, …); m answers them")
    assert OtherModels().notice("m") is None


def test_answers_must_fit_the_models_context(storage: LocalStorage) -> None:
    data = b'{"prompt": "a", "max_tokens": 7}\n{"prompt": "a", "max_tokens": 8}\n'
    assert validate(io.BytesIO(data), defaults={}).n_bad == 0
    [problem] = validate(io.BytesIO(data), defaults={}, context=8).problems
    assert (problem.line, problem.code) == (2, "context_length_exceeded")
    with pytest.raises(BadLines, match="line 2"):
        ingest(
            io.BytesIO(data),
            storage=storage,
            defaults={},
            model="m",
            on_invalid=OnInvalid.REFUSE,
            context=8,
        )
    with pytest.raises(InvalidParameter):
        validate(io.BytesIO(data), defaults={"max_tokens": 8}, context=8)


@given(st.lists(LINES, min_size=1, max_size=8).map(b"\n".join) | st.binary(min_size=1, max_size=80))
def test_any_bytes_are_as_many_rows_as_records(data: bytes) -> None:
    try:
        report = validate(io.BytesIO(data), defaults={})
    except InvalidInput:  # no record at all, or another format
        return
    records = data.split(b"\n")
    while not records[-1].strip():  # blank lines at the end are no rows
        records.pop()
    assert report.n_rows == len(records)
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        try:
            stored = store(storage, data, OnInvalid.ROW_ERROR)
        except BadLines as refused:
            assert all(each.code == "duplicate_custom_id" for each in refused.problems)
            return
        assert (stored.n_rows, stored.n_bad) == (report.n_rows, report.n_bad)
        index = storage.path(index_key(stored.sha256))
        assert index.stat().st_size == 8 * (stored.n_rows + 1)
        rows = list(parse_rows(storage, stored.sha256, 0, stored.n_rows, defaults={}, model="m"))
        assert sum(isinstance(row, BadRow) for row in rows) == report.n_bad
        assert len({row.custom_id for row in rows}) == len(rows) == stored.n_rows


class Endless(io.RawIOBase):
    """A pipe that never ends; how much of it was read is what its copies hold."""

    n_read = 0

    def read(self, size: int = -1, /) -> bytes:
        data = (
            GOOD
            if not self.n_read
            else b'{"prompt": "'
            if self.n_read == len(GOOD)
            else b"x" * size
        )
        self.n_read += len(data)
        return data

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("policy", "most"), [(OnInvalid.REFUSE, MAX_LINE_BYTES), (OnInvalid.ROW_ERROR, 64 << 20)]
)
def test_an_endless_line_fills_no_disk(storage: LocalStorage, policy: OnInvalid, most: int) -> None:
    source = Endless()
    with pytest.raises(InvalidInput, match=r"[Ll]ine 3"):
        store(storage, cast("BinaryIO", source), policy)
    assert most < source.n_read < most + (1 << 20)
    assert left_behind(storage) == []


def test_validation_ends_with_an_endless_line() -> None:
    report = validate(cast("BinaryIO", Endless()), defaults={})
    assert (report.n_rows, report.n_bad, report.ended_early) == (3, 1, True)
    assert [problem.code for problem in report.problems] == ["line_too_long"]
