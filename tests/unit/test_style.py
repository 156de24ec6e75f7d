"""House rules that no linter checks: sizes, imports, and what must never be committed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT, name_of, python_files, text_files

MAX_FILE = 500  # lines
MAX_FUNCTION = 60  # lines, decorators not counted
QUESTIONS = {"How", "What", "Whether", "Where", "Which", "Who", "Why"}

# Spelled in halves, so that this file does not find itself.
FOLDERS = ("/wo" + "rk/", "/tm" + "p/w", "/ro" + "ot/(?!.cache)", "/ho" + "me/")
MACHINE_PATHS = re.compile(rf"(?<![\w}}])({'|'.join(FOLDERS)})")
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
LATER = re.compile("later iss" + "ue|iss" + "ue #?\\d+", re.IGNORECASE)

FILES = list(python_files())


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_the_repository_was_found() -> None:
    assert len(FILES) > 50
    assert ROOT / "batchgen" / "errors.py" in FILES


def test_files_fit_a_sitting() -> None:
    sizes = {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in FILES}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE} == {}


def test_functions_fit_a_screen() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {length(node)} lines"
        for path in FILES
        for node in functions(parse(path))
        if length(node) > MAX_FUNCTION
    ]
    assert long == []


def test_docstrings_begin_with_a_sentence_and_no_question() -> None:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    riddles = [
        f"{name_of(path)}: {text.splitlines()[0]}"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, documented)
        if (text := ast.get_docstring(node)) and text.partition(" ")[0] in QUESTIONS
    ]
    assert riddles == []


def test_annotations_are_never_evaluated() -> None:
    wanted = "from __future__ import annotations\n"
    missing = [
        name_of(path)
        for path in FILES
        if (text := path.read_text(encoding="utf-8")).strip() and wanted not in text
    ]
    assert missing == []


def test_imports_are_absolute() -> None:
    relative = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert relative == []


@pytest.mark.parametrize("folder", ["cli", "kernels", "migrations", "workers"])
def test_a_folder_holds_one_package_and_is_none(folder: str) -> None:
    packages = [path.parent.name for path in (ROOT / folder).glob("*/__init__.py")]
    assert packages == [f"batchgen_{folder}"]
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    "pattern", [MACHINE_PATHS, UNFINISHED, LATER], ids=["paths", "unfinished", "later"]
)
def test_nothing_of_the_workshop_is_committed(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []
