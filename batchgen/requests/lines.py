"""Parse one input line, an OpenAI batch line or a shorthand line, into a row.

raw ──strict_json──► dict ──openai_lines | shorthand──► Question ──defaults, rules──► InputRow
                                any LineError on the way ─────────────────────────────► BadRow
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchgen.core.dialects import Dialect
from batchgen.core.params import SamplingParams
from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import InvalidParameter
from batchgen.requests.columns import COLUMNS, read_columns, split
from batchgen.requests.dialect_rules import check_dialect, check_raw_prompt
from batchgen.requests.expected import EXPECTS, Expected
from batchgen.requests.fields import SAMPLING, SHORTHAND_FIELDS, read_sampling
from batchgen.requests.openai.openai_lines import is_openai_line, read_openai_line
from batchgen.requests.rules import check_together, filled
from batchgen.requests.shorthand import read_shorthand_line
from batchgen.requests.values.line_error import LineError, quoted
from batchgen.requests.values.strict_json import decode_object
from batchgen.spelling import suggestion

MAX_ID_LENGTH: Final = 512  # characters


class LineParser:
    """Parses the lines of one job. `defaults` are the parameters that a row does not set.

    Fields named in `defaults["columns"]` are the caller's data, even if a parameter has that name.
    `defaults["expects"]` says what each line of a batch must name.
    `model` is the job's model; it also answers lines that name another one. None is any model.
    `context` is the most tokens of prompt and answer together: a row that asks for more is a bad
    row. If it is None, the engine checks this. `dialect` is that of the endpoint that answers: a
    row with a parameter that it does not take is a bad row. Raises InvalidParameter if the defaults
    cannot be used.
    """

    def __init__(
        self,
        defaults: Mapping[str, Any],
        model: str | None = None,
        context: int | None = None,
        *,
        dialect: Dialect | None = None,
    ) -> None:
        self._defaults, self.params = _read_defaults(defaults, context, dialect)
        self.dialect = dialect
        self.columns = read_columns(defaults)
        self.expected = Expected.read(defaults)
        self.model = model
        self.context = context

    def parse(self, raw: bytes, row: int) -> InputRow | BadRow:
        """Return record `row` (0-based) of the input. No content of the bytes makes this raise."""
        custom_id = None
        try:
            data, columns = split(decode_object(raw), self.columns)
            custom_id = read_id(data)
            question = read_openai_line(data) if is_openai_line(data) else read_shorthand_line(data)
            self.expected.check(data, question.model)
            params = self.filled(question.params)
            if self.dialect is not None and question.messages is None:
                check_raw_prompt(params, self.dialect)
        except LineError as error:
            return BadRow(row=row, custom_id=custom_id or implicit_id(row), error=error.error)
        return InputRow(
            row=row,
            custom_id=custom_id or implicit_id(row),
            params=params,
            messages=question.messages,
            prompt=question.prompt if isinstance(question.prompt, str) else None,
            prompt_token_ids=question.prompt if isinstance(question.prompt, list) else None,
            extra={**question.extra, **columns} if columns else question.extra,
            other_model=question.model if question.model != self.model and self.model else None,
            echo=None if question.echo is None else {**question.echo, **_as_asked(params)},
        )

    def filled(self, own: Mapping[str, Any]) -> SamplingParams:
        """Return the parameters of a row that sets `own`; raise LineError."""
        if not own:
            return self.params
        params = filled(self._defaults, own)
        check_together(params, self.context)
        if self.dialect is not None:
            check_dialect(params, self.dialect)
        return params


def parse_line(
    raw: bytes, *, row: int, defaults: Mapping[str, Any], model: str | None
) -> InputRow | BadRow:
    """Parse a single line. For many lines of one job, use a LineParser."""
    return LineParser(defaults, model).parse(raw, row)


def check_defaults(
    params: Mapping[str, Any], context: int | None = None, dialect: Dialect | None = None
) -> SamplingParams:
    """Return the parameters of a row that sets none; raise InvalidParameter with the field."""
    return _read_defaults(params, context, dialect)[1]


def implicit_id(row: int) -> str:
    """Return the id of a row that does not give one."""
    return f"row-{row}"


def read_id(data: dict[str, Any]) -> str | None:
    """Return the id that a line gives, None if it gives none; raise LineError."""
    name = "custom_id"
    value = data.get(name)
    if value is None:
        name = "id"
        value = data.get(name)
        if value is None:
            return None
        if type(value) is int:  # numbered rows are common in data sets
            return str(value)
    if type(value) is not str:
        raise LineError("invalid_type", f"'{name}' must be a string.", name)
    if not 0 < len(value) <= MAX_ID_LENGTH:
        length = f"1 to {MAX_ID_LENGTH} characters"
        raise LineError("invalid_value", f"'{name}' must have {length}.", name)
    return value


def _as_asked(params: SamplingParams) -> dict[str, Any]:
    """Return the parameters that an answer of /v1/responses repeats, by its names of them."""
    return {
        "max_output_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_logprobs": params.top_logprobs,
    }


def _read_defaults(
    params: Mapping[str, Any], context: int | None, dialect: Dialect | None
) -> tuple[dict[str, Any], SamplingParams]:
    read_columns(params)
    values = {name: value for name, value in params.items() if name not in (COLUMNS, EXPECTS)}
    try:
        known, unknown = read_sampling(values, SHORTHAND_FIELDS)
        together = filled({}, known)
        check_together(together, context)
        if dialect is not None:
            check_dialect(together, dialect)
    except LineError as error:
        raise InvalidParameter(error.error.message, param=error.error.param) from None
    for name in unknown:
        served = ", ".join(sorted(SAMPLING))
        raise InvalidParameter(
            f"There is no parameter {quoted(name)}.{suggestion(name, SAMPLING)} Served: {served}.",
            param=name,
        )
    return known, together
