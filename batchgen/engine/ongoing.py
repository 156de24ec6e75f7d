"""The engine's record of a request, from its check to the end of its answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from batchgen.core.params import SamplingParams
from batchgen.core.rows import (
    Choice,
    FinishReason,
    Generation,
    GenerationRequest,
    KVUse,
    RowError,
    Usage,
)
from batchgen.engine.decoding.answer import Answer
from batchgen.engine.decoding.beam import BeamSearch
from batchgen.engine.decoding.grammar import Grammar, GrammarCompiler, GrammarError
from batchgen.engine.decoding.logprobs import TokenLogprob, TopTokens, to_json
from batchgen.engine.decoding.randomness import as_word
from batchgen.engine.decoding.tokenizer import Tokenizer
from batchgen.engine.limits import Limits
from batchgen.engine.scheduling.meter import PoolMeter, Reading
from batchgen.engine.scheduling.sequence import Sequence, SequenceGroup


@dataclass(slots=True, kw_only=True, eq=False)
class Ongoing:
    """One unfinished request with its sequence group."""

    group: SequenceGroup
    # Token ids that end an answer: the request's, and the model's unless `ignore_eos` is set.
    ends: frozenset[int]
    # The state of the beam search; None if tokens are sampled.
    beams: BeamSearch | None
    # The reading of the pool's meter when the request was admitted.
    began: Reading
    since: float = field(default_factory=time.monotonic)
    # Milliseconds from then to the first token; None before it.
    first_token_ms: int | None = None
    # {position in the prompt: log-probability of its token}, if the request wants it.
    prompt_logprobs: dict[int, TokenLogprob] = field(default_factory=dict)
    error: RowError | None = None

    @classmethod
    def of(
        cls,
        group: SequenceGroup,
        tokenizer: Tokenizer,
        *,
        grammar: Grammar | None,
        ends: frozenset[int],
        began: Reading,
    ) -> Ongoing:
        """Return the record of a new group; `ends` are the model's own end tokens."""
        params = group.params
        asked = frozenset(params.stop_token_ids) | tokenizer.stop_tokens(params.stop)
        ends = asked if params.ignore_eos else asked | ends
        prompt = group.sequences[0]
        before = tokenizer.context(prompt.tokens)
        scanner = tokenizer.scanner(params.stop, before) if params.stop else None
        prompt.companion = Answer(params, scanner=scanner, grammar=grammar, before=before)
        beams = None
        if params.num_beams > 1:
            beams = BeamSearch(params, max_tokens=group.max_tokens, num_ends=len(ends))
        return cls(group=group, ends=ends, beams=beams, began=began)

    @property
    def seed(self) -> int:
        """The row's seed as 64 bits. Without a seed the key is used, so that rows differ."""
        seed = self.group.params.seed
        return as_word(self.group.key if seed is None else seed)

    def accept(
        self, sequence: Sequence, token: int, logprob: float, top: TopTokens | None
    ) -> FinishReason | None:
        """Add a token to `sequence`; return the finish reason if the answer is complete now."""
        if self.first_token_ms is None:
            self.first_token_ms = self._milliseconds()
        sequence.append(token, logprob)
        answer = answer_of(sequence)
        answer.note(token, logprob, top)
        counts = sequence.num_generated >= self.group.params.min_tokens
        if answer.push(token, counts=counts, is_end=token in self.ends):
            return "stop"
        return "length" if sequence.num_generated >= self.group.max_tokens else None

    def ending(self, sequence: Sequence, token: int) -> FinishReason | None:
        """Return "stop" if `token` would end the answer of `sequence`; lengths are not checked."""
        if token in self.ends:
            return "stop"
        answer = answer_of(sequence)
        if not answer.reads_text:
            return None
        counts = sequence.num_generated + 1 >= self.group.params.min_tokens
        return "stop" if answer.fork().push(token, counts=counts, is_end=False) else None

    def fail(self, error: RowError) -> None:
        """End every sequence of the request; its result is `error`."""
        self.error = error
        self.group.failed = True
        self.finish()

    def finish(self) -> None:
        """End every sequence that still grows."""
        for sequence in self.group.unfinished:
            sequence.finish_reason = "stop"

    def generation(self, tokenizer: Tokenizer, meter: PoolMeter) -> Generation:
        """Return the result of the request: its choices, or its error."""
        latency, first = self._milliseconds(), self.first_token_ms
        key, sequences = self.group.key, self.group.sequences
        use = self._use(meter)
        if self.error is not None:
            return Generation(
                key=key, error=self.error, latency_ms=latency, first_token_ms=first, kv=use
            )
        if self.beams is not None:
            sequences = self.beams.results()
        return Generation(
            key=key,
            choices=[self._choice(sequence, tokenizer) for sequence in sequences],
            usage=Usage(
                prompt_tokens=self.group.num_prompt,
                completion_tokens=sum(sequence.num_generated for sequence in sequences),
                cached_tokens=self.group.cached_tokens or 0,
            ),
            latency_ms=latency,
            first_token_ms=first,
            kv=use,
        )

    def _milliseconds(self) -> int:
        """Return the milliseconds since the request was admitted."""
        return int((time.monotonic() - self.since) * 1000)

    def _use(self, meter: PoolMeter) -> KVUse:
        """Return the request's use of the KV pool, and the state of the pool meanwhile."""
        utilisation, saving = meter.since(self.began)
        return KVUse(
            preemptions=self.group.preemptions,
            copies=self.group.copies,
            utilisation=utilisation,
            sharing_saving=saving,
        )

    def _choice(self, sequence: Sequence, tokenizer: Tokenizer) -> Choice:
        assert sequence.finish_reason is not None
        params = self.group.params
        return Choice(
            index=sequence.index,
            text=answer_of(sequence).text(sequence.generated, tokenizer.decode),
            finish_reason=sequence.finish_reason,
            score=sequence.score,
            tokens=sequence.generated if params.return_token_ids else None,
            logprobs=self._logprobs(sequence, tokenizer),
        )

    def _logprobs(self, sequence: Sequence, tokenizer: Tokenizer) -> str | None:
        params = self.group.params
        if not params.logprobs and params.prompt_logprobs is None:
            return None
        prompt = None
        if params.prompt_logprobs is not None and sequence.index == 0:
            prompt = [self.prompt_logprobs[i] for i in range(1, self.group.num_prompt)]
        content = answer_of(sequence).logprobs if params.logprobs else None
        return to_json(content, prompt, tokenizer.token_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRequest:
    """A request as checked tokens; `Engine.encode` returns it and `Engine.admit` takes it."""

    key: int
    # The reason why the request can never be computed; then there is no group.
    error: RowError | None = None
    group: SequenceGroup | None = None
    grammar: Grammar | None = None


def answer_of(sequence: Sequence) -> Answer:
    """Return the `Answer` that the engine attaches to every sequence."""
    answer = sequence.companion
    assert isinstance(answer, Answer)
    return answer


def encode_request(
    request: GenerationRequest,
    *,
    tokenizer: Tokenizer,
    grammars: GrammarCompiler,
    limits: Limits,
) -> EncodedRequest:
    """Return a request with its sequence group, or with the error that refuses it."""
    group = make_group(request, tokenizer, limits)
    if isinstance(group, RowError):
        return EncodedRequest(key=request.key, error=group)
    grammar = compile_grammar(request.params, grammars)
    if isinstance(grammar, RowError):
        return EncodedRequest(key=request.key, error=grammar)
    return EncodedRequest(key=request.key, group=group, grammar=grammar)


def compile_grammar(params: SamplingParams, compiler: GrammarCompiler) -> Grammar | RowError | None:
    """Return the grammar of a request, None if it has none, or the error if it is not usable."""
    try:
        return compiler.compile(params)
    except GrammarError as error:
        field = "json_schema" if params.json_schema is not None else "regex"
        return RowError(code="invalid_value", message=str(error), param=field)


def make_group(
    request: GenerationRequest, tokenizer: Tokenizer, limits: Limits
) -> SequenceGroup | RowError:
    """Return the sequence group of a request, or the error if it can never be computed."""
    prompt = tokenizer.encode(request)
    if isinstance(prompt, RowError):
        return prompt
    group = SequenceGroup.of_prompt(
        request.key,
        prompt,
        request.params,
        max_tokens=request.params.max_tokens or 0,
        job=request.job,
        salt=request.cache_salt,
    )
    param = "messages" if request.messages is not None else "prompt"
    return limits.check(group, param=param) or group
