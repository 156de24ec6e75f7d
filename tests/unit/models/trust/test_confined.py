from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.trust.confined import run_confined
from tests.unit.models.folders import model_folder

# Python that works in such a process; {work} is the body of a function.
CHILD = """
import sys
from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.trust.confined import answer
def work():
    {work}
sys.exit(answer(work, memory=64 << 20))
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose module `child` is found by processes that are started."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "child.py"


def test_the_answer_comes_back(child: Path) -> None:
    child.write_text(CHILD.format(work="return 'é' + sys.argv[1]"))
    assert run_confined("child", "x") == "éx"


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        ("raise UnsafeModel('It is\\nbad.')", UnsafeModel, "It is bad."),
        ("raise UnsupportedModel('It is odd.')", UnsupportedModel, "It is odd."),
        ("return len([])[0]", UnsupportedModel, "TypeError: 'int' object is not subscriptable"),
        ("return bytes(1 << 30)", UnsafeModel, "It needs more than 64 MiB of memory."),
        ("import os; os._exit(9)", UnsupportedModel, "exit status 9"),
    ],
)
def test_an_error_keeps_its_kind_and_its_words(
    child: Path, work: str, error: type[Exception], message: str
) -> None:
    child.write_text(CHILD.format(work=work))
    with pytest.raises(error) as raised:
        run_confined("child")
    assert str(raised.value) == message
    assert type(raised.value) is error


IMPORT = """
import sys
from pathlib import Path
from batchgen.errors import UnsafeModel
from batchgen.models import Registry
try:
    Registry(Path(sys.argv[1])).import_model("tiny", sys.argv[2])
except UnsafeModel as error:
    print(error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def test_arrays_of_three_bytes_take_neither_the_machine_nor_the_caller(tmp_path: Path) -> None:
    """Each `[],` of JSON is three bytes, and more than sixty in Python."""
    folder = model_folder(tmp_path / "model", vocab_size=1 << 17)
    (folder / "tokenizer.json").write_bytes(b"[" + b"[]," * (20 << 20) + b"[]]")
    command = [sys.executable, "-c", IMPORT, str(tmp_path / "models"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, peak = done.stdout.splitlines()
    assert message == "It needs more than 1,024 MiB of memory."
    assert int(peak) < 200_000  # KiB
