"""Fault 57: model folders that would run code, read files, or take the machine's memory."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import ModelError
from batchgen.models.registry import Registry
from batchgen.settings import Settings
from batchgen_workers.engine_process.process import ENGINE
from tests.support.cluster import Toll
from tests.support.messages import Canary
from tests.support.permissions import writable
from tests.support.processes import processes
from tests.support.tiny_models import tiny_llama

Attack = Callable[[Path, Path], None]

CODE = "from pathlib import Path\nPath({canary!r}).touch()\nclass Model: pass\n"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
TEMPLATES = {
    "template that reads files": "{{ cycler.__init__.__globals__.os.popen('touch CANARY') }}",
    "template that looks for classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "template that loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "template that swells": "{{ 'x' * 10 ** 10 }}",
}


def changed(name: str, **values: Any) -> Attack:
    """Set keys of a JSON file."""

    def attack(folder: Path, canary: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))

    return attack


def written(name: str, content: bytes) -> Attack:
    """Write a file, over what is there."""

    def attack(folder: Path, canary: Path) -> None:
        (folder / name).write_bytes(content)

    return attack


def auto_map(folder: Path, canary: Path) -> None:
    """Bring code, and a configuration that has it loaded."""
    (folder / "modeling.py").write_text(CODE.format(canary=str(canary)))
    changed("config.json", auto_map={"AutoModelForCausalLM": "modeling.Model"})(folder, canary)


def pickled(suffix: str) -> Attack:
    """Bring weights that run code when they are read."""

    def attack(folder: Path, canary: Path) -> None:
        (folder / f"pytorch_model{suffix}").write_bytes(pickle.dumps(Canary(canary)))

    return attack


def linked(folder: Path, canary: Path) -> None:
    """Point at a file elsewhere."""
    (folder / "secret.json").symlink_to("/etc/passwd")


def template(source: str) -> Attack:
    """Bring a chat template."""

    def attack(folder: Path, canary: Path) -> None:
        text = source.replace("CANARY", str(canary))
        (folder / "chat_template.jinja").write_text(text)

    return attack


def index(*names: object) -> Attack:
    """Bring an index that has weights loaded from files of these names."""

    def attack(folder: Path, canary: Path) -> None:
        shutil.copyfile(folder / "model.safetensors", folder.parent / "other.safetensors")
        found = [
            name.replace("OUT", str(folder.parent)) if isinstance(name, str) else name
            for name in names
        ]
        weights = {f"weight.{number}": name for number, name in enumerate(found)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))

    return attack


def adapter(folder: Path, canary: Path) -> None:
    """Bring the configuration of an adapter, which names another model to load."""
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../other"}')


def large_tokenizer(folder: Path, canary: Path) -> None:
    """Bring a tokenizer of 261 MB for a vocabulary of some hundred tokens."""
    with (folder / "tokenizer.json").open("ab") as file:
        file.truncate(261_000_000)


ATTACKS: dict[str, Attack] = {
    "auto_map and code": auto_map,
    "auto_map alone": changed("tokenizer_config.json", auto_map={"AutoTokenizer": "x--y.T"}),
    **{f"pickle {suffix}": pickled(suffix) for suffix in PICKLES},
    "a link that leads out": linked,
    "a huge config": written("config.json", b'{"a": "' + b"x" * (2 << 20) + b'"}'),
    "a deep config": written("config.json", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a config of ten million layers": changed("config.json", num_hidden_layers=10**7),
    "a config of a terabyte": changed("config.json", hidden_size=1 << 18, vocab_size=1 << 22),
    "a config of wide heads": changed("config.json", num_attention_heads=4_096, head_dim=1 << 14),
    "a config of a wide inner layer": changed("config.json", intermediate_size=1 << 21),
    "a config of a million experts": changed("config.json", num_layers=64, num_experts=1 << 14),
    "an index that leads up": index("model.safetensors", "../other.safetensors"),
    "an index of absolute names": index("OUT/other.safetensors"),
    "an index of lists": index(["model.safetensors"]),
    "an index that is a list": written("model.safetensors.index.json", b"[]"),
    "weights named by the config": changed("config.json", transformers_weights="../o.safetensors"),
    "a tokenizer named elsewhere": changed("tokenizer_config.json", tokenizer_file="../t.json"),
    "versions of a tokenizer": changed("tokenizer_config.json", fast_tokenizer_files=["/t.4.json"]),
    "an end that is a list of lists": written("generation_config.json", b'{"eos_token_id": [[2]]}'),
    "an adapter": adapter,
    "a tokenizer of 261 MB": large_tokenizer,
    "a number of 5,000 digits": written("config.json", b'{"a": ' + b"9" * 5_000 + b"}"),
    "weights with a header of 1 TiB": written("model.safetensors", b"\0\0\0\0\0\1\0\0" + b"{}"),
    **{name: template(source) for name, source in TEMPLATES.items()},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that nobody has touched."""
    return tiny_llama(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.mark.fault(57, "model folders with code, pickles, bombs, links, templates")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_57_a_hostile_model_is_refused_before_it_is_loaded(
    sound: Path, tmp_path: Path, canary: Path, toll: Toll, attack: Attack
) -> None:
    toll.injections = 1
    folder = tmp_path / "model"
    shutil.copytree(sound, folder)
    registry = Registry(tmp_path / "models")
    registry.import_model("sound", folder)
    attack(folder, canary)
    with pytest.raises(ModelError):
        registry.import_model("hostile", folder)
    assert registry.names() == ["sound"]
    assert not canary.exists()


@pytest.mark.fault(57, "weights of a registered model led elsewhere")
@pytest.mark.parametrize("attack", ["a link", "an index"])
def test_57_weights_led_out_of_a_registered_model_are_not_loaded(
    sound: Path, tmp_path: Path, canary: Path, toll: Toll, broker_url: str, attack: str
) -> None:
    toll.injections = 1
    home = tmp_path / "home"
    path = Registry(home / "models").import_model("tiny", sound).path
    weights = path / "model.safetensors"
    if attack == "a link":
        weights.rename(tmp_path / "other.safetensors")
        weights.symlink_to(tmp_path / "other.safetensors")
    else:
        index("../other.safetensors")(path, canary)
    with processes(Settings(home=home, broker_url=broker_url), tmp_path) as started:
        worker = started.worker(ENGINE)
        assert worker.wait() == ModelError.exit_code
        assert worker.said(
            "leads out of the folder" if attack == "a link" else "not part of the model"
        )
    assert Registry(home / "models").verify("tiny") != []


@pytest.mark.fault(57, "code put into a model that is registered")
def test_57_code_put_into_a_registered_model_is_not_run(
    sound: Path, tmp_path: Path, canary: Path, toll: Toll, broker_url: str
) -> None:
    toll.injections = 2
    home = tmp_path / "home"
    record = Registry(home / "models").import_model("tiny", sound)
    for file in record.path.iterdir():
        writable(file)
    auto_map(record.path, canary)
    (record.path / "model.safetensors").unlink()
    pickled(".bin")(record.path, canary)
    with processes(Settings(home=home, broker_url=broker_url), tmp_path) as started:
        worker = started.worker(ENGINE)
        assert worker.wait() == ModelError.exit_code
        assert worker.said("modeling.py is code")
    assert not canary.exists()
    assert Registry(home / "models").verify("tiny") != []
