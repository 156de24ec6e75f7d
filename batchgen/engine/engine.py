"""The engine: it takes requests, computes them in steps and returns generations.

add ─► Ongoing ─► schedule ─► move blocks ─► forward ─► advance ─► decode ─► retire
                     ▲                                                         │
                     └────────────── not ended: one more token ◄───────────────┘
                                     ended: a Generation
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig, memory_bytes
from batchgen.engine.decoder import Decoder
from batchgen.engine.decoding.grammar import GrammarCompiler
from batchgen.engine.decoding.tokenizer import Tokenizer
from batchgen.engine.limits import Limits
from batchgen.engine.network.device import free_memory, set_threads, use_device
from batchgen.engine.network.graphs import DecodeGraphs, GraphKernels, graph_sizes
from batchgen.engine.network.kvcache import KVCache, count_blocks, count_host_blocks
from batchgen.engine.network.loading import end_tokens
from batchgen.engine.network.model import CausalModel, vocabulary_size
from batchgen.engine.ongoing import EncodedRequest, Ongoing, encode_request
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.meter import PoolMeter, measure
from batchgen.engine.scheduling.plan import StepPlan
from batchgen.engine.scheduling.prefixes import PrefixCache
from batchgen.engine.scheduling.scheduler import Scheduler
from batchgen.engine.scheduling.sequence import SequenceGroup
from batchgen.engine.scheduling.swapping import Swapper
from batchgen.errors import InvalidParameter
from batchgen_kernels.interface import AttentionKernels
from batchgen_kernels.registry import create_kernels, reason_for


class Engine:
    """One model on one device, computing many requests at once. Not thread-safe."""

    def __init__(self, config: EngineConfig) -> None:
        """Load and probe the model, then allocate the KV pool.

        Raise UnsupportedModel if the engine does not compute the model correctly, and
        InvalidParameter if a setting does not fit this machine.
        """
        set_threads(config.threads)
        self.config = config
        self.model = CausalModel.load(config)
        use_device(self.model.device)
        self.tokenizer = Tokenizer(config.model_path)
        # A copy, because a tokenizer must not encode on one thread and decode on another.
        self.encoder = deepcopy(self.tokenizer)
        self.ends = end_tokens(self.model.network, self.tokenizer.eos_token_id)
        vocabulary = vocabulary_size(self.model.network)
        self.grammars = GrammarCompiler(self.encoder.backend, vocabulary, self.ends)
        self.cache = self._allocate_cache()
        self.kernels = kernels = self._make_kernels()
        self.model.bind(kernels)
        self._graphs = self._make_graphs(kernels) if config.cuda_graphs else None
        self.scheduler = self._make_scheduler()
        self.tables = self.scheduler.tables
        self.meter = PoolMeter(self.scheduler)
        self.limits = Limits(
            context=self.model.max_length,
            blocks=self.tables.pool.capacity,
            block_size=config.block_size,
            vocabulary=vocabulary,
            width=min(config.max_num_seqs, config.max_batch_tokens),
        )
        self._ongoing: dict[int, Ongoing] = {}  # {key: request}
        self._refused: list[Generation] = []  # returned by the next step
        self._steps = self._prompt_tokens = self._generated_tokens = 0
        self._busy_seconds = self._scheduler_seconds = 0.0
        self._decoder = Decoder(self.scheduler, self._ongoing)

    @property
    def info(self) -> EngineInfo:
        """The choices that the engine made when it started."""
        notes = [*self.model.notes, *self.tokenizer.notes]
        if self.limits.length < self.limits.context:
            notes.append(
                f"rows limited to {self.limits.length:,} of {self.limits.context:,} tokens: "
                "the KV pool holds no more (--kv-memory)"
            )
        return EngineInfo(
            model=self.config.model_name,
            device=str(self.model.device),
            dtype=str(self.model.dtype).removeprefix("torch."),
            quantize=self.config.quantize,
            kernels=self.kernels.name,
            kernels_reason=reason_for(
                self.kernels, self.config.kernels, self.cache.pool, self.cache.layout
            ),
            block_size=self.config.block_size,
            num_blocks=self.cache.num_blocks,
            host_blocks=len(self.cache.host),
            max_length=self.limits.length,
            max_batch_tokens=self.config.max_batch_tokens,
            max_num_seqs=self.config.max_num_seqs,
            threads=torch.get_num_threads(),
            notes=tuple(notes),
        )

    def encode(self, request: GenerationRequest) -> EncodedRequest:
        """Return a request as checked tokens.

        One thread may call this while another thread calls the other methods.
        """
        return encode_request(
            request, tokenizer=self.encoder, grammars=self.grammars, limits=self.limits
        )

    def admit(self, encoded: EncodedRequest) -> None:
        """Queue an encoded request; if it has an error, the next step returns it.

        Its key must differ from the keys of all requests that have not ended.
        """
        assert encoded.key not in self._ongoing, encoded.key
        if encoded.group is None:
            self._refused.append(Generation(key=encoded.key, error=encoded.error))
            return
        self._ongoing[encoded.key] = Ongoing.of(
            encoded.group,
            self.tokenizer,
            grammar=encoded.grammar,
            ends=self.ends,
            began=self.meter.reading,
        )
        self.scheduler.add(encoded.group)

    def add(self, request: GenerationRequest) -> None:
        """Encode a request and queue it; for callers with one thread."""
        self.admit(self.encode(request))

    def abort(self, keys: Iterable[int]) -> None:
        """Drop requests; they give no generation. Unknown keys are ignored."""
        forgotten = set(keys)
        self._refused = [one for one in self._refused if one.key not in forgotten]
        for key in forgotten & self._ongoing.keys():
            self.scheduler.abort(self._ongoing.pop(key).group)

    def has_unfinished(self) -> bool:
        """Return whether `step` has something to compute or to return."""
        return bool(self._refused) or self.scheduler.has_unfinished()

    def has_waiting(self) -> bool:
        """Return whether requests wait for a place in the batch; safe on any thread."""
        return self.scheduler.num_waiting > 0

    def step(self) -> list[Generation]:
        """Compute one batch and return the requests that ended; refused requests come first."""
        ended, self._refused = self._refused, []
        if self.scheduler.has_unfinished():
            began = time.perf_counter()
            ended += self._compute()
            self._busy_seconds += time.perf_counter() - began
            self._steps += 1
        return ended

    def progress(self) -> dict[int, int]:
        """Return {key: tokens generated so far} of the requests that have any."""
        counts = {key: one.group.num_drawn for key, one in self._ongoing.items()}
        return {key: count for key, count in counts.items() if count}

    def stats(self) -> EngineStats:
        """Return the counters, and the state after the last step."""
        pool, scheduler, prefixes = self.tables.pool, self.scheduler, self.scheduler.prefixes
        utilisation, saving = measure(scheduler)
        return EngineStats(
            steps=self._steps,
            running=scheduler.num_running,
            waiting=scheduler.num_waiting,
            swapped=scheduler.num_swapped,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            prefix_queries=prefixes.asked_tokens if prefixes is not None else 0,
            prefix_hits=prefixes.hit_tokens if prefixes is not None else 0,
            kv_blocks=pool.capacity,
            kv_blocks_used=pool.num_used,
            kv_utilisation=utilisation,
            sharing_saving=saving,
            preemptions=scheduler.preemptions,
            swapped_blocks=scheduler.swapper.moved,
            copies=pool.copies_made,
            busy_seconds=self._busy_seconds,
            scheduler_seconds=self._scheduler_seconds,
        )

    def _compute(self) -> list[Generation]:
        """Compute one step and return the requests that ended."""
        began = time.perf_counter()
        plan = self.scheduler.schedule()
        scheduled = time.perf_counter()
        logits = self._forward(plan)
        computed = time.perf_counter()
        self.scheduler.advance(plan)
        self.meter.tick()
        advanced = time.perf_counter()
        self._generated_tokens += self._decoder.decode(plan, logits)
        decoded = time.perf_counter()
        ended = self.scheduler.retire(plan)
        self._prompt_tokens += plan.num_prompt_tokens
        retired = time.perf_counter()
        self._scheduler_seconds += scheduled - began + advanced - computed + retired - decoded
        return [self._end(group) for group in ended]

    def _forward(self, plan: StepPlan) -> Tensor:
        """Swap the blocks of `plan`, then compute its tokens; return float32 logits [N, V]."""
        self.cache.swap_out(plan.swap_outs)
        self.cache.swap_in(plan.swap_ins)
        if self._graphs is not None and self._graphs.can_run(plan):
            return self._graphs.run(plan)
        return self.model.forward(plan)

    def _end(self, group: SequenceGroup) -> Generation:
        return self._ongoing.pop(group.key).generation(self.tokenizer, self.meter)

    def _make_kernels(self) -> AttentionKernels:
        try:
            return create_kernels(self.config.kernels, self.cache.pool, self.cache.layout)
        except ValueError as error:
            message = f"{error}. Set kernels to auto."
            raise InvalidParameter(message, param="kernels") from error

    def _make_graphs(self, kernels: AttentionKernels) -> DecodeGraphs:
        if self.model.device.type != "cuda" or not isinstance(kernels, GraphKernels):
            raise InvalidParameter(
                "CUDA graphs need a GPU and the Triton kernels. Set cuda_graphs to false.",
                param="cuda_graphs",
            )
        kernels.reserve(sequences=self.config.max_num_seqs, blocks=self.cache.num_blocks)
        sizes = graph_sizes(min(self.config.max_num_seqs, self.config.max_batch_tokens))
        return DecodeGraphs(self.model.network, kernels, sizes=sizes, device=self.model.device)

    def _make_scheduler(self) -> Scheduler:
        config, layout = self.config, self.model.layout
        pool = BlockPool(self.cache.num_blocks, config.block_size)
        width = pool.blocks_for(self.model.max_length)
        tables = BlockTables(pool, rows=config.max_num_seqs, width=width)
        host = len(self.cache.host)
        windows = [shape.window for shape in layout.layers]
        return Scheduler(
            tables,
            max_batch_tokens=config.max_batch_tokens,
            max_num_seqs=config.max_num_seqs,
            swapper=Swapper(tables, BlockPool(host, config.block_size) if host else None),
            preemption=config.preemption,
            prefixes=PrefixCache(pool, model=config.model_name) if config.prefix_caching else None,
            window=None if None in windows else max(w for w in windows if w is not None),
        )

    def _allocate_cache(self) -> KVCache:
        config, model = self.config, self.model
        free = free_memory(model.device)
        blocks = count_blocks(
            model.layout,
            model.dtype,
            memory=memory_bytes(config.kv_memory, free=free),
            useful=config.max_num_seqs * -(-model.max_length // config.block_size),
        )
        host = 0
        if config.preemption != "recompute":
            memory = memory_bytes(config.swap_memory, free=free_memory(torch.device("cpu")))
            host = count_host_blocks(model.layout, model.dtype, memory=memory, device=blocks)
        return KVCache(
            model.layout,
            num_blocks=blocks,
            host_blocks=host,
            dtype=model.dtype,
            device=model.device,
        )
