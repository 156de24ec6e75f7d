from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.trust.jsons import MAX_CONFIG, MAX_SETTINGS
from batchgen.models.trust.safety import (
    MAX_TEMPLATE,
    PER_TOKEN,
    VOCABULARY_FLOOR,
    check_files,
    scan_folder,
)
from tests.unit.models.folders import model_folder, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def test_a_sound_folder_passes(folder: Path) -> None:
    scan_folder(folder)
    check_files(folder)


@pytest.mark.parametrize(
    "name",
    [
        "modeling_x.py",
        "Modeling.PY",
        "pytorch_model.bin",
        "model.pt",
        "model.pth",
        "weights.pkl",
        "epoch.ckpt",
        "tf_model.h5",
        "flax_model.msgpack",
        "deep/down/payload.so",
    ],
)
def test_code_and_pickles_are_refused_wherever_they_lie(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(UnsafeModel, match=path.name):
        scan_folder(folder)


def test_a_link_that_leads_out_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder / "extra.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UnsafeModel, match=r"extra\.json is a link"):
        scan_folder(folder)


def test_a_linked_folder_is_refused_and_not_entered(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "sub").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(UnsafeModel, match="sub is a link"):
        scan_folder(folder)


def test_a_link_inside_the_folder_is_fine(folder: Path) -> None:
    (folder / "alias.json").symlink_to("config.json")
    scan_folder(folder)


@pytest.mark.parametrize(
    "extra",
    [
        {"auto_map": {"AutoModel": "modeling.Model"}},
        {"nested": [{"deeper": {"auto_map": ["tokenization.Tokenizer", None]}}]},
        {"custom_pipelines": {"mine": {"impl": "pipeline.Mine"}}},
        {"trust_remote_code": True},
    ],
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "other.json"])
def test_keys_that_load_code_are_refused_in_any_json(
    folder: Path, file: str, extra: dict[str, Any]
) -> None:
    write_json(folder / file, {"architectures": ["LlamaForCausalLM"], **extra})
    with pytest.raises(UnsafeModel, match=file):
        check_files(folder)


def test_a_token_of_that_name_is_no_code(folder: Path) -> None:
    write_json(folder / "vocab.json", {"auto_map": 17, "trust_remote_code": 1000})
    check_files(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[]"),
        ("config.json", b"[" * 100_000),
        ("config.json", b" " * (MAX_CONFIG + 1)),
        ("tokenizer_config.json", b" " * (MAX_SETTINGS + 1)),
        ("chat_template.jinja", b" " * (MAX_TEMPLATE + 1)),
    ],
)
def test_unusable_or_oversized_files_are_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UnsafeModel, match=name):
        check_files(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("hidden_size", 0),
        ("hidden_size", -1),
        ("vocab_size", "many"),
        ("vocab_size", True),
        ("max_position_embeddings", 1e300),
        ("n_layer", 10**7),
        ("n_routed_experts", 10**8),
        ("head_dim", 10**9),
        ("ffn_dim", -5),
    ],
)
def test_absurd_sizes_are_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = model_folder(tmp_path / "model", **{key: value})
    with pytest.raises(UnsafeModel, match=key):
        check_files(folder)


def test_absurd_sizes_are_found_in_the_text_part_too(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", text_config={"num_hidden_layers": 10**6})
    with pytest.raises(UnsafeModel, match="num_hidden_layers"):
        check_files(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 1 << 18, "vocab_size": 1 << 23},
        {"hidden_size": 1 << 14, "num_hidden_layers": 1_024},
        {"hidden_size": None, "n_embd": 1 << 14, "n_layer": 1_000, "n_inner": None},
        {"text_config": {"d_model": 1 << 16, "vocab_size": 1 << 20}},
        {"num_attention_heads": 4_096, "head_dim": 1 << 16},
        {"intermediate_size": 1 << 21, "num_hidden_layers": 64},
        {"num_experts": 1 << 10, "moe_intermediate_size": 1 << 15},
    ],
)
def test_more_weights_than_the_files_can_hold_are_refused(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    folder = model_folder(tmp_path / "model", **config)
    with pytest.raises(UnsafeModel, match="weights"):
        check_files(folder)


def test_more_experts_than_any_model_has_are_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", num_hidden_layers=1_024, num_experts=1 << 14)
    with pytest.raises(UnsafeModel, match="experts"):
        check_files(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "tokenizer.model", "merges.txt"])
def test_a_tokenizer_is_bounded_by_the_models_vocabulary(folder: Path, name: str) -> None:
    limit = VOCABULARY_FLOOR + 8 * PER_TOKEN
    with (folder / name).open("wb") as file:
        file.truncate(limit + 1)
    with pytest.raises(UnsafeModel, match=f"{name} has {limit + 1:,} bytes; at most {limit:,}"):
        check_files(folder)


def test_quantised_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", quantization_config={"quant_method": "gptq"})
    with pytest.raises(UnsupportedModel, match="quantised"):
        check_files(folder)


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"no config\.json"):
        check_files(tmp_path)
