"""The benchmarks of speed on a tiny model, in this process: what starts another is replaced."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    alternation,
    beam,
    ceiling,
    plots,
    quantize,
    sampling,
    scaling,
    service,
    throughput,
)
from benchmarks.agreement import Agreement, agreement
from benchmarks.alternation import Engine, Outcome, RunFailed, alternate, run_json, speedup
from benchmarks.equality import parting
from benchmarks.peers import batchgen as batchgen_runner
from benchmarks.peers import transformers as transformers_runner
from benchmarks.task import Task
from benchmarks.workload import answer_lengths, chats, random_prompts, workload
from tests.support.tiny_models import tiny_llama

PEER = ["--peer", "transformers", "--peer-python", sys.executable]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), max_position_embeddings=2048)


def outcome(seconds: float, task: Task | None = None, *, finished: bool = True) -> Outcome:
    rows = task.rows if task else []
    counters = {
        "scheduler_share": 0.01,
        "steps": 3,
        "preemptions": 0,
        "weight_bytes": 1000,
        "prompt_tokens": task.prompt_tokens if task else 0,
        "generated_tokens": task.generated_tokens * task.samples if task else 0,
    }
    return Outcome(
        version="1",
        seconds=seconds,
        load_seconds=1.0,
        wall_seconds=seconds + 2.0,
        tokens=[[7] * answer for _, answer in rows],
        finished=finished,
        counters=counters,
    )


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Task]]:
    """Let every engine take no time: ours says 2 s, peers say 6 s; return what they computed."""
    computed: list[tuple[str, Task]] = []

    def run(engine: Engine, task: Task) -> Outcome:
        computed.append((engine.name, task))
        return outcome(2.0 if engine.name == "batchgen" else 6.0, task)

    monkeypatch.setattr(Engine, "run", run)
    monkeypatch.setattr(ceiling, "run", lambda model, threads: {"a": 1.0, "b": 2.0})
    return computed


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Return a `run_json` that calls the runner's or the ceiling's `main`."""
    mains = {
        "batchgen.py": batchgen_runner.main,
        "transformers.py": transformers_runner.main,
        "ceiling.py": ceiling.main,
    }

    def run(command: list[str], *, threads: int, timeout: float) -> dict[str, Any]:
        script = next(i for i, word in enumerate(command) if Path(word).name in mains)
        monkeypatch.setattr(sys, "argv", command[script:])
        mains[Path(command[script]).name]()
        return printed(capsys)

    return run


