"""A stored file as an answer, whose refusals of a range have the shape of all errors."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from batchgen.api.errors import ApiError

REFUSALS = {400: "The header Range cannot be read.", 416: "The file has no such range."}


class StoredFile(FileResponse):
    """The bytes of a file, or the range of them that is asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; raise ApiError for a range that cannot be sent, before anything is."""

        async def checked(message: Message) -> None:
            refusal = REFUSALS.get(message.get("status", 0))
            if refusal is not None:
                found = Headers(raw=message["headers"]).get("content-range")
                headers = {} if found is None else {"content-range": found}
                status = int(message["status"])
                raise ApiError(
                    status, refusal, code="invalid_range", param="range", headers=headers
                )
            await send(message)

        await super().__call__(scope, receive, checked)
