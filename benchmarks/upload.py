"""Upload a large file to a server on the loopback: its speed, and the server's memory.

python benchmarks/upload.py [--lines 500000] [--megabytes 200] [--times 3]

The server is a process of its own on a new home; its memory is the most that it has had, less what
it had before the first upload. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from batchgen.service import Service
from batchgen.settings import ServerSettings, Settings
from batchgen_workers.service.local_process import environment_of

URL = re.compile(r"http://127\.0\.0\.1:\d+")
LINE = (
    '{{"custom_id": "row-{row:07}", "method": "POST", "url": "/v1/chat/completions", "body": '
    '{{"model": "m", "messages": [{{"role": "user", "content": "{text}"}}]}}}}\n'
)


def write_lines(path: Path, *, lines: int, megabytes: float) -> None:
    """Write a file of requests with this number of lines and about this size."""
    bare = len(LINE.format(row=0, text=""))
    text = "x" * max(0, round(megabytes * 1e6 / lines) - bare)
    with path.open("w", encoding="ascii") as file:
        for row in range(lines):
            file.write(LINE.format(row=row, text=text))


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, int]]:
    """Run a server; yield its URL and its process id."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "batchgen_cli.main", "server"],
        env={**environment_of(settings), "PATH": "", "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        found = next(match for line in process.stderr if (match := URL.search(line)))
        yield found[0], process.pid
    finally:
        process.terminate()
        process.communicate()


def memory(pid: int, name: str) -> float:
    """Return the memory of a process in MiB: VmRSS now, or VmHWM, the most that it has had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def upload(client: httpx2.Client, path: Path) -> float:
    """Upload a file and delete it again; return the seconds of the upload."""
    began = time.monotonic()
    with path.open("rb") as file:
        answer = client.post("/v1/files", data={"purpose": "batch"}, files={"file": file})
    seconds = time.monotonic() - began
    answer.raise_for_status()
    client.delete(f"/v1/files/{answer.json()['id']}").raise_for_status()
    return seconds


def main() -> None:
    """Measure, and print a line for each upload."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=500_000)
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home", server=ServerSettings(port=0))
        key = Service(settings).access.local_key()
        path = Path(folder) / "requests.jsonl"
        write_lines(path, lines=asked.lines, megabytes=asked.megabytes)
        size = path.stat().st_size / 1e6
        headers = {"authorization": f"Bearer {key}"}
        with (
            serving(settings) as (url, pid),
            httpx2.Client(base_url=url, headers=headers, timeout=600.0) as client,
        ):
            client.get("/v1/files").raise_for_status()
            idle = memory(pid, "VmRSS")
            for _ in range(asked.times):
                seconds = upload(client, path)
                grown = memory(pid, "VmHWM") - idle
                print(
                    f"{size:.1f} MB, {asked.lines:,} lines: {seconds:.2f} s, "
                    f"{size / seconds:.1f} MB/s, {grown:.1f} MiB above idle ({idle:.0f} MiB)"
                )


if __name__ == "__main__":
    main()
