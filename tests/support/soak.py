"""The soak: processes die at random, again and again, while jobs go through."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from batchgen.jobs.records.job_records import JobRecord
from batchgen_workers import testing
from tests.support.cluster import Cluster
from tests.support.nursery import Member
from tests.support.workers import questions

WORKERS = 2
JOBS = 3  # at work at a time
ROWS = 200
POLL = 0.1  # seconds between two looks at the jobs at the end
PAUSE = (0.05, 1.0)  # seconds between two kills
# What dies, and how often of ten times.
WEIGHTS = {"worker": 4, "engine": 4, "coordinator": 2}


@dataclass
class Soak:
    """The record of a soak; its cost is in the cluster's toll."""

    seed: int
    kills: int = 0
    of: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    seconds: float = 0.0


def soak(cluster: Cluster, *, kills: int, seed: int) -> Soak:
    """Kill `kills` processes chosen by `seed`, replace each, and drain every job."""
    rng = random.Random(seed)  # noqa: S311
    result = Soak(seed)
    began = time.monotonic()
    members = {
        "coordinator": [_start(cluster, "coordinator")],
        "worker": [_start(cluster, "worker") for _ in range(WORKERS)],
    }
    open_jobs: list[JobRecord] = []
    while result.kills < kills:
        open_jobs = [job for job in open_jobs if not _has_ended(cluster, job, result)]
        while len(open_jobs) < JOBS:
            open_jobs.append(cluster.submit(questions(ROWS, max_tokens=rng.randint(1, 8))))
        time.sleep(rng.uniform(*PAUSE))
        _replace_ended(cluster, members)
        _kill_one(cluster, members, rng, result)
    while open_jobs:
        open_jobs = [job for job in open_jobs if not _has_ended(cluster, job, result)]
        _replace_ended(cluster, members)
        time.sleep(POLL)
    cluster.check()
    result.seconds = time.monotonic() - began
    return result


def _has_ended(cluster: Cluster, job: JobRecord, result: Soak) -> bool:
    if not cluster.store.jobs.by_id(job.id).state.ended:
        return False
    cluster.count(job)
    result.jobs += 1
    return True


def _replace_ended(cluster: Cluster, members: dict[str, list[Member]]) -> None:
    """Start anew what ended by itself, as `batchgen up` or a service manager would.

    A worker whose engine dies before it was ever ready ends.
    """
    for kind, of_kind in members.items():
        for at, member in enumerate(of_kind):
            if not member.is_alive:
                of_kind[at] = _start(cluster, kind)


def _kill_one(
    cluster: Cluster, members: dict[str, list[Member]], rng: random.Random, result: Soak
) -> None:
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind == "engine":
        engines = [pid for worker in members["worker"] for pid in worker.children()]
        if not engines:
            return
        with suppress(ProcessLookupError):
            os.kill(rng.choice(engines), signal.SIGKILL)
    else:
        victim = rng.randrange(len(members[kind]))
        members[kind][victim].kill()
        members[kind][victim] = _start(cluster, kind)
    result.kills += 1
    result.of[kind] += 1
    cluster.hurt()


def _start(cluster: Cluster, kind: str) -> Member:
    return cluster.coordinator() if kind == "coordinator" else cluster.worker(testing.SLOW)
