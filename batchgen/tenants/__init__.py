"""Those who use batchgen over the network: tenants, their keys, quotas and usage."""

from __future__ import annotations
