"""A model that lies behind an HTTP endpoint: where it is, and what it is called there."""

from __future__ import annotations

import hashlib

import msgspec

from batchgen.core.dialects import Dialect

#: Stands for the context of a model whose endpoint does not tell it; tokens.
UNKNOWN_CONTEXT = 1 << 20
MAX_CONCURRENCY = 128  # requests at once, unless the user says otherwise
ARCHITECTURE = "endpoint"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it is registered. It names where the API key is, and never holds the key."""

    # Base URL, with the /v1 of OpenAI's API.
    url: str
    # The model's name at the endpoint.
    served_model: str
    dialect: Dialect = Dialect.OPENAI
    # The `model` of its answers, if that is another name; None if it was not asked yet.
    answers_as: str | None = None
    # Where the API key is: an environment variable or a file; None if no key is needed.
    api_key_env: str | None = None
    api_key_file: str | None = None
    # The most requests at once.
    max_concurrency: int = MAX_CONCURRENCY

    def sha256(self) -> str:
        """Return the identity of the model, as far as an endpoint tells it.

        It is the same after the server has moved: no address is in it.
        """
        return hashlib.sha256(f"endpoint {self.dialect} {self.served_model}\n".encode()).hexdigest()
