"""The table of the fault suite: what was injected, what it cost. Printed at the end of a run.

--fault-table FILE also writes it, as Markdown.
--timed fails a test whose recovery took longer than promised: for a machine that does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

LINE = "fault"  # the name under which a test reports its line
TABLE = pytest.StashKey["FaultTable"]()
COLUMNS = ("injections", "rows_in", "lost", "duplicated", "unexpected", "false_errors", "seconds")
HEADS = ("injections", "rows in", "lost", "duplicated", "unexpected", "false errors", "recovery, s")


class FaultTable:
    """Collects the lines that tests report, one line for each number and name."""

    def __init__(self) -> None:
        # {test: how it ended}
        self._outcomes: dict[str, str] = {}
        # by number and name: the lines, and how their tests ended
        self._lines: dict[tuple[int, str], list[tuple[dict[str, Any], str]]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the line of a test that ended."""
        if report.when != "teardown":
            if report.when == "call" or report.outcome != "passed":
                self._outcomes[report.nodeid] = _outcome(report)
            return
        for name, value in report.user_properties:
            if name == LINE:
                line = orjson.loads(str(value))
                outcome = self._outcomes.get(report.nodeid, report.outcome)
                self._lines.setdefault((line["number"], line["name"]), []).append((line, outcome))

    def markdown(self) -> str:
        """Return the table, by the numbers of the matrix."""
        head = f"| # | fault | cases | {' | '.join(HEADS)} | |"
        rule = "|" + "---|" * (len(HEADS) + 4)
        lines = [_row(key, self._lines[key]) for key in sorted(self._lines)]
        return "\n".join([head, rule, *lines]) + "\n"


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix("reason: ")
    return report.outcome


def _row(key: tuple[int, str], cases: Iterable[tuple[dict[str, Any], str]]) -> str:
    cases = list(cases)
    totals = {name: sum(line[name] for line, _ in cases) for name in COLUMNS}
    totals["seconds"] = max(line["seconds"] for line, _ in cases)
    cells = [f"{totals[name]:,}" for name in COLUMNS[:-1]]
    cells.append(f"{totals['seconds']:.1f}" if totals["seconds"] else "")
    outcome = ", ".join(sorted({outcome for _, outcome in cases}))
    return f"| {key[0]} | {key[1]} | {len(cases)} | {' | '.join(cells)} | {outcome} |"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add where the table goes, and whether a recovery may take too long."""
    parser.addoption("--fault-table", metavar="FILE", help="write the table of faults, as Markdown")
    parser.addoption("--timed", action="store_true", help="a recovery that takes too long fails")


def pytest_configure(config: pytest.Config) -> None:
    """Collect lines in the process that sees every report."""
    if not hasattr(config, "workerinput"):
        config.stash[TABLE] = FaultTable()
        config.pluginmanager.register(config.stash[TABLE], "fault-table-lines")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table, and write it where it is wanted."""
    table = config.stash.get(TABLE, None)
    if not table:
        return
    terminalreporter.section("faults")
    terminalreporter.write(table.markdown())
    wanted = config.getoption("--fault-table")
    if wanted:
        Path(wanted).write_text(table.markdown(), encoding="utf-8")
