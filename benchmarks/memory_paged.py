"""The engine's own scheduler and block pool, fed with lengths instead of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.meter import measure
from batchgen.engine.scheduling.plan import StepPlan
from batchgen.engine.scheduling.scheduler import Scheduler
from batchgen.engine.scheduling.sequence import SequenceGroup
from batchgen.engine.scheduling.swapping import Swapper
from benchmarks.memory_beams import Recorded
from benchmarks.memory_contiguous import Mean, Use
from benchmarks.memory_requests import CONTEXT, Request

BATCH_TOKENS = 2048  # of a step, the engine's default
EVERY = 4  # steps from one measurement to the next
TOKEN = 0  # nothing here looks at tokens

#: The parents of the growing sequences after a request's n-th draw, counted from 0, as
#: `Scheduler.reparent` takes them; None where each continues itself.
Parents = Callable[[Request, int], list[int] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """The way in which the requests of a replay are decoded."""

    params: SamplingParams
    parents: Parents


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """The result of a replay."""

    use: Use
    # 1 - blocks in use over blocks that the tables name, as a mean over the same steps.
    saving: float
    preemptions: int
    copies: int
    steps: int


def sampling(width: int) -> Decoding:
    """Return the drawing of `width` answers to each prompt."""

    def parents(request: Request, step: int) -> list[int] | None:
        return [0] * width if step == 0 and width > 1 else None

    return Decoding(params=SamplingParams(n=width), parents=parents)


def beams(width: int, recorded: list[Recorded]) -> Decoding:
    """Return a search of `width` beams, the recorded ones dealt out to the requests in turn."""
    searches = [prompt.searches[width] for prompt in recorded]

    def parents(request: Request, step: int) -> list[int] | None:
        if step == 0:
            return [0] * width
        return searches[request.key % len(searches)].at(step, steps=request.answer)

    return Decoding(params=SamplingParams(num_beams=width), parents=parents)


class Replay:
    """One run over one pool; everything but the model is the engine's."""

    def __init__(
        self,
        requests: list[Request],
        decoding: Decoding,
        *,
        blocks: int,
        block_size: int,
        max_num_seqs: int,
    ) -> None:
        pool = BlockPool(blocks + 1, block_size)
        width = pool.blocks_for(CONTEXT)
        self.tables = BlockTables(pool, rows=max_num_seqs, width=width)
        self.scheduler = Scheduler(
            self.tables,
            max_batch_tokens=BATCH_TOKENS,
            max_num_seqs=max_num_seqs,
            swapper=Swapper(self.tables, BlockPool(blocks + 1, block_size)),
        )
        self._requests = {request.key: request for request in requests}
        self._parents = decoding.parents
        self._mean = Mean(len(requests))
        self._ended = self._steps = self._samples = 0
        self._saving = 0.0
        self._groups = {key: _group(one, decoding.params) for key, one in self._requests.items()}
        for group in self._groups.values():
            self.scheduler.add(group)

    def run(self) -> Paged:
        """Serve every request; as in the engine, use is measured before anything is drawn."""
        while self.scheduler.has_unfinished():
            plan = self.scheduler.schedule()
            self.scheduler.advance(plan)
            if self._steps % EVERY == 0:
                self._measure()
            self._draw(plan)
            self._ended += len(self.scheduler.retire(plan))
            self._steps += 1
        self.scheduler.check_integrity()
        return Paged(
            use=self._mean.use(),
            saving=self._saving / self._samples,
            preemptions=self.scheduler.preemptions,
            copies=self.tables.pool.copies_made,
            steps=self._steps,
        )

    def _measure(self) -> None:
        if not self._mean.counts(ended=self._ended, waiting=self.scheduler.num_waiting):
            return
        pool = self.tables.pool
        utilisation, saving = measure(self.scheduler)
        self._mean.add(
            of_reserved=utilisation,
            of_all=utilisation * pool.num_used / pool.capacity,
            running=self.scheduler.num_running,
        )
        self._saving += saving
        self._samples += 1

    def _draw(self, plan: StepPlan) -> None:
        """Give every sequence that draws a token, as the engine does: first fork, then append."""
        for key in dict.fromkeys(sequence.key for sequence in plan.drawing):
            group, request = self._groups[key], self._requests[key]
            parents = self._parents(request, group.sequences[0].num_generated)
            if parents is not None:
                self.scheduler.reparent(group, parents)
            for sequence in group.sequences:
                sequence.append(TOKEN, 0.0)
                if sequence.num_generated == request.answer:
                    sequence.finish_reason = "length"


def _group(request: Request, params: SamplingParams) -> SequenceGroup:
    # As in a job without max_tokens: how long answers are, the engine has to learn.
    room = CONTEXT - request.prompt
    return SequenceGroup.of_prompt(request.key, [TOKEN] * request.prompt, params, max_tokens=room)
