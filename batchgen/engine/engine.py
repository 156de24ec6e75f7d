"""The engine: requests in, steps, generations out.

add ─► Ongoing ─► scheduler.schedule ─► model.forward ─► sampler.draw ─► accept ─► commit
                         ▲                                                          │
                         └──────────── not ended: one more token ◄──────────────────┘
                                       ended: a Generation
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from batchgen.engine.blocks import BlockPool
from batchgen.engine.config import EngineConfig, memory_bytes
from batchgen.engine.device import free_memory, set_threads
from batchgen.engine.kvcache import KVCache, count_blocks
from batchgen.engine.loading import end_tokens
from batchgen.engine.model import CausalModel, vocabulary_size
from batchgen.engine.plan import StepPlan
from batchgen.engine.requests import Limits, Ongoing, make_group
from batchgen.engine.sampler import Rows, draw
from batchgen.engine.scheduler import Scheduler
from batchgen.engine.sequence import SequenceGroup
from batchgen.engine.stats import EngineInfo, EngineStats
from batchgen.engine.tables import BlockTables
from batchgen.engine.tokenizer import Tokenizer
from batchgen.io.rows import Generation, GenerationRequest, RowError
from batchgen_kernels.registry import create_kernels

INVALID_LOGITS = RowError(
    code="invalid_logits",
    message="The model's output for this row is not a number (NaN or infinity).",
)


class Engine:
    """One model on one device, computing many requests at once. Not thread-safe."""

    def __init__(self, config: EngineConfig) -> None:
        """Load and probe the model, then take the memory of the KV pool.

        Raises UnsupportedModel for a model that the engine does not compute correctly and
        InvalidParameter for a setting that does not fit this machine.
        """
        set_threads(config.threads)
        self.config = config
        self.model = CausalModel.load(config)
        self.tokenizer = Tokenizer(config.model_path)
        self.ends = end_tokens(self.model.network, self.tokenizer.eos_token_id)
        self.cache = self._allocate_cache()
        self.model.bind(create_kernels("reference", self.cache.pool, self.cache.layout))
        pool = BlockPool(self.cache.num_blocks, config.block_size)
        width = pool.blocks_for(self.model.max_length)
        self.tables = BlockTables(pool, rows=config.max_num_seqs, width=width)
        self.scheduler = Scheduler(
            self.tables,
            max_batch_tokens=config.max_batch_tokens,
            max_num_seqs=config.max_num_seqs,
        )
        self.limits = Limits(
            length=min(self.model.max_length, pool.capacity * config.block_size),
            context=self.model.max_length,
            vocabulary=vocabulary_size(self.model.network),
        )
        self._ongoing: dict[int, Ongoing] = {}  # {key: request}
        self._refused: list[Generation] = []  # returned by the next step
        self._steps = self._prompt_tokens = self._generated_tokens = 0
        self._busy_seconds = 0.0

    @property
    def info(self) -> EngineInfo:
        """What the engine settled on."""
        notes = list(self.model.notes)
        if self.limits.length < self.limits.context:
            notes.append(
                f"rows limited to {self.limits.length:,} of {self.limits.context:,} tokens: "
                "the KV pool holds no more (--kv-memory)"
            )
        return EngineInfo(
            model=self.config.model_name,
            device=str(self.model.device),
            dtype=str(self.model.dtype).removeprefix("torch."),
            block_size=self.config.block_size,
            num_blocks=self.cache.num_blocks,
            max_length=self.limits.length,
            max_batch_tokens=self.config.max_batch_tokens,
            max_num_seqs=self.config.max_num_seqs,
            threads=torch.get_num_threads(),
            notes=tuple(notes),
        )

    def add(self, request: GenerationRequest) -> None:
        """Take a request; one that cannot be computed ends with an error at the next step.

        Its key must differ from those of the requests that have not ended.
        """
        assert request.key not in self._ongoing, request.key
        group = make_group(request, self.tokenizer, self.limits)
        if isinstance(group, RowError):
            self._refused.append(Generation(key=request.key, error=group))
            return
        self._ongoing[request.key] = Ongoing.of(group, self.tokenizer)
        self.scheduler.add(group)

    def abort(self, keys: Iterable[int]) -> None:
        """Forget requests: no generation follows. Unknown keys are ignored."""
        forgotten = set(keys)
        self._refused = [one for one in self._refused if one.key not in forgotten]
        for key in forgotten & self._ongoing.keys():
            self.scheduler.abort(self._ongoing.pop(key).group)

    def has_unfinished(self) -> bool:
        """Return whether `step` has anything to do or to return."""
        return bool(self._refused) or self.scheduler.has_unfinished()

    def step(self) -> list[Generation]:
        """Compute one batch and return the requests that ended, those that were refused first."""
        ended, self._refused = self._refused, []
        if self.scheduler.has_unfinished():
            began = time.perf_counter()
            ended += [self._end(group) for group in self._compute(self.scheduler.schedule())]
            self._busy_seconds += time.perf_counter() - began
            self._steps += 1
        return ended

    def stats(self) -> EngineStats:
        """Return the counters, and the state after the last step."""
        pool, scheduler = self.tables.pool, self.scheduler
        computed = {
            sequence.row: sequence.num_computed
            for group in scheduler.running
            for sequence in group.unfinished
        }
        return EngineStats(
            steps=self._steps,
            running=scheduler.num_running,
            waiting=scheduler.num_waiting,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            kv_blocks=pool.capacity,
            kv_blocks_used=pool.num_used,
            kv_utilisation=self.tables.utilisation(computed),
            sharing_saving=self.tables.sharing_saving(),
            preemptions=scheduler.preemptions,
            copies=pool.copies_made,
            busy_seconds=self._busy_seconds,
        )

    def _compute(self, plan: StepPlan) -> list[SequenceGroup]:
        """Run `plan` and hand every drawn token to its request; return the groups that ended."""
        logits = self.model.forward(plan)
        ongoing = [self._ongoing[sequence.key] for sequence in plan.drawing]
        groups = [one.group for one in ongoing]
        drawn = draw(logits, Rows.of(list(zip(groups, plan.drawing, strict=True))))
        tokens, logprobs, valid = (
            array.tolist() for array in (drawn.tokens, drawn.logprobs, drawn.valid)
        )
        for i, (one, sequence) in enumerate(zip(ongoing, plan.drawing, strict=True)):
            if valid[i]:
                one.accept(sequence, tokens[i], logprobs[i], ends=self.ends)
            else:
                one.fail(INVALID_LOGITS)
        self._prompt_tokens += plan.num_prompt_tokens
        self._generated_tokens += sum(valid)
        return self.scheduler.commit(plan)

    def _end(self, group: SequenceGroup) -> Generation:
        return self._ongoing.pop(group.key).generation(self.tokenizer)

    def _allocate_cache(self) -> KVCache:
        config, model = self.config, self.model
        blocks = count_blocks(
            model.layout,
            model.dtype,
            memory=memory_bytes(config.kv_memory, free=free_memory(model.device)),
            useful=config.max_num_seqs * -(-model.max_length // config.block_size),
        )
        return KVCache(model.layout, num_blocks=blocks, dtype=model.dtype, device=model.device)
