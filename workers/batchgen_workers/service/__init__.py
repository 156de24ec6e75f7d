"""The long-lived processes: worker, coordinator, local stack."""

from __future__ import annotations
