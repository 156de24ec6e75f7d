"""No answer, where every answer could be wrong.

client ──POST──► server ──COMMIT──► database, which is gone before it says whether that worked

An error would say that nothing was created, and a job could run all the same. So the connection
breaks off. A client that repeats the request with its idempotency key learns how it is.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batchgen.api.auth import READING
from batchgen.database.failures import Conflict
from batchgen.errors import DatabaseUnavailable

#: The extension of a server that can end a connection without an answer.
ABORT: Final = "batchgen.abort"


def is_undecided(request: Request, error: Exception) -> bool:
    """Return whether it is unknown if a request that failed has changed something.

    Without a known caller it has not begun. A Conflict is an error before the commit.
    """
    return (
        isinstance(error, DatabaseUnavailable)
        and not isinstance(error, Conflict)
        and request.method not in READING
        and hasattr(request.state, "principal")
        and ABORT in request.scope.get("extensions", {})
    )


class NoAnswer(Response):
    """Ends the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """End it, and wait until the server has noticed, so that it sends no error of its own."""
        scope["extensions"][ABORT]()
        while (await receive())["type"] != "http.disconnect":
            pass
