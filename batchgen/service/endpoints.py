"""Register and check models that lie behind an HTTP endpoint."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec.structs import replace

from batchgen.core.dialects import Dialect
from batchgen.endpoints.address import normal_url
from batchgen.endpoints.config import EndpointConfig
from batchgen.endpoints.connection import Connection
from batchgen.endpoints.server import CHAT, COMPLETION, ask_canary, ask_models, ask_version, listed
from batchgen.errors import EndpointUnavailable, InvalidParameter
from batchgen.models.endpoint import MAX_CONCURRENCY, UNKNOWN_CONTEXT, Endpoint
from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry
from batchgen.settings import Settings

MOST_CONCURRENCY = 4096  # requests


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """An endpoint as a user names it."""

    url: str
    # None takes the only model that the endpoint lists
    served_model: str | None = None
    dialect: Dialect | str = Dialect.OPENAI
    api_key_env: str | None = None
    api_key_file: str | None = None
    max_concurrency: int | None = None
    # tokens of prompt and answer together; None takes what the endpoint says
    context: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The facts that a check of an endpoint found."""

    endpoint: Endpoint
    # tokens, None if the endpoint does not say
    context: int | None
    # the server and its version
    server: str


def add_endpoint(
    registry: Registry, name: str, new: NewEndpoint, settings: Settings
) -> tuple[ModelRecord, Checked | None]:
    """Register an endpoint under `name`; return the record, and what the endpoint says.

    An endpoint that does not answer is registered all the same if its model is named; then the
    second value is None.

    Raises:
        InvalidParameter, EndpointNotAllowed: the URL, the key or the dialect cannot be used.
        EndpointUnavailable: it does not answer, or does not say which model it serves.
        ModelExists: the name is taken.
    """
    endpoint = _endpoint_of(new)
    config = EndpointConfig.from_settings(endpoint, settings)
    checked: Checked | None = None
    try:
        checked = asyncio.run(_check(config))
    except EndpointUnavailable:
        if not endpoint.served_model:
            raise
    known = checked.endpoint if checked else endpoint
    context = new.context or (checked.context if checked else None) or UNKNOWN_CONTEXT
    return registry.add_endpoint(name, known, max_length=context), checked


def check_endpoint(registry: Registry, name: str, settings: Settings) -> Checked:
    """Ask a registered endpoint for its model and for one token, and keep what it says.

    Raises UnknownModel, InvalidParameter if the model has files, EndpointNotAllowed, or
    EndpointUnavailable with the reason.
    """
    record = registry.get(name)
    if record.endpoint is None:
        raise InvalidParameter(
            f"{name} is no endpoint: its files are checked by `batchgen models verify {name}`.",
            param="name",
        )
    checked = asyncio.run(_check(EndpointConfig.from_settings(record.endpoint, settings)))
    known = record.max_length if record.is_context_known else UNKNOWN_CONTEXT
    context = checked.context or known
    if (checked.endpoint, context) != (record.endpoint, record.max_length):
        registry.change_endpoint(name, checked.endpoint, max_length=context)
    return checked


def _endpoint_of(new: NewEndpoint) -> Endpoint:
    if new.api_key_env and new.api_key_file:
        raise InvalidParameter("The key lies in a variable or in a file: name one of them.")
    concurrency = MAX_CONCURRENCY if new.max_concurrency is None else new.max_concurrency
    if not 1 <= concurrency <= MOST_CONCURRENCY:
        raise InvalidParameter(
            f"max_concurrency must lie between 1 and {MOST_CONCURRENCY}.", param="max_concurrency"
        )
    return Endpoint(
        url=normal_url(new.url),
        served_model=new.served_model or "",
        dialect=Dialect(new.dialect),
        api_key_env=new.api_key_env,
        api_key_file=new.api_key_file,
        max_concurrency=concurrency,
    )


async def _check(config: EndpointConfig) -> Checked:
    async with Connection(config) as connection:
        served = await ask_models(connection)
        name = config.endpoint.served_model or _only(served.models)
        served.check(name)
        connection.endpoint = replace(config.endpoint, served_model=name)
        answers_as = await _ask_for_a_token(connection)
        return Checked(
            endpoint=replace(connection.endpoint, answers_as=answers_as),
            context=served.models.get(name),
            server=await ask_version(connection),
        )


async def _ask_for_a_token(connection: Connection) -> str | None:
    try:
        return await ask_canary(connection, CHAT)
    except EndpointUnavailable as in_chat:
        try:
            return await ask_canary(connection, COMPLETION)  # a model without a chat template
        except EndpointUnavailable:
            raise in_chat from None


def _only(models: dict[str, int | None]) -> str:
    if len(models) == 1:
        return next(iter(models))
    found = f"lists {listed(models)}" if models else "lists no models"
    raise EndpointUnavailable(f"The endpoint {found}: name one with --served-model.")
