"""Every route of the HTTP app, found in the app itself, with a path that could name something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
#: Routes that need no key.
OPEN = frozenset({"/healthz"})
UNKNOWN = "0" * 31 + "7"  # an id that nothing has

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of a path, such as GET /v1/files/{file_id}."""

    method: str
    template: str

    def path(self, ids: Mapping[str, str]) -> str:
        """Return the path with these values; a parameter that has none gets an unknown id."""
        return _PARAMETER.sub(lambda found: ids.get(found[1], unknown(found[1])), self.template)

    @property
    def parameters(self) -> list[str]:
        """The names in its path."""
        return _PARAMETER.findall(self.template)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def unknown(parameter: str) -> str:
    """Return an id of the right form that nothing has."""
    prefix = {"file_id": "file-", "batch_id": "batch_"}.get(parameter, "")
    return f"{prefix}{UNKNOWN}"


def routes(app: FastAPI) -> list[Route]:
    """Return every route, in the order of the app."""
    found: list[Route] = []
    for context in iter_route_contexts(app.routes):
        assert isinstance(context.original_route, APIRoute), f"nothing checks a key: {context}"
        found += [Route(method, str(context.path)) for method in sorted(context.methods or ())]
    return found
