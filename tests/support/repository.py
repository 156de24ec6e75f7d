"""Finds the repository's own files, for the tests that read them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: The import roots and the folders that hold them.
PACKAGES = {
    "batchgen": ROOT,
    "batchgen_cli": ROOT / "cli",
    "batchgen_kernels": ROOT / "kernels",
    "batchgen_migrations": ROOT / "migrations",
    "batchgen_workers": ROOT / "workers",
}
FOLDERS = ("batchgen", "benchmarks", "cli", "examples", "kernels", "migrations", "tests", "workers")
TEXTS = (".md", ".toml", ".txt", ".yaml", ".yml", ".jsonl", ".sql", ".cpp", ".h")


def python_files() -> Iterator[Path]:
    """Yield every Python file of the repository."""
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def text_files() -> Iterator[Path]:
    """Yield every text file of the repository: sources, documents, build files."""
    yield from python_files()
    for folder in (*FOLDERS, "docker", "docs"):
        for suffix in TEXTS:
            yield from sorted((ROOT / folder).rglob(f"*{suffix}"))
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXTS)
    yield from (ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "docker" / "Dockerfile")


def pyproject() -> dict[str, Any]:
    """Return the parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """Return a path as the repository's reader would write it."""
    return path.relative_to(ROOT).as_posix()
