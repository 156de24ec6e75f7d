"""Compute a task with vLLM: python -P benchmarks/peers/vllm.py TASK.json

Its first start compiles for minutes, and keeps what it compiled; no part of that is timed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

PROCESS_BEGAN = time.perf_counter()
KV_MEMORY = "4"  # GiB
CONTEXT = 2048  # tokens of one sequence


class OutOfTime(BaseException):
    """The search took longer than it was given; no Exception, which vLLM may handle itself."""


def out_of_time(*_: object) -> NoReturn:
    """End the search from the alarm's handler."""
    raise OutOfTime


def sample(llm: Any, task: dict[str, Any], rows: list[tuple[list[int], int]]) -> list[list[int]]:
    """Return the tokens of every row's first choice."""
    from vllm import SamplingParams

    samples = task["samples"]
    params = [
        SamplingParams(
            n=samples,
            temperature=1.0 if samples > 1 else 0.0,
            seed=0 if samples > 1 else None,
            max_tokens=answer,
            ignore_eos=True,
            detokenize=False,
        )
        for _, answer in rows
    ]
    prompts = [{"prompt_token_ids": prompt} for prompt, _ in rows]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def search(llm: Any, task: dict[str, Any], rows: list[tuple[list[int], int]]) -> list[list[int]]:
    """Return the tokens of every row's best beam; all answers are equally long at most."""
    from vllm.sampling_params import BeamSearchParams

    prompts = [{"prompt_token_ids": prompt} for prompt, _ in rows]
    params = BeamSearchParams(beam_width=task["beams"], max_tokens=rows[0][1])
    outputs = llm.beam_search(prompts, params)
    return [
        list(output.sequences[0].tokens[len(prompt) :])
        for output, (prompt, _) in zip(outputs, rows, strict=True)
    ]


def main() -> None:
    """Load, warm up, compute and print one JSON line."""
    task = json.loads(Path(sys.argv[1]).read_text())
    # by itself it leaves out one of two hardware threads of a core
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))[: task["threads"]]]
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(cores))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", KV_MEMORY)
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import torch
    import vllm

    llm = vllm.LLM(
        model=task["model"],
        dtype="float32",
        max_model_len=CONTEXT,
        max_num_seqs=task["max_num_seqs"],
        enable_prefix_caching=task["prefix_caching"],
        max_logprobs=2 * task["beams"] + 2,
    )
    rows = list(zip(task["prompts"], task["answers"], strict=True))
    warm_up = [(prompt, min(8, answer)) for prompt, answer in task["warm_up"]]
    sample(llm, {"samples": 1}, warm_up)
    compute = search if task["beams"] > 1 else sample
    load_seconds = time.perf_counter() - PROCESS_BEGAN
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, task["limit"])
    began = time.perf_counter()
    try:
        tokens, finished = compute(llm, task, rows), True
    except OutOfTime:
        tokens, finished = [], False
    seconds = time.perf_counter() - began
    signal.setitimer(signal.ITIMER_REAL, 0)
    result = {
        "version": vllm.__version__,
        "seconds": seconds,
        "load_seconds": load_seconds,
        "tokens": tokens,
        "finished": finished,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
