from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import InvalidParameter
from batchgen.settings import Settings

KEY = 'api_key = "bg_mine"\n'
SERVER = 'url = "https://server"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a user file of their own, and no variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchgen.settings.USER_FILE", tmp_path / "user.toml")
    monkeypatch.delenv("BATCHGEN_HOME")
    return tmp_path


def test_the_flag_goes_before_the_environment_and_the_variable_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("user.toml").write_text("lease_ttl = 1\n[profile.night]\nlease_ttl = 2\ndrain_grace = 2\n")
    monkeypatch.setenv("BATCHGEN_LEASE_TTL", "3")
    assert (Settings(profile="night").lease_ttl, Settings().lease_ttl) == (2, 3)
    monkeypatch.setenv("BATCHGEN_PROFILE", "night")
    assert (Settings().lease_ttl, Settings().drain_grace) == (3, 2)
    monkeypatch.delenv("BATCHGEN_LEASE_TTL")
    assert Settings().lease_ttl == 2


def test_the_folder_s_table_goes_before_the_user_s(folder: Path) -> None:
    (folder / "user.toml").write_text("[profile.night]\nlease_ttl = 2\ndrain_grace = 2\n")
    (folder / "batchgen.toml").write_text("drain_grace = 1\n[profile.night]\nlease_ttl = 3\n")
    settings = Settings(profile="night")
    assert (settings.lease_ttl, settings.drain_grace, settings.profile) == (3, 2, "night")


def test_a_profile_holds_nested_settings(folder: Path) -> None:
    (folder / "batchgen.toml").write_text('[profile.gpu.engine]\ndevice = "cuda:1"\n')
    assert Settings(profile="gpu").engine.device == "cuda:1"
    assert Settings().engine.device == "auto"


def test_a_profile_that_no_file_has_is_named(folder: Path) -> None:
    (folder / "batchgen.toml").write_text("[profile.night]\nlease_ttl = 3\n")
    with pytest.raises(
        InvalidParameter, match=r"no profile 'nihgt'.*Did you mean 'night'"
    ) as caught:
        Settings(profile="nihgt")
    assert caught.value.param == "profile"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[profile.night]\nleese_ttl = 3\n", "no setting 'profile.night.leese_ttl'"),
        ('[profile.night]\nurl = ""\n', "profile.night.url is empty"),
        ('profile = "night"\n', "'profile' in batchgen.toml is no table"),
        ("[profile]\nnight = 3\n", "'profile' in batchgen.toml is no table"),
    ],
)
def test_every_profile_is_checked_whichever_is_chosen(
    folder: Path, text: str, message: str
) -> None:
    (folder / "batchgen.toml").write_text(text)
    with pytest.raises(InvalidParameter, match=message):
        Settings()


@pytest.mark.parametrize("place", ["batchgen.toml", ".env", "profile"])
@pytest.mark.parametrize("key", ["environment", "user", "profile of the user"])
def test_a_folder_cannot_ask_for_a_key_of_the_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, key: str
) -> None:
    """The files of a folder may be anybody's: a clone, a download."""
    if place == ".env":
        (folder / ".env").write_text("BATCHGEN_URL=https://elsewhere\n")
    else:
        table = "[profile.prod]\n" if place == "profile" else ""
        (folder / "batchgen.toml").write_text(f'{table}url = "https://elsewhere"\n')
    if key == "environment":
        monkeypatch.setenv("BATCHGEN_API_KEY", "bg_mine")
    (folder / "user.toml").write_text(
        "[profile.prod]\n" + KEY if key == "profile of the user" else KEY
    )
    with pytest.raises(InvalidParameter, match="sent only to the server that is set beside it"):
        Settings(profile="prod") if "profile" in f"{place} {key}" else Settings()


@pytest.mark.parametrize("where", ["batchgen.toml", "user.toml"])
def test_a_key_beside_its_server_is_used(folder: Path, where: str) -> None:
    (folder / where).write_text(SERVER + KEY)
    settings = Settings()
    assert (settings.url, settings.api_key) == ("https://server", "bg_mine")


def test_a_key_of_the_environment_goes_to_the_user_s_own_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "user.toml").write_text("[profile.prod]\n" + SERVER)
    monkeypatch.setenv("BATCHGEN_API_KEY", "bg_mine")
    assert Settings(profile="prod").api_key == "bg_mine"
