"""The data that a process needs to ask an endpoint: its record and the operator's bounds."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.endpoints.address import check_address
from batchgen.models.endpoint import Endpoint
from batchgen.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """One endpoint under an operator's settings; `EndpointSettings` explains the bounds."""

    endpoint: Endpoint
    timeout: float = 600.0  # seconds
    max_answer_bytes: int = 32 << 20
    ca_file: str = ""

    @classmethod
    def from_settings(cls, endpoint: Endpoint, settings: Settings) -> EndpointConfig:
        """Return the config of an endpoint; raise EndpointNotAllowed if it may not be asked."""
        check_address(endpoint.url, settings)
        bounds = settings.endpoint
        return cls(
            endpoint=endpoint,
            timeout=bounds.timeout,
            max_answer_bytes=bounds.max_answer_bytes,
            ca_file=bounds.ca_file,
        )
