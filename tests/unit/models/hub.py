"""A hub on loopback that serves one repository the way `huggingface_hub` asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repository: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve `files`; yield the address and the list of the files that were fetched."""
    fetched: list[str] = []
    tree = [
        {"type": "file", "path": name, "size": len(content), "oid": f"{number:040x}"}
        for number, (name, content) in enumerate(files.items())
    ]
    info = {
        "id": repository,
        "sha": COMMIT,
        "siblings": [{"rfilename": name} for name in files],
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            name = path.removeprefix(f"/{repository}/resolve/{COMMIT}/")
            content: bytes | None = None
            if path.startswith(f"/api/models/{repository}/tree/"):
                content = json.dumps(tree).encode()
            elif path.startswith(f"/api/models/{repository}"):
                content = json.dumps(info).encode()
            elif name in files:
                content = files[name]
                if body:
                    fetched.append(name)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{name}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
