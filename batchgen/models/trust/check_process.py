"""The process that reads a fetched folder.

python -m batchgen.models.trust.check_process FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from batchgen.models.describe import describe
from batchgen.models.templates import check_templates
from batchgen.models.trust.confined import answer
from batchgen.models.trust.safety import check_files

# Bytes. Nothing but JSON and headers is read; a tokenizer.json of 33 MiB takes 400 MiB.
MEMORY = 1 << 30


def main(arguments: list[str]) -> int:
    """Check the folder and write what it says of itself; see `confined`."""
    return answer(lambda: inspect(Path(arguments[0])), memory=MEMORY)


def inspect(folder: Path) -> str:
    """Return the description of a folder as JSON; raise UnsafeModel or UnsupportedModel."""
    check_files(folder)
    check_templates(folder)
    return msgspec.json.encode(describe(folder)).decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
