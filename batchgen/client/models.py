"""The models of a server, as they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from batchgen.models.names import unknown_model


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a server; its fields are those of `batchgen.models.record.ModelRecord`."""

    name: str
    architecture: str
    dtype: str
    max_length: int
    sha256: str
    chat_template: bool
    source: str
    created_at: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields


def models_of_json(values: Iterable[Mapping[str, Any]]) -> list[Model]:
    """Return the models that a server described; fields that this version does not know go."""
    return [msgspec.convert(value, Model) for value in values]


def model_named(name: str, models: Sequence[Model]) -> Model:
    """Return one of the models; raise UnknownModel, which suggests similar names."""
    for model in models:
        if model.name == name:
            return model
    raise unknown_model(name, [model.name for model in models])
