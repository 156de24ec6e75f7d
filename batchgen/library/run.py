"""`batchgen.run`: compute a dataset from prompts without a running service."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.errors import BatchgenError, NoPermission
from batchgen.library.asked import on_invalid_of, parameters_of, settings_of
from batchgen.library.dataset import Dataset
from batchgen.library.folder_run import FolderRun
from batchgen.library.local_view import local_view
from batchgen.library.log_file import log_file
from batchgen.library.prompts import Prompts, open_prompts
from batchgen.service.submission import Submission
from batchgen.service.views import JobView
from batchgen.settings import Settings

if TYPE_CHECKING:
    from batchgen_workers.service.local import LocalProgress


def run(
    prompts: Prompts,
    out: str | os.PathLike[str],
    *,
    model: str,
    name: str | None = None,
    on_invalid: str = "refuse",
    columns: Sequence[str] = (),
    engine: Mapping[str, Any] | None = None,
    home: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    progress: Callable[[JobView], None] | None = None,
    **parameters: Any,
) -> Dataset:
    """Answer prompts in this process, and return the dataset.

    batchgen.run("prompts.jsonl", "out", model="smollm2-135m", temperature=0, max_tokens=64)

    If it was interrupted, call it again with the same prompts and parameters: it computes only the
    missing rows. If none is missing, it computes nothing.

    Args:
        prompts: path of a JSON Lines file, binary file, iterable of dicts, frame or table. Each
            row has a `prompt` or `messages`, and may have an `id` and parameters of its own.
        out: folder for the dataset.
        model: name of a registered model.
        name: name for the dataset's card.
        on_invalid: `refuse` raises InvalidInput if any prompt cannot be used; with `row-error` such
            a prompt becomes an error row.
        columns: fields of the rows that are data and copied to the output, although they are named
            like a parameter.
        engine: settings of the engine, such as `{"device": "cuda:0", "quantize": "int8"}`.
        home: folder with the models; None means BATCHGEN_HOME or the user's own.
        settings: all settings, without `engine` and `home`; environment and files are not read.
        progress: called with the job about twice a second while rows are computed.
        **parameters: decoding parameters of every row that does not set them; see
            docs/parameters.md.

    Raises:
        OutputConflict: the folder holds other prompts, other parameters or other files.
        InvalidInput, InvalidParameter, ModelError: the request cannot be fulfilled.
        EngineFailed, Corrupt: the run failed; call it again to compute the missing rows.
        KeyboardInterrupt: a signal came; finished rows are kept.
        BatchgenError: the base of all errors above, and of the others in `batchgen.errors`.
    """
    submission = Submission(
        model=model,
        params=parameters_of(parameters, columns),
        name=name,
        on_invalid=on_invalid_of(on_invalid),
    )
    asked = settings_of(settings, home=home, engine=engine)
    notices: list[str] = []
    with _refusals_named(), closing(FolderRun(Path(out).expanduser(), asked)) as folder:
        with open_prompts(prompts) as source:
            folder.open(source, submission, notice=notices.append)
        for text in notices:
            warnings.warn(text, stacklevel=2)
        ended = folder.finish(lambda _: _watched(folder.home, progress))
    return _dataset(ended, folder.out)


@contextmanager
def _refusals_named() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NoPermission.of(error) from error


def _dataset(ended: JobView, out: Path) -> Dataset:
    if ended.dataset is None:
        raise BatchgenError(
            f"The job in {out} failed: {ended.job.error} Remove the folder, or choose another."
        )
    return Dataset(ended.dataset)


@contextmanager
def _watched(
    home: Path, progress: Callable[[JobView], None] | None
) -> Iterator[Callable[[LocalProgress], None]]:
    def show(local: LocalProgress) -> None:
        if progress is not None:
            progress(local_view(local))

    with log_file(home):
        yield show
