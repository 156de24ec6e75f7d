"""Write docs/openapi.json from the routes of the HTTP API.

python docs/generate_openapi.py            write it
python docs/generate_openapi.py --check    exit 1 where it is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from batchgen.api.app import create_app
from batchgen.api.openapi import document_of
from batchgen.service import Service
from batchgen.settings import Settings

TARGET = Path(__file__).with_name("openapi.json")


def document() -> str:
    """Return the text of the document; nothing is opened for it."""
    found = document_of(create_app(Service(Settings())))
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the document, or compare it with what is written; return the exit status."""
    if "--check" in arguments:
        return 0 if TARGET.read_text(encoding="utf-8") == document() else 1
    TARGET.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
