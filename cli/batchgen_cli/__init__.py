"""The batchgen command: click commands that call the service and the local stack."""

from __future__ import annotations
