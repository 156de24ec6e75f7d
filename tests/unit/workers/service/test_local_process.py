from __future__ import annotations

import subprocess
import sys

import pytest

from batchgen.settings import EngineSettings, Settings
from batchgen_workers.service.local_process import OF_A_CLIENT, environment_of


def test_a_process_reads_the_settings_it_was_started_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(
        home="/somewhere/else",  # type: ignore[arg-type]
        database_url="postgresql://user:secret@host/db",
        broker_url="redis+socket:///tmp/broker.sock",
        lease_ttl=2.5,
        shards_in_flight=7,
        engine=EngineSettings(device="cuda:1", kv_memory="2G", max_num_seqs=5, threads=3),
    )
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_every_setting_is_passed_on_and_none_is_empty() -> None:
    passed = environment_of(Settings())
    missing = (
        Settings.model_fields.keys()
        - OF_A_CLIENT
        - {name.removeprefix("BATCHGEN_").lower() for name in passed}
    )
    # whose default is empty
    assert missing == {"database_url", "broker_url", "webhook_hosts", "webhook_networks"}
    assert all(passed.values())


def test_an_unknown_process_is_refused() -> None:
    command = [sys.executable, "-m", "batchgen_workers.service.local_process", "nonsense"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"no process of the stack" in process.stderr.read()
    assert process.returncode == 1
