from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import EmptyInput, InvalidInput
from batchgen.inputs.ingest import OnInvalid, ingest
from batchgen.inputs.stored_input import first_line, index_key, input_key
from batchgen.inputs.upload import InputUpload, Uploaded
from batchgen.storage.storage import LocalStorage

PIECES = st.lists(
    st.sampled_from(
        [
            b'{"prompt": "a"}',
            b'{"id"',
            b"\n",
            b"\r\n",
            b"\n\n",
            b" ",
            b"\t\n",
            b"x",
            b"\xef\xbb\xbf",
        ]
    ),
    max_size=12,
)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "home")


def upload(storage: LocalStorage, *pieces: bytes) -> Uploaded:
    with InputUpload(storage) as upload:
        for piece in pieces:
            upload.write(piece)
        return upload.finish()


def left_in(storage: LocalStorage) -> list[str]:
    return sorted(path.name for path in (storage.root / "inputs").iterdir())


@given(pieces=PIECES, cut=st.integers(min_value=1, max_value=7))
def test_it_stores_what_ingest_stores(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cut: int
) -> None:
    data = b"".join(pieces)
    ours = LocalStorage(tmp_path_factory.mktemp("ours"))
    theirs = LocalStorage(tmp_path_factory.mktemp("theirs"))
    try:
        expected = ingest(
            io.BytesIO(data + b"\n"),
            storage=theirs,
            defaults={},
            model="m",
            on_invalid=OnInvalid.ROW_ERROR,
        )
    except EmptyInput:
        with pytest.raises(EmptyInput):
            upload(ours, data)
        return
    except InvalidInput:  # ids that repeat, or another format: an upload does not look
        return
    found = upload(ours, *(data[at : at + cut] for at in range(0, len(data), cut)), b"\n")
    assert (found.sha256, found.bytes, found.n_rows) == (
        expected.sha256,
        expected.bytes,
        expected.n_rows,
    )
    for key in (input_key(found.sha256), index_key(found.sha256)):
        assert ours.path(key).read_bytes() == theirs.path(key).read_bytes()


def test_a_last_line_without_a_line_feed_is_a_row(storage: LocalStorage) -> None:
    found = upload(storage, b"\xef\xbb\xbfa\nb")
    assert found.n_rows == 2
    assert storage.path(input_key(found.sha256)).read_bytes() == b"\xef\xbb\xbfa\nb"
    assert first_line(storage, found.sha256) == b"a"
    offsets = storage.path(index_key(found.sha256)).read_bytes()
    assert offsets == b"".join(at.to_bytes(8, "little") for at in (3, 5, 6))


def test_it_is_named_by_its_bytes_and_nothing_else_is_left(storage: LocalStorage) -> None:
    found = upload(storage, b"{}\n", b"{}", b"\n\n \n")
    sha256 = hashlib.sha256(b"{}\n{}\n\n \n").hexdigest()
    assert (found.sha256, found.bytes, found.n_rows) == (sha256, 9, 2)
    assert left_in(storage) == [sha256, f"{sha256}.index"]


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_content_is_refused(storage: LocalStorage, data: bytes) -> None:
    with pytest.raises(EmptyInput):
        upload(storage, data)
    assert left_in(storage) == []


def test_an_upload_that_breaks_off_leaves_nothing(storage: LocalStorage) -> None:
    with pytest.raises(ConnectionError), InputUpload(storage) as begun:
        begun.write(b'{"prompt": "a"}\n')
        raise ConnectionError
    assert left_in(storage) == []


def test_an_upload_that_is_not_finished_leaves_nothing(storage: LocalStorage) -> None:
    with InputUpload(storage) as begun:
        begun.write(b'{"prompt": "a"}\n')
    assert left_in(storage) == []
