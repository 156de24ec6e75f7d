from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from batchgen.engine.decoding.tokenizer import Tokenizer
from batchgen.engine.network.loading import context_length, load_config, load_network, pinned_length
from batchgen.engine.network.model import CausalModel
from batchgen.errors import UnsafeModel, UnsupportedModel
from tests.support.tiny_models import tiny_llama, tiny_model
from tests.unit.engine.conftest import config_of, make_engine, request, run, tokens_of

CPU = torch.device("cpu")


def load(path: Path) -> Any:
    return load_network(path, dtype=torch.float32, device=CPU)


def edit_config(path: Path, **changes: Any) -> Path:
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no model that transformers knows"):
        load_config(tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    edit_config(tiny_llama(tmp_path), model_type="quantum_llama")
    with pytest.raises(UnsupportedModel, match="quantum_llama"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("\nTimm is required.\n`pip install timm`"), "Timm is required. .*Install"),
        (AttributeError("no rope_theta"), "AttributeError: no rope_theta. Compare"),
        (TypeError("empty() takes 1 argument"), "TypeError: empty.* Compare"),
    ],
)
def test_whatever_transformers_raises_is_a_refusal_with_a_remedy(
    llama: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    parts = (
        ("AutoConfig", load_config),
        ("AutoModelForCausalLM", load),
        ("AutoTokenizer", Tokenizer),
    )
    for loader, step in parts:
        with monkeypatch.context() as patch:
            patch.setattr(getattr(transformers, loader), "from_pretrained", fail)
            with pytest.raises(UnsupportedModel, match=message):
                step(llama)


def test_missing_weights_are_refused_not_drawn_at_random(tmp_path: Path) -> None:
    file = tiny_llama(tmp_path) / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=r"layers\.1\.self_attn\.k_proj"):
        load(tmp_path)


def test_a_bias_that_the_config_denies_is_not_dropped(tmp_path: Path) -> None:
    edit_config(tiny_llama(tmp_path, attention_bias=True), attention_bias=False)
    with pytest.raises(UnsupportedModel, match=r"does not use model\.layers\.0\.self_attn\.k_proj"):
        load(tmp_path)


def test_weights_of_parts_that_compute_no_text_are_left_out(tmp_path: Path) -> None:
    file = tiny_llama(tmp_path) / "model.safetensors"
    weights = load_file(file)
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    extra = {"vision_tower.layers.0.weight": torch.ones(4), **frequencies}
    save_file({**weights, **extra}, file, metadata={"format": "pt"})
    load(tmp_path)


def test_weights_in_another_format_than_safetensors_are_refused(tmp_path: Path) -> None:
    file = tiny_llama(tmp_path) / "model.safetensors"
    torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(UnsafeModel, match=r"pytorch_model\.bin"):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": 1 << 16},
        {"intermediate_size": 1 << 20},
        {"vocab_size": 1 << 20},
        {"num_hidden_layers": 1_000, "hidden_size": 512},
    ],
)
def test_a_claim_of_more_weights_than_the_files_hold_is_refused_before_they_are_made(
    tmp_path: Path, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_config(tiny_llama(tmp_path), **changes)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(UnsupportedModel, match="and the safetensors files hold"):
        load(tmp_path)


def test_tables_of_a_claimed_length_are_refused(tmp_path: Path) -> None:
    edit_config(tiny_model(tmp_path, "gptj"), n_positions=1 << 26)
    with pytest.raises(UnsupportedModel, match="tables of"):
        load(tmp_path)


def test_weights_outside_of_the_folder_are_not_opened(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    names = load_file(tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeModel, match="no plain name"):
        load(folder)


def test_code_of_a_model_folder_is_not_run(tmp_path: Path) -> None:
    edit_config(
        tiny_llama(tmp_path),
        model_type="own",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )
    with pytest.raises(UnsupportedModel):
        load_config(tmp_path)
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsafeModel):
        load_config(tmp_path)


def test_the_context_is_the_configs(tmp_path: Path) -> None:
    assert context_length(load_config(tiny_llama(tmp_path))) == 256


def test_ordinary_rotary_embeddings_need_no_limit(llama: Path) -> None:
    assert pinned_length(load(llama)) is None


ROPES = {
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 64,
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
}


@pytest.mark.parametrize(("kind", "length"), [("longrope", 64), ("dynamic", 256)])
def test_rotary_embeddings_that_look_at_the_batch_limit_the_context(
    tmp_path: Path, kind: str, length: int
) -> None:
    path = tiny_llama(tmp_path, rope_parameters=ROPES[kind])
    model = CausalModel.load(config_of(path))
    assert model.max_length == length
    assert any("rotary" in note for note in model.notes) == (length < 256)


def test_a_short_row_is_the_same_beside_a_long_one(tmp_path: Path) -> None:
    engine = make_engine(tiny_llama(tmp_path, rope_parameters=ROPES["longrope"]))
    short, long = request(0, [5, 6, 7], max_tokens=8), request(1, [9] * 60, max_tokens=4)
    alone = tokens_of(run(engine, short)[0])
    assert tokens_of(run(engine, long, short)[0]) == alone
