"""Tells how a client reaches the server of `batchgen up`."""

from __future__ import annotations

import shlex

from batchgen_cli.app import App


def show_address(app: App, url: str) -> None:
    """Write the two variables that an OpenAI client needs; the key itself goes to no log."""
    from batchgen.tenants.local_key import KEY_FILE

    path = shlex.quote(str(app.settings.home / KEY_FILE))
    app.output.note(f"export OPENAI_BASE_URL={url}/v1")
    app.output.note(f'export OPENAI_API_KEY="$(cat {path})"')
