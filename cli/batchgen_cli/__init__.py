"""The batchgen command: click commands over the service and the local stack."""

from __future__ import annotations
