from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.core.endpoints import CHAT as CHAT_URL
from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import InvalidParameter
from batchgen.requests.columns import meant
from batchgen.requests.lines import LineParser, check_defaults
from batchgen.requests.plain_lines import PlainLines

# Data whose names hold a parameter's, or come near one.
NEAR = """
top top_1 top_5 top_n topic topics topk_accuracy n_shots n_tokens num_tokens in_tokens
out_tokens tokens token_count total_tokens prompt_tokens completion_tokens token_ids stops
stop_reason stop_words seeds seed_id random_seed step temp temperature_c num_teams function
predict prediction predictions typical message messages_raw prompts prompt_id customer_id custom
user_id model model_name model_id format regexp schema length penalty min max bias N text_length
response steam streams bos_token_id
"""
# Columns of common data sets.
COMMON = """
answer answers question questions choices options label labels text title name context passage
document documents summary article highlights premise hypothesis sentence1 input inputs output
outputs instruction instructions system system_prompt conversations source target reference
references rationale explanation solution difficulty level subject category domain language lang
score rating url date author tags meta metadata idx index uuid hash split image reasoning
thinking chosen rejected tool_calls parameters constraints test tests code entry_point
canonical_solution user store priority
"""

# {name of a field: the parameter that is meant by it, None where it is the caller's data}
DECISIONS: dict[str, str | None] = {
    # misspelt
    "max_tokns": "max_tokens",
    "maxTokens": "max_tokens",
    "max_token": "max_tokens",
    "min_token": "min_tokens",
    "temprature": "temperature",
    "Temperature": "temperature",
    "temparture": "temperature",
    "topP": "top_p",
    "top-k": "top_k",
    "repetion_penalty": "repetition_penalty",
    "presense_penalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "logitbias": "logit_bias",
    "Stop": "stop",
    "sede": "seed",
    "num_beam": "num_beams",
    "reponse_format": "response_format",
    "jsonSchema": "json_schema",
    "guided_jsn": "guided_json",
    "return_tokens_ids": "return_token_ids",
    "customId": "custom_id",
    # misspelt, and not served
    "reasoning_efort": "reasoning_effort",
    "do_smaple": "do_sample",
    "maxLength": "max_length",
    "sufix": "suffix",
    **dict.fromkeys(NEAR.split()),
    **dict.fromkeys(COMMON.split()),
}


def parse(line: dict[str, Any], **defaults: Any) -> InputRow | BadRow:
    """Parse one line; what is plain to the fast way must be so to the slow one."""
    parser, raw = LineParser(defaults, "m"), json.dumps(line).encode()
    row = parser.parse(raw, 0)
    plain = PlainLines(parser).id_of(raw, 0)
    assert plain is None or (isinstance(row, InputRow) and row.custom_id == plain)
    return row


@pytest.mark.parametrize("name", DECISIONS)
def test_a_near_miss_is_an_error_and_other_names_are_data(name: str) -> None:
    assert meant(name) == DECISIONS[name]
    row = parse({"prompt": "x", name: "a value"})
    if DECISIONS[name] is None:
        assert isinstance(row, InputRow)
        assert row.extra == {name: "a value"}
    else:
        assert isinstance(row, BadRow)
        assert (row.error.code, row.error.param) == ("unknown_parameter", name)
        assert f"'{DECISIONS[name]}'" in row.error.message
        assert "--columns" in row.error.message


@pytest.mark.parametrize("name", ["max_tokns", "echo", "n", "seed", "customId", "a,b"])
def test_a_column_is_data_whatever_it_is_called(name: str) -> None:
    row = parse({"prompt": "x", name: [1, "b"], "temperature": 0}, columns=[name, "unused"])
    assert isinstance(row, InputRow)
    assert row.extra == {name: [1, "b"]}
    assert row.params == LineParser({"temperature": 0}).params


def test_columns_may_be_what_a_line_would_else_be_read_by() -> None:
    line = {"id": "same", "prompt": "x", "messages": [{"role": "user", "content": "y"}]}
    row = parse(line, columns=["id", "prompt"])
    assert isinstance(row, InputRow)
    assert (row.custom_id, row.prompt) == ("row-0", None)
    assert row.extra == {"id": "same", "prompt": "x"}


def test_a_parameter_beside_a_body_does_nothing_and_is_refused() -> None:
    body = {"messages": [{"role": "user", "content": "y"}]}
    line = {"custom_id": "a", "method": "POST", "url": CHAT_URL, "body": body}
    for name in ("temperature", "max_tokns", "tools"):
        row = parse({**line, name: 0.5})
        assert isinstance(row, BadRow)
        assert (row.error.code, row.error.param) == ("unknown_parameter", name)
        kept = parse({**line, name: 0.5}, columns=[name])
        assert isinstance(kept, InputRow)
        assert kept.extra == {name: 0.5}
    assert isinstance(parse({**line, "topic": 1, "temperature": None}), InputRow)


def test_a_misspelt_prompt_is_named_where_no_other_is_there() -> None:
    row = parse({"prompts": "x"})
    assert isinstance(row, BadRow)
    assert "Did you mean 'prompt' by 'prompts'?" in row.error.message


@pytest.mark.parametrize("columns", ["name", 3, [3], [""], [" "], {"a": 1}])
def test_columns_are_a_list_of_names(columns: object) -> None:
    with pytest.raises(InvalidParameter, match="list of names") as caught:
        check_defaults({"columns": columns})
    assert caught.value.param == "columns"
