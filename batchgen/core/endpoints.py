"""The endpoints of OpenAI whose requests may be rows."""

from __future__ import annotations

from typing import Final

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
RESPONSES: Final = "/v1/responses"

#: In the order in which errors list them.
SERVED: Final = (CHAT, COMPLETIONS, RESPONSES)

_EMBEDDINGS: Final = "/v1/embeddings"


def endpoint_fault(endpoint: object) -> str | None:
    """Return why an endpoint cannot be used, as the end of a sentence; None if it can be used."""
    if endpoint in SERVED:
        return None
    served = f"{', '.join(SERVED[:-1])} or {SERVED[-1]}"
    if endpoint == _EMBEDDINGS:
        return f"cannot be {_EMBEDDINGS}: embeddings are not served. Use {served}."
    return f"must be {served}."
