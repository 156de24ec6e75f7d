"""The number of requests that an endpoint gets at once, found by trying.

allowed   1 window of successes    below the ceiling, or none known: twice as many
                                   at the ceiling: after `hold` windows one more
          a refusal (429, 503)     half as many; what the endpoint held then is the ceiling

A window is as many successes as requests are allowed, all of them in use. So after a storm the
limit is back at what the endpoint really holds within two windows, and tries one more ever more
rarely while that is refused.
"""

from __future__ import annotations

FIRST = 16  # requests at once at the start
LONGEST_HOLD = 64  # windows


class Limit:
    """The limit of one endpoint. A request remembers `epoch`, the number of cuts before it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.allowed = min(FIRST, most)
        self.epoch = 0
        # The most that were held at once when the endpoint refused another one.
        self._ceiling: int | None = None
        self._successes = 0
        self._windows = 0
        self._hold = 1

    def succeeded(self, *, in_use: int) -> None:
        """Count a success; `in_use` requests ran at once, this one among them."""
        if in_use < self.allowed:
            return
        self._successes += 1
        if self._successes >= self.allowed:
            self._successes = 0
            self._grow()

    def refused(self, *, epoch: int, held: int) -> None:
        """Note a refusal of a request that was sent in `epoch`, while the endpoint held `held`.

        Requests that were sent before the last cut only tell how much the endpoint holds.
        """
        if epoch == self.epoch and self._is_trying:
            self._hold = min(LONGEST_HOLD, 2 * self._hold)
            self._cut()
        elif epoch == self.epoch:
            self._cut()
            self._ceiling = max(1, held)
        elif self._ceiling is not None:
            self._ceiling = max(1, min(self._ceiling, held))
        self.allowed = max(1, min(self.allowed, self._ceiling or 1))

    def slowed(self, *, epoch: int) -> None:
        """Note that a request that was sent in `epoch` timed out."""
        if epoch == self.epoch:
            self._cut()
            self._ceiling = self.allowed

    def _cut(self) -> None:
        self.epoch += 1
        self.allowed = max(1, self.allowed // 2)
        self._successes = self._windows = 0

    @property
    def _is_trying(self) -> bool:
        """True while one more request is allowed than the endpoint once held."""
        return self._ceiling is not None and self.allowed > self._ceiling

    def _grow(self) -> None:
        if self._ceiling is None:
            self.allowed = min(self._most, 2 * self.allowed)
        elif self.allowed < self._ceiling:
            self.allowed = min(self._most, self._ceiling, 2 * self.allowed)
        elif self._is_trying:  # with success
            self._ceiling = self.allowed
            self._hold = max(1, self._hold // 2)
            self._windows = 0
        else:
            self._windows += 1
            if self._windows >= self._hold:
                self._windows = 0
                self.allowed = min(self._most, self.allowed + 1)
