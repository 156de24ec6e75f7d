from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from batchgen.engine.config import EngineConfig, memory_bytes
from batchgen.errors import InvalidParameter
from batchgen.settings import EngineSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", 500),
        ("1.0", 1000),
        (".25", 250),
        ("64", 64),
        ("2K", 2048),
        ("1.5M", 3 * 2**19),
        ("2g", 2**31),
        ("1GiB", 2**30),
        (" 3 MB ", 3 * 2**20),
    ],
)
def test_memory_is_bytes_or_a_share_of_what_is_free(text: str, expected: int) -> None:
    assert memory_bytes(text, free=1000) == expected


@pytest.mark.parametrize("text", ["", "lots", "-1G", "1.5", "0.0", "2X", "1e9", "50%"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        memory_bytes(text, free=1000)


def test_every_engine_setting_reaches_the_config() -> None:
    settings = EngineSettings(block_size=8, threads=3, kv_memory="2G")
    config = EngineConfig.from_settings(settings, path=Path("/models/m"), name="m")
    assert (config.model_path, config.model_name) == (Path("/models/m"), "m")
    for name, value in settings.model_dump().items():
        assert getattr(config, name) == value


def test_defaults_are_those_of_the_settings() -> None:
    path = Path("/models/m")
    plain = EngineConfig(model_path=path, model_name="m")
    assert EngineConfig.from_settings(EngineSettings(), path=path, name="m") == plain


def test_a_config_crosses_a_process() -> None:
    config = EngineConfig(model_path=Path("/models/m"), model_name="m")
    data = msgspec.json.encode(config, enc_hook=str)
    back = msgspec.json.decode(data, type=EngineConfig, dec_hook=lambda _, value: Path(value))
    assert back == config
