"""The health of an endpoint: if it answers, since when it does not, and why.

A row's failure is the row's own only if the endpoint answered something else after the row was
sent: another row, or the canary.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from batchgen.endpoints.connection import Connection
from batchgen.endpoints.server import CHAT, ask_canary, ask_models, ask_version
from batchgen.errors import EndpointUnavailable
from batchgen.models.endpoint import Endpoint

LONG_PAUSE = 5.0  # seconds that the endpoint asks to wait, to be told to a user
LONG_BUSY = 10.0  # seconds without an answer, refusals only


@dataclass(slots=True)
class Health:
    """The state of one endpoint."""

    endpoint: Endpoint
    # The name that its answers give the model; None until it is known.
    known_as: str | None = None
    # Why it cannot be used; None while it can.
    problem: str | None = None
    # The server and its version, as far as it tells.
    server: str = ""
    # The last moment at which it answered again after a problem.
    recovered_at: float = float("-inf")
    # The last moment at which it answered anything.
    answered_at: float = float("-inf")
    # The first refusal since the last answer; no request is sent before `paused_until`.
    refused_at: float | None = None
    paused_until: float = 0.0
    # Refusals in a row of all that was sent.
    streak: int = 0

    @property
    def is_open(self) -> bool:
        """True while requests may be sent."""
        return self.problem is None and time.monotonic() >= self.paused_until

    @property
    def waiting_for(self) -> str:
        """The reason why no rows are answered, for a person; empty while they are."""
        now = time.monotonic()
        if self.problem is not None:
            return self.problem
        if self.paused_until - now > LONG_PAUSE:
            return f"it asks to wait for {self.paused_until - now:.0f} s"
        if self.refused_at is not None and now - self.refused_at > LONG_BUSY:
            return "it is busy and refuses all requests (429 or 503)"
        return ""

    def answered(self) -> None:
        """Note that it answered a row or the canary."""
        self.answered_at = time.monotonic()
        self.refused_at = None
        self.streak = 0

    def failed(self, error: EndpointUnavailable) -> None:
        """Note why it cannot be used."""
        self.problem = error.message.removeprefix("The endpoint ").removesuffix(".")

    def recovered(self) -> None:
        """Note that it answers again."""
        self.problem = None
        self.recovered_at = time.monotonic()

    def refused(self) -> None:
        """Note that it refused a request because it is busy."""
        if self.refused_at is None:
            self.refused_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Send nothing for some seconds."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)

    def is_proven_since(self, moment: float) -> bool:
        """Return whether it answered something after `moment`."""
        return self.answered_at >= moment

    def is_healthy_since(self, moment: float) -> bool:
        """Return whether it answered something after `moment`, and had no problem since."""
        proven = self.problem is None and self.is_proven_since(moment)
        return proven and moment >= self.recovered_at

    def accepts(self, name: str | None) -> bool:
        """Return whether `model` of an answer names the model that was asked for."""
        served = self.endpoint.served_model
        if name is None or name in (served, self.known_as):
            return True
        return name.startswith(f"{served}-")  # OpenAI's dated versions

    async def ask(self, connection: Connection, *, path: str = CHAT, canary: bool = True) -> None:
        """Ask whether the endpoint serves the model, and with `canary` for one token.

        Raises EndpointUnavailable with the reason if not.
        """
        served = await ask_models(connection)
        served.check(self.endpoint.served_model)
        if canary:
            name = await ask_canary(connection, path)
            self.known_as = self.known_as or name
            if not self.accepts(name):
                message = f"The endpoint answers as another model, {str(name)[:100]!r}."
                raise EndpointUnavailable(message)
            self.answered()
        self.server = await ask_version(connection)
