"""Greedy tokens of the engine against transformers' generate, row by row, in float32.

    python benchmarks/equality.py MODEL_DIR [--questions FILE] [--rows 32] [--max-tokens 64]

A row may differ only at a tie: a position where the reference's own two best logits lie closer
than 1e-4. Ties are counted and reported, other differences end the command with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchgen.engine.config import EngineConfig

TIE = 1e-4  # logit gap below which two tokens count as equally likely
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many rows agree, and how the engine was packed while it computed them."""

    rows: int
    equal: int
    ties: int
    different: list[int]
    most_running: int  # sequences in one batch at the peak
    chunked_prefills: bool  # whether some prompt was longer than a step's token budget
    generated_tokens: int


def compare(config: EngineConfig, chats: Sequence[Messages], *, max_tokens: int) -> Comparison:
    """Generate every chat with both and compare token by token."""
    ours, most_running = _engine_tokens(config, chats, max_tokens=max_tokens)
    prompts, theirs, gaps = _reference_tokens(config.model_path, chats, max_tokens=max_tokens)
    ties, different = 0, []
    for i, (mine, reference) in enumerate(zip(ours, theirs, strict=True)):
        if mine == reference:
            continue
        at = next((k for k, (a, b) in enumerate(zip(mine, reference, strict=False)) if a != b), -1)
        if at >= 0 and gaps[i][at] < TIE:
            ties += 1
        else:
            different.append(i)
    return Comparison(
        rows=len(chats),
        equal=len(chats) - ties - len(different),
        ties=ties,
        different=different,
        most_running=most_running,
        chunked_prefills=max(map(len, prompts)) > config.max_batch_tokens,
        generated_tokens=sum(map(len, ours)),
    )


def _engine_tokens(
    config: EngineConfig, chats: Sequence[Messages], *, max_tokens: int
) -> tuple[list[list[int]], int]:
    from batchgen.engine.engine import Engine
    from batchgen.io.params import SamplingParams
    from batchgen.io.rows import GenerationRequest

    engine = Engine(config)
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, return_token_ids=True)
    for key, messages in enumerate(chats):
        engine.add(GenerationRequest(key=key, messages=messages, params=params))
    tokens: dict[int, list[int]] = {}
    most_running = 0
    while engine.has_unfinished():
        for generation in engine.step():
            assert generation.error is None, generation.error
            tokens[generation.key] = generation.choices[0].tokens or []
        most_running = max(most_running, engine.stats().running)
    return [tokens[key] for key in range(len(chats))], most_running


def _reference_tokens(
    path: Path, chats: Sequence[Messages], *, max_tokens: int
) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Return prompt ids, generated ids and, per position, the gap of the two best logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.eval()
    prompts, tokens, gaps = [], [], []
    for messages in chats:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        best = [logits[0].topk(2).values for logits in out.logits]
        prompts.append(ids[0].tolist())
        tokens.append(out.sequences[0, ids.shape[1] :].tolist())
        gaps.append([float(two[0] - two[1]) for two in best])
    return prompts, tokens, gaps


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
    result = compare(config, load_chats(args.questions, args.rows), max_tokens=args.max_tokens)
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            f"{result.equal} of {result.rows} rows equal, {result.ties} ties, "
            f"{len(result.different)} different; {result.most_running} rows in one batch, "
            f"prefills {'chunked' if result.chunked_prefills else 'whole'}, "
            f"{result.generated_tokens} tokens"
        )
    return 1 if result.different else 0


if __name__ == "__main__":
    sys.exit(main())
