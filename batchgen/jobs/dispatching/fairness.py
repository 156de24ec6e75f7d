"""Fair order of shards: tenants share evenly, and so do the jobs of each tenant.

A turn is one shard. It goes to the tenant with the fewest shards in flight, and there to the job
with the fewest. A job of a thousand shards does not delay jobs of one shard, and a tenant gains
nothing by submitting twenty jobs instead of one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job whose shards may be published now."""

    id: int
    tenant: str
    # highest priority first, then the nearest deadline
    rank: tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The numbers of shards that are leased or published, by job and by tenant."""

    # {job id: shards}
    jobs: Counter[int]
    # {tenant: shards}, also of jobs that have no more shards to publish
    tenants: Counter[str]


def turns(
    candidates: Iterable[Candidate],
    in_flight: InFlight,
    room: int,
    capacity: Mapping[int, int],
) -> list[int]:
    """Return the job id of each of the next `room` turns, in order.

    `capacity` is the number of shards of a job, for jobs where it is known. If jobs are equal, the
    older one is first.
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