def test_engines_compute_the_same_tokens_beside_a_ceiling(
    model: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = in_this_process(monkeypatch, capsys)
    monkeypatch.setattr(alternation, "run_json", run)
    monkeypatch.setattr(ceiling, "run_json", run)
    saved = tmp_path / "results.json"
    arguments = [str(model), "--rows", "3", "--rounds", "1", "--json", "--save", str(saved), *PEER]
    assert throughput.main(arguments) == 0
    result = printed(capsys)
    assert result["total_tokens_per_second"] > result["generated_tokens_per_second"] > 0
    assert result["ceiling_ratio"] > 0
    assert result["peer_ratio"] > 0
    assert result["same_tokens"]["equal"] + result["same_tokens"]["ties"] == 3
    (entry,) = json.loads(saved.read_text())
    assert (entry["benchmark"], entry["result"]) == ("throughput", result)
    assert str(tmp_path) not in json.dumps(entry)


def test_a_process_answers_with_its_last_line_of_json() -> None:
    script = "import os; print('{}\\n{\"threads\":', os.environ['OMP_NUM_THREADS'], '}\\nbye')"
    command = [sys.executable, "-S", "-c", script]
    assert run_json(command, threads=3, timeout=60) == {"threads": 3}
    command[-1] = "raise SystemExit('no model')"
    with pytest.raises(RunFailed, match="no model"):
        run_json(command, threads=3, timeout=60)


def test_ratios_are_of_medians(
    model: Path, engines: list[tuple[str, Task]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert throughput.main([str(model), "--rows", "2", "--threads", "2", "--json", *PEER]) == 0
    result = printed(capsys)
    names = [name for name, _ in engines]
    assert names == ["batchgen", "transformers", "transformers", "batchgen", *names[:2]]
    assert len({id(task) for _, task in engines}) == 1
    assert result["threads"] == 2
    assert result["peer_ratio"] == 3.0
    assert result["generated_tokens_per_second"] == sum(answer_lengths(2)) / 2
    layers = 2 * (32 * 64 + 32 * 32 + 3 * 32 * 64)
    tokens = result["prompt_tokens"] + result["generated_tokens"]
    operations = 2 * layers * tokens + 2 * 360 * 32 * result["generated_tokens"]
    assert result["teraflop"] == round(operations / 1e12, 3)
    assert result["ceiling_ratio"] == round(operations / 2 / 2e9, 4)


def test_beams(
    model: Path, engines: list[tuple[str, Task]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert beam.main([str(model), "--rows", "2", "--width", "3", "--json", *PEER]) == 0
    assert (engines[0][1].beams, engines[0][1].generated_tokens) == (3, 128)
    result = printed(capsys)
    assert result["requests_per_second"] == 1.0
    assert result["peer"]["requests_per_second"] == pytest.approx(1 / 3, abs=1e-4)
    assert (result["peer_ratio"], result["same_answers"]) == (3.0, 2)


def test_a_search_that_was_stopped_bounds_the_ratio(
    model: Path, engines: list[tuple[str, Task]], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(model=model, rows=[([1], 2)], beams=2)
    peer = Engine(name="vllm")
    monkeypatch.setattr(
        Engine,
        "run",
        lambda engine, task: outcome(600.0, finished=False) if engine is peer else outcome(2.0),
    )
    result = beam.measure(task, peer, rounds=1)
    assert result["peer_ratio"] == 300.0
    assert result["same_answers"] is None
    assert "or more" in beam.describe(result)


def test_samples_against_prompts_apart(
    model: Path, engines: list[tuple[str, Task]], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--samples", "4", "--prompt", "30", "--answer", "5"]
    assert sampling.main([str(model), "--json", *sizes, *PEER]) == 0
    shared, apart = engines[0][1], engines[1][1]
    assert (shared.prompt_tokens, shared.samples, apart.samples) == (30, 4, 1)
    assert [len(prompt) for prompt, _ in apart.rows] == [1, 1, 1, 1]
    result = printed(capsys)
    assert (result["prompt_tokens_computed"], result["time_ratio"]) == (30, 1.0)
    assert result["peer_ratio"] == 3.0


def test_sizes_and_short_rows(
    model: Path, engines: list[tuple[str, Task]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scaling.main([str(model), "--sizes", "2", "4", "--short", "6", "--json", *PEER]) == 0
    tasks = [task for _, task in engines]
    assert [len(task.rows) for task in tasks[:4]] == [2, 4, 6, 6]
    assert {(len(prompt), answer) for prompt, answer in tasks[2].rows} == {(16, 8)}
    result = printed(capsys)
    assert [size["ratio"] for size in result["sizes"]] == [
        1.0,
        round(sum(answer_lengths(4)) / sum(answer_lengths(2)), 3),
    ]
    assert result["peer_ratio"] == 3.0
    assert "short rows" in scaling.describe(result)


def test_the_service_end_to_end(
    model: Path,
    engines: list[tuple[str, Task]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(folder: Path, *, threads: int) -> service.Run:
        lines = (folder / "prompts.jsonl").read_text().splitlines()
        assert [json.loads(line)["max_tokens"] for line in lines] == answer_lengths(2)
        assert (folder / "home" / "models" / service.MODEL).is_dir()
        return service.Run(
            rows=2,
            prompt_tokens=8,
            generated_tokens=12,
            steps=3,
            startup_seconds=1.5,
            seconds=2.0,
            busy_seconds=1.96,
            wall_seconds=4.0,
        )

    monkeypatch.setattr(service, "start", start)
    assert service.main([str(model), "--rows", "2", "--json", *PEER]) == 0
    result = printed(capsys)
    assert (result["busy_share"], result["startup_seconds"]) == (0.98, 1.5)
    assert (result["generated_tokens_per_second"], result["peer_ratio"]) == (6.0, 2.0)


def test_a_peer_needs_an_interpreter(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        throughput.main([str(model), "--peer", "vllm"])
    assert "go together" in capsys.readouterr().err


def test_the_workload_is_fixed(model: Path, tmp_path: Path) -> None:
    lengths = answer_lengths(1000)
    assert sum(lengths[:128]) == 7712  # W1
    assert lengths[128:256] == lengths[:128]
    texts = [messages[0]["content"] for messages in chats(300)]
    assert texts[:20] == [messages[0]["content"] for messages in chats(20)]
    assert len(set(texts)) == 300
    prompts = random_prompts(model, 40, tokens=16)
    assert {len(prompt) for prompt in prompts} == {16}
    assert len({tuple(prompt) for prompt in prompts}) == 40

    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "a"}\n{"prompt": "b"}\n{"messages": []}\n')
    assert [messages[0]["content"] for messages in chats(2, file=file)] == ["a", "b"]
    assert chats(3, file=file)[2] == []
    with pytest.raises(ValueError, match="has 3 rows"):
        workload(model, 4, file=file)


def test_a_task_reaches_the_runners_whole(model: Path, tmp_path: Path) -> None:
    task = Task(model=model, rows=[([1, 2, 3], 4), ([5], 6)], samples=2)
    task.write(tmp_path / "task.json")
    found = json.loads((tmp_path / "task.json").read_text())
    assert (found["prompts"], found["answers"]) == ([[1, 2, 3], [5]], [4, 6])
    assert found["warm_up"] == [[[3, 2, 1], 4], [[5], 6]]
    assert Path(found["model"]) == model
    assert found.keys() >= asdict(task).keys() - {"rows"}


def test_rounds_turn_about() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    alternate(runs, 3)
    assert "".join(order) == "abbaab"
    assert speedup([outcome(1.0), outcome(9.0), outcome(2.0)], [outcome(5.0)]) == 2.5


def test_rows_that_differ_are_judged_by_the_reference(model: Path) -> None:
    rows = [([1, 2], 3)] * 3
    ours, theirs = [[5, 6, 7], [5, 6, 7], [5, 6, 7]], [[5, 6, 7], [5, 9, 7], [5, 6]]
    assert [parting(*pair) for pair in zip(ours, theirs, strict=True)] == [None, 1, None]
    found = agreement(model, rows, ours, theirs)
    assert found == Agreement(rows=3, equal=1, ties=0, different=[1, 2])


def test_the_newest_results_are_drawn(tmp_path: Path) -> None:
    def entry(benchmark: str, **result: Any) -> dict[str, Any]:
        return {"benchmark": benchmark, "result": result}

    peer = {"name": "vllm", "version": "1", "total_tokens_per_second": 300.0}
    size = {"rows": 128, "generated_tokens_per_second": 150.0}
    entries = [
        entry("throughput", total_tokens_per_second=1.0, peer_ratio=7.77, peer=peer),
        entry("throughput", total_tokens_per_second=390.0, peer_ratio=1.3, peer=peer),
        entry("throughput", total_tokens_per_second=390.0),
        entry("scaling", sizes=[size, size | {"rows": 1000}]),
        entry("scheduler", costs=[{"waiting": 1000, "median_ms": 0.4, "share": None}]),
    ]
    written = plots.draw(entries, tmp_path)
    assert [path.name for path in written] == ["throughput.svg", "size.svg"]
    assert "1.30x" in written[0].read_text()
    assert "7.77x" not in written[0].read_text()
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in plots.draw(entries, tmp_path)] == first


def test_eight_bits_are_measured_beside_float32(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def pretend(_: Engine, task: Task) -> Outcome:
        seen.append(task.quantize)
        return outcome(4.0 if task.quantize == "none" else 2.0, task)

    monkeypatch.setattr(Engine, "run", pretend)
    arguments = [str(model), "--rows", "4", "--texts", "3", "--rounds", "1", "--json"]
    assert quantize.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert seen == ["none", "int8"] * 2
    assert [run["speedup"] for run in result["runs"]] == [2.0, 2.0]
    assert [run["equal_rows"] for run in result["runs"]] == [4, 1]
    assert 0 < result["quality"]["next_token_agreement"] <= 1
    assert result["quality"]["perplexity"] != result["quality"]["perplexity_int8"]
