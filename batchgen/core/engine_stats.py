"""The description and the counters of an engine. They cross processes; no torch is imported."""

from __future__ import annotations

import msgspec

SLOWER = "slower: "  # begins `kernels_reason` if faster kernels were wanted but are not available


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The choices that the engine made when it started."""

    # Registry name.
    model: str
    # torch's name: `cpu`, `cuda:0`.
    device: str
    # Compute type: `float32`, `bfloat16`, `float16`.
    dtype: str
    # What the weights of the linear layers were rounded to: `int8`, `none`.
    quantize: str = "none"
    # The attention kernels: `cpu` (compiled), `triton`, `reference` (plain torch); the reason.
    kernels: str = ""
    kernels_reason: str = ""
    # Tokens in one KV block, and blocks in the pool.
    block_size: int
    num_blocks: int
    # Tokens of prompt and answer together, at most.
    max_length: int
    # The most tokens and the most sequences of one step.
    max_batch_tokens: int
    max_num_seqs: int
    # Blocks of host memory for groups that are swapped out; 0 if none are.
    host_blocks: int = 0
    # CPU threads.
    threads: int = 1
    # Differences from what was asked, for a person to read.
    notes: tuple[str, ...] = ()

    @property
    def is_slow(self) -> bool:
        """True if faster kernels were wanted but are not available."""
        return self.kernels_reason.startswith(SLOWER)


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the start, and the state after the last step."""

    # Steps with work in them.
    steps: int = 0
    # Sequences in the pool; groups that wait for a place in it; those of them in host memory.
    running: int = 0
    waiting: int = 0
    swapped: int = 0
    # Tokens computed of prompts (again after a preemption), and tokens drawn.
    prompt_tokens: int = 0
    generated_tokens: int = 0
    # Prompt tokens looked up in the prefix cache, and found there: not computed.
    prefix_queries: int = 0
    prefix_hits: int = 0
    # Blocks that can be in use, and that are.
    kv_blocks: int = 0
    kv_blocks_used: int = 0
    # Filled slots over slots of the blocks in use, 0 to 1; 0 when none is.
    kv_utilisation: float = 0.0
    # 1 - blocks in use over blocks that would be without sharing.
    sharing_saving: float = 0.0
    # Groups that gave up their blocks; blocks moved to or from the host; blocks copied on write.
    preemptions: int = 0
    swapped_blocks: int = 0
    copies: int = 0
    # Seconds spent inside steps with work in them, and those of them in the scheduler.
    busy_seconds: float = 0.0
    scheduler_seconds: float = 0.0
    # Of an endpoint: requests that it gets at once at most, and requests that were sent again; why
    # no row is answered, empty while rows are; the server and its version.
    concurrency: int = 0
    retries: int = 0
    waiting_for: str = ""
    server: str = ""
