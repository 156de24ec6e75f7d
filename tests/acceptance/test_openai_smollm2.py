"""The official client of OpenAI against a server and a worker that computes with SmolLM2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from batchgen.models.record import ModelRecord
from tests.support.batches import chat_line, jsonl
from tests.support.installation import await_status, installation, lines_of

REAL: dict[str, Any] = {
    "lease_ttl": 60.0,
    "stall_timeout": 600.0,
    "engine": {"max_num_seqs": 4, "kv_memory": "256M"},
}


def test_a_batch_of_real_answers(smollm2: ModelRecord, postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(smollm2.path.parent)
    lines = [
        chat_line(number, model=smollm2.name, max_tokens=number + 2, temperature=0)
        for number in range(3)
    ]
    lines.append(
        chat_line(3, model=smollm2.name, messages=[{"role": "user", "content": "x " * 9000}])
    )
    with (
        installation(
            tmp_path,
            database_url=postgres_url,
            worker=lambda started: started.worker(model=smollm2.name),
            **REAL,
        ) as service,
        service.client() as client,
    ):
        assert [model.id for model in client.models.list()] == [smollm2.name]
        batch = _run(client, jsonl(lines))
        answers = lines_of(client, batch.output_file_id)
        assert [answer["custom_id"] for answer in answers] == ["row-0", "row-1", "row-2"]
        for number, answer in enumerate(answers):
            body = ChatCompletion.model_validate(answer["response"]["body"], strict=True)
            assert body.usage is not None
            assert body.usage.completion_tokens == number + 2
            assert body.choices[0].message.content
        [too_long] = lines_of(client, batch.error_file_id)
        assert too_long["response"]["body"]["error"]["code"] == "context_length_exceeded"


def _run(client: openai.OpenAI, data: bytes) -> Any:
    file = client.files.create(file=("requests.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return await_status(client, batch, "completed")
