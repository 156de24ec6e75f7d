"""Questions about an endpoint itself: which models it serves, its version, if it answers at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from batchgen.core.dialects import Dialect
from batchgen.endpoints.connection import Connection, Reply
from batchgen.errors import EndpointUnavailable

QUESTION_TIMEOUT = 15.0  # seconds
CANARY_TIMEOUT = 120.0  # seconds: a busy server answers one token late
SHOWN = 200  # characters of a server's message
LISTED = 5  # models that a message names
CHAT, COMPLETION = "/chat/completions", "/completions"
#: {dialect: (path below the root, keys to the version)}
_VERSIONS = {
    Dialect.VLLM: ("/version", ("version",)),
    Dialect.SGLANG: ("/get_server_info", ("version",)),
    Dialect.LLAMA_CPP: ("/props", ("build_info",)),
}
#: Where servers say how long prompt and answer together may be.
_CONTEXT_KEYS = ("max_model_len", "context_length", "max_context_length", "n_ctx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The facts that an endpoint states about itself."""

    # {model: tokens of prompt and answer together, None if it is not said}
    models: dict[str, int | None] = field(default_factory=dict)

    def check(self, name: str) -> None:
        """Raise EndpointUnavailable if a model is not in the list; no list proves nothing."""
        if self.models and name not in self.models:
            raise EndpointUnavailable(
                f"The endpoint does not serve {name!r} but {listed(self.models)}."
            )


async def ask_models(connection: Connection) -> Served:
    """Return the models that the endpoint lists, none if it has no list.

    Raises EndpointUnavailable with the reason if it does not answer, or refuses the key.
    """
    reply = await connection.get("/models", timeout=QUESTION_TIMEOUT)
    if reply.status in (404, 405, 501):
        return Served()
    if reply.status != 200:
        raise EndpointUnavailable(f"The endpoint cannot be asked: {describe(reply, connection)}.")
    try:
        return Served(models=_models(reply.json()))
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        raise EndpointUnavailable("The endpoint's list of models is not OpenAI's JSON.") from None


async def ask_version(connection: Connection) -> str:
    """Return the name of the server with its version, if it tells that."""
    dialect = connection.endpoint.dialect
    if dialect not in _VERSIONS:
        return str(dialect)
    path, keys = _VERSIONS[dialect]
    reply = await connection.get(path, timeout=QUESTION_TIMEOUT, beside=True)
    try:
        found: Any = reply.json() if reply.status == 200 else {}
        for key in keys:
            found = found[key]
    except (msgspec.DecodeError, LookupError, TypeError):
        return str(dialect)
    version = found if isinstance(found, str) and found.isprintable() else ""
    return f"{dialect} {version[:40]}".strip()


async def ask_canary(connection: Connection, path: str = CHAT) -> str | None:
    """Ask for one token, and return the model's name in the answer.

    Raises EndpointUnavailable with the reason if there is no answer.
    """
    question: dict[str, Any] = {"model": connection.endpoint.served_model, "max_tokens": 1}
    if path == CHAT:
        question["messages"] = [{"role": "user", "content": "1"}]
    else:
        question["prompt"] = "1"
    body = msgspec.json.encode(question)
    reply = await connection.post(path, body, timeout=CANARY_TIMEOUT)
    if reply.status == 200:
        try:
            name = reply.json()["model"]
        except (msgspec.DecodeError, LookupError, TypeError):
            return None
        return name if isinstance(name, str) else None
    if reply.status == 429:  # it is up, and busy
        return None
    raise EndpointUnavailable(f"The endpoint fails: {describe(reply, connection)}.")


def describe(reply: Reply, connection: Connection) -> str:
    """Return what a reply without an answer says, for a person, without the key."""
    if reply.failure is not None:
        return reply.reason
    if 300 <= reply.status < 400:
        return f"it answers {reply.status} and names another address, which is not followed"
    _, message = server_error(reply)
    said = f" {message}" if message else ""
    about = " (the API key is not accepted)" if reply.status in (401, 403) else ""
    return connection.key.hidden(f"it answers {reply.status}{about}{said}"[:SHOWN]).rstrip(". ")


def server_error(reply: Reply) -> tuple[str | None, str]:
    """Return code and message of an error in OpenAI's form, or in one near it; ("", "") if none."""
    try:
        found = reply.json()
    except msgspec.DecodeError:
        return None, ""
    if not isinstance(found, dict):
        return None, ""
    error = found.get("error", found)
    if not isinstance(error, dict):
        return None, str(error)
    code = error.get("code")
    if not isinstance(code, str):  # vLLM repeats the status there, and names the kind in `type`
        code = error.get("type")
    message = error.get("message", error.get("detail", ""))
    return code if isinstance(code, str) else None, str(message)


def listed(names: Iterable[str]) -> str:
    """Return some names, for a message."""
    found = sorted(names)
    more = ", …" if len(found) > LISTED else ""
    return ", ".join(repr(name[:100]) for name in found[:LISTED]) + more


def _models(found: Any) -> dict[str, int | None]:
    return {model["id"]: _context(model) for model in found["data"]}


def _context(model: dict[str, Any]) -> int | None:
    meta = model.get("meta")
    for place in (model, meta if isinstance(meta, dict) else {}):
        for key in _CONTEXT_KEYS:
            if isinstance(value := place.get(key), int) and value > 0:
                return value
    return None
