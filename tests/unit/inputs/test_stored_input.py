from __future__ import annotations

import io
from pathlib import Path

import pytest

from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import Corrupt
from batchgen.inputs.ingest import OnInvalid, ingest
from batchgen.inputs.stored_input import index_key, input_key, parse_rows, read_rows
from batchgen.requests.values.strict_json import MAX_LINE_BYTES
from batchgen.storage.storage import LocalStorage
from tests.support.permissions import writable

DATA = b'{"prompt": "a"}\n{"prompt": "b", "id": "q"}\r\n\n{"prompt": "d"}'


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def store(storage: LocalStorage, data: bytes) -> str:
    stored = ingest(
        io.BytesIO(data),
        storage=storage,
        defaults={},
        model="m",
        on_invalid=OnInvalid.ROW_ERROR,
    )
    return stored.sha256


def test_rows_are_read_by_position(storage: LocalStorage) -> None:
    sha256 = store(storage, DATA)
    assert list(read_rows(storage, sha256, 0, 4)) == list(enumerate(DATA.split(b"\n")))
    assert list(read_rows(storage, sha256, 1, 2)) == [(1, b'{"prompt": "b", "id": "q"}\r')]
    assert list(read_rows(storage, sha256, 2, 2)) == []


def test_rows_are_parsed_with_the_jobs_defaults(storage: LocalStorage) -> None:
    sha256 = store(storage, DATA)
    rows = list(parse_rows(storage, sha256, 0, 4, defaults={"max_tokens": 5}, model="m"))
    assert [(row.row, row.custom_id) for row in rows] == [
        (0, "row-0"),
        (1, "q"),
        (2, "row-2"),
        (3, "row-3"),
    ]
    assert isinstance(rows[2], BadRow)
    assert isinstance(rows[3], InputRow)
    assert (rows[3].prompt, rows[3].params.max_tokens) == ("d", 5)


def test_a_line_too_long_is_a_bad_row_again(storage: LocalStorage) -> None:
    sha256 = store(storage, b'{"prompt": "' + b"x" * (3 * MAX_LINE_BYTES) + b'"}\n{"prompt": "b"}')
    assert len(next(read_rows(storage, sha256, 0, 1))[1]) == MAX_LINE_BYTES + 1
    long, after = parse_rows(storage, sha256, 0, 2, defaults={}, model="m")
    assert isinstance(long, BadRow)
    assert long.error.code == "line_too_long"
    assert isinstance(after, InputRow)


@pytest.mark.parametrize("key", [input_key, index_key])
def test_missing_bytes_are_corrupt(storage: LocalStorage, key: type[str]) -> None:
    sha256 = store(storage, DATA)
    path = storage.path(key(sha256))
    writable(path).write_bytes(path.read_bytes()[:20])
    with pytest.raises(Corrupt):
        list(read_rows(storage, sha256, 0, 4))
    storage.delete(key(sha256))
    with pytest.raises(Corrupt, match="missing"):
        list(read_rows(storage, sha256, 0, 4))


def test_an_input_that_was_changed_is_found_before_a_row_of_it_is_read(
    storage: LocalStorage,
) -> None:
    sha256 = store(storage, DATA)
    assert len(list(read_rows(storage, sha256, 0, 4))) == 4
    path = storage.path(input_key(sha256))
    writable(path).write_bytes(DATA.replace(b"a", b"z"))
    with pytest.raises(Corrupt, match="changed"):
        next(read_rows(storage, sha256, 1, 2))
    writable(path).write_bytes(DATA)
    assert len(list(read_rows(storage, sha256, 0, 4))) == 4


def test_an_input_changed_while_it_is_read_gives_no_row_of_the_change(
    storage: LocalStorage,
) -> None:
    lines = b"\n".join(b'{"prompt": "a"}' for _ in range(1000))
    sha256 = store(storage, lines)
    rows = read_rows(storage, sha256, 0, 1000)
    seen = [next(rows)]
    writable(storage.path(input_key(sha256))).write_bytes(lines.replace(b"a", b"z"))
    with pytest.raises(Corrupt, match="changed"):
        seen.extend(rows)
    assert {raw for _, raw in seen} == {b'{"prompt": "a"}'}


def test_an_input_is_hashed_once(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = store(storage, DATA)
    list(read_rows(storage, sha256, 0, 4))
    monkeypatch.setattr("hashlib.file_digest", None)
    list(read_rows(storage, sha256, 0, 4))
