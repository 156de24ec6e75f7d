"""The dialects of OpenAI's API that endpoints speak."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """The server behind an endpoint; it decides which parameters are sent and by what name."""

    OPENAI = "openai"  #: Only what OpenAI's own API documents.
    VLLM = "vllm"  #: vLLM's server.
    SGLANG = "sglang"  #: SGLang's server.
    LLAMA_CPP = "llama.cpp"  #: llama-server, or the server of llama-cpp-python.
