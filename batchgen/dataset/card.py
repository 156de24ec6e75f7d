"""The dataset card, README.md: for people and for the `datasets` library."""

from __future__ import annotations

from typing import Final

import msgspec

from batchgen.dataset.manifest import DatasetMeta, Totals

# The size categories of the Hugging Face hub as (rows below which it applies, name).
_SIZES: Final = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)
_LARGEST: Final = "n>1B"

_COLUMNS: Final = """\
| column | meaning |
| --- | --- |
| `row` | 0-based record of the input file |
| `custom_id` | as given, or `row-<n>` |
| `response` | text of the first choice; null on an error row |
| `choices` | all answers, best first; `tokens` and `logprobs` only where asked for |
| `finish_reason` | of the first choice: `stop`, or `length` where max_tokens cut it |
| `model` | registry name |
| `usage` | tokens of prompt and answer; null on an error row |
| `error` | `code`, `message`, `param`; null on success |
| `request_id`, `attempt`, `seed` | what is needed to reproduce the row |
| `created_at`, `latency_ms` | when the row was answered, and how long it took |
| `extra` | the other fields of the input line, as JSON |
"""


def render_card(meta: DatasetMeta, totals: Totals) -> str:
    """Return README.md: YAML with explicit `configs:`, then Markdown.

    Config `default` holds the answered rows as split `train`. Config `errors` holds the failed rows
    as split `errors`, so that a program that asks for `train` never gets a failed row. A config
    is named only if it has rows, because `datasets` cannot load an empty split.
    """
    title = _line(meta.name or f"batchgen job {meta.job_id}")
    return "\n".join(
        [
            "---",
            f"pretty_name: {_quoted(title)}",
            "tags:",
            "- synthetic",
            "- batchgen",
            "size_categories:",
            f"- {_size_category(totals.rows)}",
            *_configs(totals),
            "---",
            "",
            f"# {title}",
            "",
            *_facts(meta, totals),
            "",
            "## Load it",
            "",
            *_snippets(totals),
            "",
            "## Columns",
            "",
            _COLUMNS,
            "## Parameters",
            "",
            "Defaults of the job; a row of the input may have set others.",
            "",
            *_indented(msgspec.json.format(msgspec.json.encode(meta.params, order="sorted"))),
            "",
        ]
    )


def _configs(totals: Totals) -> list[str]:
    lines = ["configs:"]
    if totals.ok or not totals.errors:
        lines += _config("default", "train", "data/train-*")
    if totals.errors:
        lines += _config("errors", "errors", "errors/errors-*")
    return lines


def _config(name: str, split: str, pattern: str) -> list[str]:
    return [
        f"- config_name: {name}",
        "  data_files:",
        f"  - split: {split}",
        f"    path: {pattern}",
    ]


def _facts(meta: DatasetMeta, totals: Totals) -> list[str]:
    facts = [
        ("Answers", _answers(totals)),
        ("Tokens", _tokens(totals)),
        ("KV pool", _kv(totals)),
        ("Computed in", ", ".join(map(str, totals.numerics))),
        ("Model", f"`{_line(meta.model)}`, SHA-256 `{meta.model_sha256}`"),
        ("Model licence", meta.model_license and _line(meta.model_license)),
        ("Prompts", meta.prompts_origin and _line(meta.prompts_origin)),
        ("Input SHA-256", f"`{meta.input_sha256}`"),
        ("Job", f"`{meta.job_id}`, {meta.created_text}, batchgen {meta.engine_version}"),
    ]
    return [f"- {name}: {text}" for name, text in facts if text]


def _answers(totals: Totals) -> str:
    text = f"{totals.ok} of {totals.rows} rows, {totals.errors} failed"
    cut = totals.finish_reasons.length
    return f"{text}, {cut} cut at max_tokens" if cut else text


def _tokens(totals: Totals) -> str:
    cached = f" ({totals.cached_tokens} from the prefix cache)" if totals.cached_tokens else ""
    return f"{totals.prompt_tokens} in{cached}, {totals.completion_tokens} out"


def _kv(totals: Totals) -> str | None:
    kv = totals.kv
    if not kv.rows:
        return None
    return (
        f"{kv.utilisation:.1%} of its slots filled, {kv.sharing_saving:.1%} of its blocks saved by "
        f"sharing, {kv.preemptions} preemptions, {kv.copies} blocks copied"
    )


def _snippets(totals: Totals) -> list[str]:
    lines = []
    if totals.ok or not totals.errors:
        lines.append('rows = datasets.load_dataset("path/to/this/folder", split="train")')
    if totals.errors:
        lines.append(
            'failed = datasets.load_dataset("path/to/this/folder", "errors", split="errors")'
        )
    return [
        "```python",
        "import datasets",
        *lines,
        "",
        "import polars",
        'rows = polars.scan_parquet("path/to/this/folder/data/*.parquet")',
        "```",
        "",
        "```sql",
        "-- DuckDB",
        "SELECT row, custom_id, response FROM 'path/to/this/folder/data/*.parquet' ORDER BY row;",
        "```",
        "",
        "`.batchgen/manifest.json` lists every file with its SHA-256; `batchgen verify` checks it.",
    ]


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), _LARGEST)


def _line(text: str) -> str:
    """Return the text as one line, so that a job's name cannot add lines to the card."""
    return " ".join(text.split())


def _quoted(text: str) -> str:
    """Return a YAML double-quoted scalar; characters that cannot be printed are escaped."""
    plain = (char if char.isprintable() and char not in '"\\' else _escape(char) for char in text)
    return '"' + "".join(plain) + '"'


def _escape(char: str) -> str:
    return f"\\U{ord(char):08X}"


def _indented(text: bytes) -> list[str]:
    # An indented block has no closing fence, so the text of a parameter cannot end it.
    return [f"    {line}" for line in text.decode().split("\n")]
