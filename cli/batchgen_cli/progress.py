"""Shows a running job as a live bar, as lines, as JSON events, or not at all."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from batchgen_cli.formats import count, duration, percent, rate
from batchgen_cli.output import Format, Output, is_terminal
from batchgen_cli.presentation import outcomes, progress_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from batchgen.service import JobView, Rates

PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is no terminal
EVENT_INTERVAL = 1.0  # seconds between JSON events


class ProgressDisplay(Protocol):
    """Shows one job until it ends; `follow` calls `update` with each new view of the job."""

    def update(self, view: JobView, rates: Rates) -> None:
        """Show the present state of the job."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def choose_display(output: Output) -> ProgressDisplay:
    """Return the display for this output: events for --json, nothing for --quiet."""
    if output.format is Format.JSON:
        return EventDisplay(output)
    if output.format is Format.QUIET:
        return SilentDisplay()
    return LiveDisplay() if is_terminal(sys.stderr) else PlainDisplay(output)


def sentence(view: JobView, rates: Rates) -> str:
    """Describe the progress of a job in one line."""
    facts = [
        f"{count(view.rows_done)}/{count(view.rows_total)} rows",
        outcomes(view),
    ]
    if view.waiting_for:
        facts.append(view.waiting_for)
    elif view.is_running:
        facts.append(rate(rates.tokens_per_second, "tok"))
        facts.append(f"KV {percent(rates.kv_utilisation)}")
        facts.append(f"ETA {duration(rates.eta_seconds)}")
    elif view.has_ended:
        facts.append(f"{count(view.progress.completion_tokens)} tokens")
        facts.append(f"took {duration(view.elapsed_seconds)}")
    return f"{view.state:<10} " + ", ".join(facts)


class SilentDisplay:
    """Shows nothing."""

    def update(self, view: JobView, rates: Rates) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class PlainDisplay(SilentDisplay):
    """Writes a line on stderr when the state changes, and every ten seconds between."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.last_state = ""
        self.last_written = float("-inf")

    def update(self, view: JobView, rates: Rates) -> None:
        """Write a line if one is due."""
        due = monotonic() - self.last_written >= PLAIN_INTERVAL
        if due or view.state != self.last_state:
            self.output.note(sentence(view, rates))
            self.last_written = monotonic()
            self.last_state = view.state


class EventDisplay(SilentDisplay):
    """Writes one JSON object a line on stdout: every second, and whenever the state changes."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.last_state = ""
        self.last_written = float("-inf")

    def update(self, view: JobView, rates: Rates) -> None:
        """Write an event if one is due."""
        due = monotonic() - self.last_written >= EVENT_INTERVAL
        if due or view.state != self.last_state:
            self.output.event(progress_json(view, rates))
            self.last_written = monotonic()
            self.last_state = view.state


class LiveDisplay:
    """A bar on stderr, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.progress: Progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
        )
        self.task: TaskID = self.progress.add_task("", total=None)

    def update(self, view: JobView, rates: Rates) -> None:
        """Redraw."""
        self.progress.update(
            self.task,
            description=sentence(view, rates),
            total=1.0,
            completed=view.fraction,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
