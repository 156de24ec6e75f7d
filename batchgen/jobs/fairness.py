"""Whose turn it is: tenants share evenly, and so do the jobs of each tenant.

Every turn is a shard, and goes to the tenant with the fewest in flight, there to the job with the
fewest in flight. A job of a thousand shards and twenty of one wait for each other as equals; a
tenant gains nothing by submitting twenty jobs in place of one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job whose shards may be dispatched now."""

    id: int
    tenant: str
    # highest priority first, then the nearest deadline
    rank: tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """Shards leased or rung for: what a fair share counts from."""

    # {job id: shards}
    jobs: Counter[int]
    # {tenant: shards}, of jobs too that have nothing more to give
    tenants: Counter[str]


def turns(
    candidates: Iterable[Candidate],
    in_flight: InFlight,
    room: int,
    capacity: Mapping[int, int],
) -> list[int]:
    """Return the ids of the jobs that the next `room` shards are of, in order.

    `capacity` says how many a job has, where that is known. Equal claims go to the older job.
    """
    left = Counter({job: count for job, count in capacity.items() if count > 0})
    # {tenant: heap of (shards in flight, job)}
    queues: dict[str, list[tuple[int, int]]] = {}
    for job in candidates:
        if job.id not in capacity or left[job.id]:
            queues.setdefault(job.tenant, []).append((in_flight.jobs[job.id], job.id))
    for queue in queues.values():
        heapq.heapify(queue)
    shares = [(in_flight.tenants[tenant], queue[0], tenant) for tenant, queue in queues.items()]
    heapq.heapify(shares)
    served: list[int] = []
    while shares and len(served) < room:
        share, (count, job_id), tenant = heapq.heappop(shares)
        served.append(job_id)
        queue = queues[tenant]
        if job_id in capacity and left[job_id] == 1:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, (count + 1, job_id))
            left[job_id] -= 1
        if queue:
            heapq.heappush(shares, (share + 1, queue[0], tenant))
    return served
