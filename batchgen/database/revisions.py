"""The schema revisions this version of batchgen knows."""

from __future__ import annotations

#: Oldest first; Alembic's revision identifiers.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")

#: The revision this code reads and writes.
HEAD = REVISIONS[-1]

#: Alembic's own table.
VERSION_TABLE = "alembic_version"
