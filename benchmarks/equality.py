"""Greedy tokens or beams of the engine against transformers' generate, row by row, in float32.

    python benchmarks/equality.py MODEL_DIR [--questions FILE] [--rows 32] [--max-tokens 64]
                                            [--beams 1]

A row may differ only at a tie: greedy, a position where the reference's own two best logits lie
closer than 1e-4; with beams, where every answer scores within 1e-4 of the reference's in its place.
Ties are counted and reported, other differences end the command with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchgen.core.params import SamplingParams
    from batchgen.engine.config import EngineConfig

TIE = 1e-4  # logit gap below which two tokens count as equally likely
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"

Messages = list[dict[str, Any]]
Verdict = Literal["equal", "tie", "different"]
Answers = list[tuple[list[int], float]]  # token ids and score, best first


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Counts rows that agree, and shows how full the engine was while it computed them."""

    rows: int
    equal: int
    ties: int
    different: list[int]
    most_running: int  # sequences in one batch at the peak
    chunked_prefills: bool  # whether some prompt was longer than a step's token budget
    generated_tokens: int

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], **packing: Any) -> Self:
        """Return the comparison of rows that were judged one by one."""
        return cls(
            rows=len(verdicts),
            equal=verdicts.count("equal"),
            ties=verdicts.count("tie"),
            different=[i for i, verdict in enumerate(verdicts) if verdict == "different"],
            **packing,
        )


def compare(config: EngineConfig, chats: Sequence[Messages], *, max_tokens: int) -> Comparison:
    """Generate every chat with both and compare token by token."""
    ours, most_running = _engine_tokens(config, chats, max_tokens=max_tokens)
    prompts, theirs, gaps = _reference_tokens(config.model_path, chats, max_tokens=max_tokens)
    return Comparison.of(
        [_judge(*row) for row in zip(ours, theirs, gaps, strict=True)],
        most_running=most_running,
        chunked_prefills=max(map(len, prompts)) > config.max_batch_tokens,
        generated_tokens=sum(map(len, ours)),
    )


def compare_beams(
    config: EngineConfig, chats: Sequence[Messages], *, max_tokens: int, beams: int
) -> Comparison:
    """Search `beams` beams for every chat with both; compare all answers and their scores."""
    ours, most_running = _engine_beams(config, chats, max_tokens=max_tokens, beams=beams)
    prompts, theirs = _reference_beams(config.model_path, chats, max_tokens=max_tokens, beams=beams)
    return Comparison.of(
        [_judge_beams(*row) for row in zip(ours, theirs, strict=True)],
        most_running=most_running,
        chunked_prefills=max(map(len, prompts)) > config.max_batch_tokens,
        generated_tokens=sum(len(tokens) for answers in ours for tokens, _ in answers),
    )


def _judge(mine: list[int], theirs: list[int], gaps: list[float]) -> Verdict:
    if mine == theirs:
        return "equal"
    at = parting(mine, theirs)
    return "tie" if at is not None and gaps[at] < TIE else "different"


def parting(mine: list[int], other: list[int]) -> int | None:
    """Return where two answers first differ; None where one only ends before the other."""
    pairs = enumerate(zip(mine, other, strict=False))
    return next((k for k, (a, b) in pairs if a != b), None)


def _judge_beams(mine: Answers, theirs: Answers) -> Verdict:
    if len(mine) != len(theirs):
        return "different"
    pairs = list(zip(mine, theirs, strict=True))
    if any(abs(score - expected) >= TIE for (_, score), (_, expected) in pairs):
        return "different"
    return "equal" if all(ours == other for (ours, _), (other, _) in pairs) else "tie"


def _engine_tokens(
    config: EngineConfig, chats: Sequence[Messages], *, max_tokens: int
) -> tuple[list[list[int]], int]:
    from batchgen.core.params import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, return_token_ids=True)
    answers, most_running = _engine_answers(config, chats, params)
    return [tokens for ((tokens, _),) in answers], most_running


