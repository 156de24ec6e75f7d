from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GENERATOR = Path(__file__).parents[3] / "docs" / "generate_cli.py"


def generate(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def test_the_page_is_what_the_command_says() -> None:
    checked = generate(GENERATOR, "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The generator, with a page of its own."""
    script = tmp_path / GENERATOR.name
    script.write_bytes(GENERATOR.read_bytes())
    assert generate(script).returncode == 0
    return script


def test_a_stale_page_is_found(copy: Path) -> None:
    page = copy.with_name("cli.md")
    assert generate(copy, "--check").returncode == 0
    page.write_text(page.read_text(encoding="utf-8").replace("--priority", "--urgency"))
    assert generate(copy, "--check").returncode == 1
    page.unlink()
    assert generate(copy, "--check").returncode == 1


def test_every_command_is_on_the_page(copy: Path) -> None:
    page = copy.with_name("cli.md").read_text(encoding="utf-8")
    for command in ("submit", "models import", "db upgrade", "config show", "completion"):
        assert f"### batchgen {command}\n" in page
