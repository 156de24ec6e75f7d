"""One module for each command: it defines `command`, and imports heavy modules when it runs."""

from __future__ import annotations
