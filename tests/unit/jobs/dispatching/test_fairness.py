from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batchgen.jobs.dispatching.fairness import Candidate, InFlight, turns

TENANTS = ("a", "b", "c")
NOBODY = InFlight(jobs=Counter(), tenants=Counter())


def candidate(number: int, tenant: str = "a") -> Candidate:
    return Candidate(id=number, tenant=tenant, rank=(0, 0.0))


def served(order: list[int], candidates: list[Candidate]) -> Counter[str]:
    tenant_of = {job.id: job.tenant for job in candidates}
    return Counter(tenant_of[job] for job in order)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Candidate], InFlight, int, dict[int, int]]:
    tenants = draw(st.lists(st.sampled_from(TENANTS), min_size=1, max_size=8))
    candidates = [candidate(number, tenant) for number, tenant in enumerate(tenants)]
    jobs = Counter({job.id: draw(st.integers(0, 5)) for job in candidates})
    of_tenants = served(list(jobs.elements()), candidates)
    room = draw(st.integers(1, 40))
    capacity = draw(st.dictionaries(st.sampled_from(range(len(tenants))), st.integers(0, 6)))
    return candidates, InFlight(jobs=jobs, tenants=of_tenants), room, capacity


@given(situations())
def test_no_place_is_left_that_a_job_could_fill(
    situation: tuple[list[Candidate], InFlight, int, dict[int, int]],
) -> None:
    candidates, _, room, capacity = situation
    order = turns(*situation)
    given_away = Counter(order)
    assert all(given_away[job] <= most for job, most in capacity.items())
    if len(capacity) < len(candidates):
        assert len(order) == room
    else:
        assert len(order) == min(room, sum(capacity.values()))


@given(situations())
def test_no_tenant_could_complain(
    situation: tuple[list[Candidate], InFlight, int, dict[int, int]],
) -> None:
    """A job that still has shards holds at most one less than a job that was just served."""
    candidates, in_flight, _, capacity = situation
    order = turns(*situation)
    given_away, shares = Counter(order), served(order, candidates)
    waiting = {
        job.tenant
        for job in candidates
        if job.id not in capacity or capacity[job.id] > given_away[job.id]
    }
    for poor in waiting:
        for rich in shares:
            held = in_flight.tenants[poor] + shares[poor]
            assert held + 1 >= in_flight.tenants[rich] + shares[rich]


def test_the_jobs_of_a_tenant_take_turns() -> None:
    candidates = [candidate(1), candidate(2)]
    assert turns(candidates, NOBODY, 5, {}) == [1, 2, 1, 2, 1]
    busy = InFlight(jobs=Counter({1: 2}), tenants=Counter(a=2))
    assert turns(candidates, busy, 4, {}) == [2, 2, 1, 2]


def test_a_tenant_gains_nothing_by_many_jobs() -> None:
    candidates = [candidate(1, "a"), *[candidate(number, "b") for number in range(2, 22)]]
    order = turns(candidates, NOBODY, 16, {})
    assert served(order, candidates) == {"a": 8, "b": 8}
    assert order[:4] == [1, 2, 3, 1]


def test_what_a_tenant_has_elsewhere_counts() -> None:
    candidates = [candidate(1, "a"), candidate(2, "b")]
    elsewhere = InFlight(jobs=Counter(), tenants=Counter(a=4))
    assert turns(candidates, elsewhere, 5, {}) == [2, 2, 2, 2, 1]


def test_without_room_or_jobs_nobody_is_served() -> None:
    assert turns([], NOBODY, 3, {}) == []
    assert turns([candidate(1)], NOBODY, 0, {}) == []
    assert turns([candidate(1)], NOBODY, 3, {1: 0}) == []
