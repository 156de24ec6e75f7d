"""A stored file as an answer, whose refusals of a range have the shape of all errors."""

from __future__ import annotations

import os

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from batchgen.api.errors import ApiError
from batchgen_workers.logs import get_logger

log = get_logger(__name__)

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

        try:
            self.stat_result = await run_in_threadpool(os.stat, self.path)
            self.set_stat_headers(self.stat_result)
        except FileNotFoundError:  # deleted since it was looked up
            log.warning("no such stored file", path=scope["path"])
            raise ApiError(404, "The file is gone.", code="file_not_found") from None
        await super().__call__(scope, receive, checked)
