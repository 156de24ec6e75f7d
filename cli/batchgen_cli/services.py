"""Checks that the long-running commands make before they start."""

from __future__ import annotations

from batchgen.errors import BrokerUnavailable
from batchgen_cli.app import App


def need_broker(app: App) -> None:
    """Raise BrokerUnavailable unless a broker is configured; warn if it does not answer.

    Raises InvalidParameter, and sends nothing, if it is on another machine without password or TLS.
    """
    if not app.settings.broker_url:
        raise BrokerUnavailable(
            "No broker is configured. Set BATCHGEN_BROKER_URL, such as redis://localhost:6379/0, "
            "or run everything on this machine with `batchgen up`."
        )
    from batchgen.service.broker import ping
    from batchgen.service.exposure import check_broker

    check_broker(app.settings)
    try:
        ping(app.settings.broker_url)
    except BrokerUnavailable as error:
        app.output.warn(f"{error.message} Waiting for it.")
