"""The views of jobs from the JSON of a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from batchgen.client.calls import ROOT, job_path
from batchgen.core.states import JobState
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.service.job_json import view_of_json
from batchgen.service.views import JobView


def view_of(value: Mapping[str, Any], url: str, workers: Iterable[WorkerRecord] = ()) -> JobView:
    """Return the view of a job; its dataset is an address below the server's `url`."""
    dataset = dataset_address(url, value["id"]) if value["dataset"] else None
    return view_of_json(value, workers=workers, dataset=dataset)


def dataset_address(url: str, job: str) -> str:
    """Return the address of the dataset of a job."""
    return f"{url}{ROOT}{job_path(job, 'results')}?format=parquet"


def needs_workers(value: Mapping[str, Any]) -> bool:
    """Return whether the view of a job says something of its workers."""
    return not JobState(value["state"]).ended