def _engine_beams(
    config: EngineConfig, chats: Sequence[Messages], *, max_tokens: int, beams: int
) -> tuple[list[Answers], int]:
    from batchgen.core.params import SamplingParams

    params = SamplingParams(n=beams, num_beams=beams, max_tokens=max_tokens, return_token_ids=True)
    return _engine_answers(config, chats, params)


def _engine_answers(
    config: EngineConfig, chats: Sequence[Messages], params: SamplingParams
) -> tuple[list[Answers], int]:
    """Return what every chat is answered, and the sequences in one batch at the peak."""
    from batchgen.core.rows import GenerationRequest
    from batchgen.engine.engine import Engine

    engine = Engine(config)
    for key, messages in enumerate(chats):
        engine.add(GenerationRequest(key=key, messages=messages, params=params))
    answers: dict[int, Answers] = {}
    most_running = 0
    while engine.has_unfinished():
        for generation in engine.step():
            assert generation.error is None, generation.error
            answers[generation.key] = [
                (choice.tokens or [], choice.score or 0.0) for choice in generation.choices
            ]
        most_running = max(most_running, engine.stats().running)
    return [answers[key] for key in range(len(chats))], most_running


def _reference_tokens(
    path: Path, chats: Sequence[Messages], *, max_tokens: int
) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Return prompt ids, generated ids and, per position, the gap of the two best logits."""
    prompts, tokens, gaps = [], [], []
    for ids, out in _generate(path, chats, max_new_tokens=max_tokens, output_logits=True):
        best = [logits[0].topk(2).values for logits in out.logits]
        prompts.append(ids)
        tokens.append(out.sequences[0, len(ids) :].tolist())
        gaps.append([float(two[0] - two[1]) for two in best])
    return prompts, tokens, gaps


def _reference_beams(
    path: Path, chats: Sequence[Messages], *, max_tokens: int, beams: int
) -> tuple[list[list[int]], list[Answers]]:
    """Return prompt ids and, best first, generated ids with their scores."""
    prompts, answers = [], []
    options = {"num_beams": beams, "num_return_sequences": beams, "output_scores": True}
    for ids, out in _generate(path, chats, max_new_tokens=max_tokens, **options):
        lengths = (out.beam_indices >= 0).sum(1).tolist()
        found = zip(out.sequences, lengths, out.sequences_scores.tolist(), strict=True)
        prompts.append(ids)
        answers.append(
            [(row[len(ids) : len(ids) + length].tolist(), score) for row, length, score in found]
        )
    return prompts, answers


def _generate(
    path: Path, chats: Sequence[Messages], **options: Any
) -> Iterator[tuple[list[int], Any]]:
    """Yield prompt ids and what transformers' `generate` returns for each chat, alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.eval()
    for messages in chats:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                return_dict_in_generate=True,
                **options,
            )
        yield ids[0].tolist(), out


def load_chats(path: Path, rows: int) -> list[Messages]:
    """Return the first chats of a JSONL file of `messages`, or of `question`s."""
    chats: list[Messages] = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if "messages" in record:
            chats.append(record["messages"])
        elif "question" in record:
            chats.append([{"role": "user", "content": record["question"]}])
        if len(chats) == rows:
            break
    return chats


def main() -> int:
    """Run the comparison and print it."""
    from batchgen.engine.config import EngineConfig

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=Path, default=EXAMPLES)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--max-batch-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    config = EngineConfig(
        model_path=args.model,
        model_name=args.model.name,
        dtype="float32",
        max_batch_tokens=args.max_batch_tokens,
        threads=args.threads,
    )
    chats = load_chats(args.questions, args.rows)
    if args.beams > 1:
        result = compare_beams(config, chats, max_tokens=args.max_tokens, beams=args.beams)
    else:
        result = compare(config, chats, max_tokens=args.max_tokens)
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            f"{result.equal} of {result.rows} rows equal, {result.ties} ties, "
            f"{len(result.different)} different; {result.most_running} sequences in one batch, "
            f"prefills {'chunked' if result.chunked_prefills else 'whole'}, "
            f"{result.generated_tokens} tokens"
        )
    return 1 if result.different else 0


if __name__ == "__main__":
    sys.exit(main())
