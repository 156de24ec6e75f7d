"""The container files: linted, checked against their schema, and hardened as documented."""

from __future__ import annotations

import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

import batchgen
from batchgen.errors import InvalidParameter
from batchgen.service.exposure import check_exposure
from batchgen.settings import Settings
from tests.support.repository import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
OURS = ("migrate", "coordinator", "server", "worker", "cli")
LASTING = ("postgres", "valkey", "coordinator", "server", "worker", "prometheus", "grafana")
# Those with a port on this machine, and on this machine only.
PUBLISHED = ("grafana", "server")


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool that is installed beside this interpreter."""
    program = str(Path(sys.executable).with_name(name))
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    found: dict[str, Any] = document["services"]
    return found


def test_the_dockerfile_is_clean() -> None:
    done = tool("hadolint", "--failure-threshold", "style", str(DOCKERFILE))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_follows_its_schema() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = tool("check-jsonschema", *schema, str(COMPOSE))
    assert done.returncode == 0, done.stdout


def test_the_schema_would_refuse_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {worker: {cap_drop: ALL}}\n")
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong))
    assert done.returncode == 1


def test_images_are_pinned(services: dict[str, Any]) -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    images = [service["image"] for service in services.values()]
    for image in (*bases, *images):
        assert re.search(r":v?\d+\.\d+", image), image
    assert {services[name]["image"] for name in OURS} == {f"batchgen:{batchgen.__version__}"}


def test_the_image_runs_as_nobody_special() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    final = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert "USER 10001:10001" in final
    assert not [line for line in final if line.startswith("COPY") and "--from=build" not in line]


def test_every_container_is_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        edge = ["edge"] if name in PUBLISHED else []
        assert service["networks"] == ["backend", *edge], name
        ports = service.get("ports", [])
        assert bool(ports) == (name in PUBLISHED), name
        assert all(port.startswith("127.0.0.1:") for port in ports), name
        assert "privileged" not in service, name
        if name not in OURS:
            assert not service["user"].startswith("0"), name


def test_what_lasts_is_watched_and_restarted(services: dict[str, Any]) -> None:
    assert "HEALTHCHECK" in DOCKERFILE.read_text(encoding="utf-8")
    for name in LASTING:
        assert services[name]["restart"] == "unless-stopped", name
        assert name in OURS or services[name]["healthcheck"]["test"], name


def test_nothing_starts_before_the_schema_is_there(services: dict[str, Any]) -> None:
    assert services["migrate"]["command"] == ["db", "upgrade"]
    for name in ("coordinator", "server", "worker", "cli"):
        needed = services[name]["depends_on"]
        assert needed["migrate"]["condition"] == "service_completed_successfully"
        assert needed["valkey"]["condition"] == "service_healthy"


def test_a_worker_has_time_to_drain(services: dict[str, Any]) -> None:
    grace = float(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > 2 * Settings.model_fields["drain_grace"].default


@pytest.mark.parametrize("key", ["", "bg_key"])
def test_the_server_is_asked_with_its_secret(
    services: dict[str, Any], key: str, tmp_path: Path
) -> None:
    server = services["server"]
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert document["secrets"] == {"health-key": {"environment": "HEALTH_KEY"}}
    assert server["secrets"] == ["health-key"]
    _, python, flag, script = server["healthcheck"]["test"]
    assert (python, flag) == ("python", "-c")
    secret = tmp_path / "health-key"
    secret.write_text(f"{key}\n")
    answering = _Answering()
    try:
        here = script.replace("/run/secrets/health-key", str(secret))
        here = here.replace("127.0.0.1:8000", f"127.0.0.1:{answering.port}")
        healthy = subprocess.run([sys.executable, "-c", here], capture_output=True, timeout=60)
        answering.status = 503
        ill = subprocess.run([sys.executable, "-c", here], capture_output=True, timeout=60)
    finally:
        answering.close()
    assert (healthy.returncode, ill.returncode) == (0, 1)
    asked = ("/readyz", f"Bearer {key}") if key else ("/healthz", "Bearer ")
    assert answering.asked == [asked, asked]


class _Answering:
    """A server that answers everything alike, and notes what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["authorization"]))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    example = (ROOT / "docker" / "env.example").read_text(encoding="utf-8")
    for name in ("POSTGRES_PASSWORD", "VALKEY_PASSWORD"):
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text
        assert f"\n{name}=\n" in example


@pytest.mark.parametrize("name", ["coordinator", "server", "worker", "migrate"])
def test_commands_are_those_of_the_command_line(services: dict[str, Any], name: str) -> None:
    import click

    from batchgen_cli.main import cli

    command: click.Command = cli
    context = click.Context(cli)
    for word in services[name]["command"]:
        if word.startswith("-"):
            assert any(word in option.opts for option in command.params), word
            break
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        assert found is not None, word
        command = found


def test_the_servers_of_the_internal_network_are_meant_to_speak_no_tls() -> None:
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert document["networks"] == {"backend": {"internal": True}, "edge": None}
    environment = document["services"]["worker"]["environment"]
    urls: dict[str, Any] = {
        name: re.sub(r"\$\{\w+:[^}]*\}", "word", environment[f"BATCHGEN_{name.upper()}"])
        for name in ("database_url", "broker_url")
    }
    with pytest.raises(InvalidParameter):
        check_exposure(Settings(**urls))
    check_exposure(Settings(**urls, insecure=environment["BATCHGEN_INSECURE"]))
