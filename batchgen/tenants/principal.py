"""The principal of a request: the tenant, the key that it used, and the scopes of that key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from batchgen.errors import InvalidParameter


class Scope(StrEnum):
    """A right that a key has. A request needs one of them."""

    SUBMIT = "submit"  #: Upload files; create, pause, cancel and remove jobs.
    READ = "read"  #: See jobs, files and results.
    ADMIN = "admin"  #: The rights of the others, and the tenant's webhooks and keys.


DEFAULT_SCOPES = frozenset({Scope.SUBMIT, Scope.READ})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The sender of a request, as its key proves."""

    tenant: str
    # the public part of the key
    key_id: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Return whether the key has a right; an admin key has every right."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


def parse_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes that the words name; raise InvalidParameter."""
    named = list(words)
    unknown = [word for word in named if word not in list(Scope)]
    if unknown or not named:
        wrong = f"{unknown[0]!r} is no scope." if unknown else "A key needs a scope."
        raise InvalidParameter(f"{wrong} The scopes are {', '.join(Scope)}.", param="scope")
    return frozenset(Scope(word) for word in named)
