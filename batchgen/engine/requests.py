"""A request on its way through the engine: checked, then followed until its answer is whole."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from batchgen.engine.sequence import Sequence, SequenceGroup
from batchgen.engine.tokenizer import StopScanner, Tokenizer, cut_at_stop
from batchgen.io.rows import Choice, Generation, GenerationRequest, RowError, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sequence can be, in tokens."""

    # Prompt and answer together: the model's context, or less where the pool holds less.
    length: int
    # The model's context alone.
    context: int
    # Token ids that the model can read.
    vocabulary: int


@dataclass(slots=True, kw_only=True, eq=False)
class Ongoing:
    """One request with its group, until it ends."""

    group: SequenceGroup
    # Of each sequence, in order; None where no stop string is looked for.
    scanners: list[StopScanner | None]
    since: float = field(default_factory=time.monotonic)
    # {index of a sequence: its text}, where a stop string ended it.
    stopped: dict[int, str] = field(default_factory=dict)
    error: RowError | None = None

    @classmethod
    def of(cls, group: SequenceGroup, tokenizer: Tokenizer) -> Ongoing:
        """Return the record of a new group."""
        stop = group.params.stop
        scanners = [StopScanner(tokenizer.decode, stop) if stop else None for _ in group.sequences]
        return cls(group=group, scanners=scanners)

    def accept(
        self, sequence: Sequence, token: int, logprob: float, *, ends: frozenset[int]
    ) -> None:
        """Add a drawn token to `sequence` and decide whether its answer is complete."""
        sequence.append(token, logprob)
        scanner = self.scanners[sequence.index]
        if token in ends and not self.group.params.ignore_eos:
            sequence.finish_reason = "stop"
        elif scanner is not None and (text := scanner.push(token)) is not None:
            self.stopped[sequence.index] = text
            sequence.finish_reason = "stop"
        elif sequence.num_generated >= self.group.max_tokens:
            sequence.finish_reason = "length"

    def fail(self, error: RowError) -> None:
        """End every sequence of the request: it has an error instead of an answer."""
        self.error = error
        for sequence in self.group.unfinished:
            sequence.finish_reason = "stop"

    def generation(self, tokenizer: Tokenizer) -> Generation:
        """Return the answer, or the error."""
        latency = int((time.monotonic() - self.since) * 1000)
        key, sequences = self.group.key, self.group.sequences
        if self.error is not None:
            return Generation(key=key, error=self.error, latency_ms=latency)
        usage = Usage(
            prompt_tokens=sequences[0].num_prompt,
            completion_tokens=sum(sequence.num_generated for sequence in sequences),
        )
        choices = [self._choice(sequence, tokenizer) for sequence in sequences]
        return Generation(key=key, choices=choices, usage=usage, latency_ms=latency)

    def _choice(self, sequence: Sequence, tokenizer: Tokenizer) -> Choice:
        assert sequence.finish_reason is not None
        text = self.stopped.get(sequence.index)
        if text is None:
            # What the scanner held back is whole now, or as whole as it gets.
            whole = tokenizer.decode(sequence.generated)
            cut = cut_at_stop(whole, self.group.params.stop)
            text = whole if cut is None else cut
        return Choice(
            index=sequence.index,
            text=text,
            finish_reason=sequence.finish_reason,
            score=sequence.score,
            tokens=sequence.generated if self.group.params.return_token_ids else None,
        )


def make_group(
    request: GenerationRequest, tokenizer: Tokenizer, limits: Limits
) -> SequenceGroup | RowError:
    """Return the sequence group of a request, or why it cannot be computed."""
    if request.params.n != 1:
        message = f"n is {request.params.n}; this engine draws one answer a row."
        return RowError(code="unsupported_parameter", message=message, param="n")
    prompt = tokenizer.encode(request)
    if isinstance(prompt, RowError):
        return prompt
    error = _check_prompt(prompt, limits) or _check_length(len(prompt), request, limits)
    if error is not None:
        return error
    room = limits.length - len(prompt)
    asked = request.params.max_tokens
    return SequenceGroup.of_prompt(
        request.key, prompt, request.params, max_tokens=room if asked is None else asked
    )


def _check_prompt(prompt: list[int], limits: Limits) -> RowError | None:
    if not prompt:
        return RowError(code="empty_prompt", message="The prompt holds no tokens.", param="prompt")
    if not 0 <= min(prompt) <= max(prompt) < limits.vocabulary:
        message = f"The prompt has a token id outside 0 to {limits.vocabulary - 1}."
        return RowError(code="invalid_value", message=message, param="prompt")
    return None


def _check_length(prompt: int, request: GenerationRequest, limits: Limits) -> RowError | None:
    """Refuse what can never fit, in OpenAI's words: the worst case, not the likely one."""
    asked = request.params.max_tokens
    total = prompt + (1 if asked is None else asked)
    if total <= limits.length:
        return None
    if limits.length < limits.context:
        limit = f"The KV pool holds {limits.length} tokens of one row (the model's context is "
        limit += f"{limits.context}; raise --kv-memory)"
    else:
        limit = f"This model's maximum context length is {limits.context} tokens"
    answer = "at least 1 in the answer" if asked is None else f"{asked} in the answer"
    message = f"{limit}. However, this row needs {total} tokens: {prompt} in the prompt, {answer}."
    param = "messages" if request.messages is not None else "prompt"
    return RowError(code="context_length_exceeded", message=message, param=param)
