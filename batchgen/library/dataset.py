"""Read a finished dataset from Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchgen.dataset.manifest import Totals, read_manifest
from batchgen.dataset.reader import open_dataset

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa
    from pyarrow import dataset as arrow_dataset

BATCH_ROWS: Final = 1024  # rows that iteration holds at a time


class Dataset:
    """The answers in an output folder, in the order of the prompts.

    dataset = batchgen.Dataset("out")
    dataset.to_arrow()             answered rows; their columns are in docs/architecture.md
    dataset.errors                 failed rows, with the same columns
    dataset.report                 counts, tokens, finish reasons, the KV pool

    Its length and its iteration cover the answered rows. A failed prompt has no such row, so use
    `row` and `custom_id` to find the prompt of an answer.

    Args:
        path: folder of the dataset.

    Raises:
        Corrupt: the folder is not a finished dataset. Methods that read rows also raise it
            if a file of the dataset is missing or has another size.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The folder, as an absolute path.
        self.path = Path(path).expanduser().absolute()
        self._manifest = read_manifest(self.path)

    @property
    def report(self) -> Totals:
        """Return the sums over all rows, answered and failed."""
        return self._manifest.totals

    @cached_property
    def errors(self) -> pa.Table:
        """Return the failed rows as an Arrow table; `error` says why each of them failed."""
        return open_dataset(self.path, "errors").to_table()

    def to_arrow(self) -> pa.Table:
        """Return the answered rows as an Arrow table."""
        return open_dataset(self.path).to_table()

    def to_dataset(self) -> arrow_dataset.Dataset:
        """Open the answered rows as a pyarrow dataset, which reads only what is asked of it."""
        return open_dataset(self.path)

    def to_pandas(self) -> pandas.DataFrame:
        """Return the answered rows as a pandas frame; pandas must be installed."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """Return the answered rows as a polars frame; polars must be installed."""
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def __len__(self) -> int:
        return self.report.ok

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the answered rows as dicts; only some rows are in memory at a time."""
        for batch in open_dataset(self.path).to_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()

    def __repr__(self) -> str:
        report, model = self.report, self._manifest.meta.model
        counts = f"{report.rows} rows, {report.ok} answered, {report.errors} failed"
        return f"<Dataset {str(self.path)!r}: {counts}, model {model}>"
