"""The files of Prometheus and Grafana agree with the code, with compose and with each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchgen.telemetry.catalogue import CATALOGUE, Kind, Metric
from tests.support.repository import ROOT

DOCKER = ROOT / "docker"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "batchgen.json"
# What is shown of a metric, beside its own name.
SUFFIXES = {
    Kind.HISTOGRAM: ("_bucket", "_count", "_sum"),
    Kind.SUMMARY: ("_count", "_sum"),
}
SHOWN: dict[str, Metric] = {
    metric.name + suffix: metric
    for metric in CATALOGUE
    for suffix in SUFFIXES.get(metric.kind, ("",))
}
OF_PROMETHEUS = {"le", "instance", "job"}  # labels that it adds


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def charts() -> list[dict[str, Any]]:
    return [panel for panel in read(DASHBOARD)["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return (title, query) of all charts."""
    return [(chart["title"], target["expr"]) for chart in charts() for target in chart["targets"]]


def metrics_of(query: str) -> set[str]:
    return set(re.findall(r"\bbatchgen_\w+", query))


@pytest.mark.parametrize(("title", "query"), queries())
def test_a_query_asks_for_what_the_code_counts(title: str, query: str) -> None:
    names = metrics_of(query)
    assert names and names <= SHOWN.keys()
    grouped = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", query)
    asked = {label.strip() for group in grouped for label in group.split(",")}
    known = {label for name in names for label in SHOWN[name].labels}
    assert asked <= known | OF_PROMETHEUS
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize(("title", "query"), queries())
def test_counters_are_shown_as_rates_and_gauges_as_they_are(title: str, query: str) -> None:
    for name in metrics_of(query):
        counts = SHOWN[name].kind is not Kind.GAUGE
        rated = re.search(rf"\b(rate|increase)\({name}\[\$__rate_interval\]\)", query)
        assert bool(rated) == counts, name


def test_no_metric_is_forgotten() -> None:
    """The pool's blocks are the two numbers behind `kv_cache_usage`."""
    shown = {SHOWN[name].name for _, query in queries() for name in metrics_of(query)}
    left = {metric.name for metric in CATALOGUE} - shown
    assert left == {
        "batchgen_kv_pages_in_use",
        "batchgen_kv_pages_capacity",
        "batchgen_shards_in_flight",
    }


def test_charts_do_not_cover_each_other() -> None:
    taken = [
        (chart["gridPos"]["x"] + dx, chart["gridPos"]["y"] + dy)
        for chart in read(DASHBOARD)["panels"]
        for dx in range(chart["gridPos"]["w"])
        for dy in range(chart["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


def test_the_chain_from_a_process_to_a_chart_is_closed() -> None:
    services = read(DOCKER / "compose.yaml")["services"]
    (job,) = read(DOCKER / "prometheus" / "prometheus.yaml")["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    for name in set(found["names"]) & services.keys():
        environment = services[name]["environment"]
        assert environment[f"BATCHGEN_METRICS__{name.upper()}_PORT"] == str(found["port"])
        assert environment["BATCHGEN_METRICS__HOST"] == "0.0.0.0"  # noqa: S104 (a container's)
    (source,) = read(DOCKER / "grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"].split("//")[1].split(":")[0] in services
    assert {chart["datasource"]["uid"] for chart in charts()} == {source["uid"]}


def test_compose_gives_both_their_files() -> None:
    services = read(DOCKER / "compose.yaml")["services"]
    mounts = {
        target: DOCKER / source
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
        if (source := volume.split(":")[0]).startswith("./")
        for target in [volume.split(":")[1]]
    }
    (config,) = [word for word in services["prometheus"]["command"] if "config.file" in word]
    wanted = [
        Path(config.partition("=")[2]),
        Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]),
    ]
    for path in wanted:
        assert (mounts[str(path.parent)] / path.name).is_file()
    (provider,) = read(DOCKER / "grafana/provisioning/dashboards/batchgen.yaml")["providers"]
    assert mounts[provider["options"]["path"]] == DASHBOARD.parent


def test_only_who_asks_for_it_gets_it() -> None:
    services = read(DOCKER / "compose.yaml")["services"]
    assert {
        name for name, each in services.items() if each.get("profiles") == ["observability"]
    } == {"prometheus", "grafana"}
