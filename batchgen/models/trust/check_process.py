"""The process that checks and describes a fetched folder.

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

# Bytes. Only JSON and headers are read; a tokenizer.json of 33 MiB needs 400 MiB.
MEMORY = 1 << 30


def main(arguments: list[str]) -> int:
    """Check the folder and write its description; see `confined`. Return the exit status."""
    return answer(lambda: inspect(Path(arguments[0])), memory=MEMORY)


def inspect(folder: Path) -> str:
    """Check a folder and return its description as JSON; raise UnsafeModel or UnsupportedModel."""
    check_files(folder)
    check_templates(folder)
    return msgspec.json.encode(describe(folder)).decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
