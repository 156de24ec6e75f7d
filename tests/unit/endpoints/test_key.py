from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.endpoints.key import ApiKey
from batchgen.errors import InvalidParameter
from batchgen.models.endpoint import Endpoint


def at(**where: str) -> Endpoint:
    return Endpoint(url="http://localhost/v1", served_model="m", **where)  # type: ignore[arg-type]


def test_a_key_comes_from_a_variable_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", " sk-1\n")
    (tmp_path / "key").write_text("sk-2\n")
    assert ApiKey(at(api_key_env="A_KEY")).headers == {"Authorization": "Bearer sk-1"}
    from_file = ApiKey(at(api_key_file=str(tmp_path / "key")))
    (tmp_path / "key").write_text("sk-3\n")
    from_file.renew()
    assert from_file.headers == {"Authorization": "Bearer sk-3"}
    (tmp_path / "key").unlink()
    from_file.renew()
    assert from_file.headers == {"Authorization": "Bearer sk-3"}
    assert ApiKey(at()).headers == {}


def test_a_key_is_taken_out_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-1")
    key = ApiKey(at(api_key_env="A_KEY"))
    assert key.hidden("wrong key sk-1.") == "wrong key ***."
    assert "sk-1" not in repr(key)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "naïve", "x" * 5000])
def test_what_is_no_key_is_refused_without_being_shown(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", text)
    with pytest.raises(InvalidParameter) as refused:
        ApiKey(at(api_key_env="A_KEY"))
    assert not text.strip() or text not in refused.value.message
    with pytest.raises(InvalidParameter):
        ApiKey(at(api_key_file="/nowhere"))
