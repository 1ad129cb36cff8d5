"""Alerts, dashboard and docs ask for metrics and labels that the server has, in PromQL that parses."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from hyvideo_rt.server.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OF_PROMETHEUS = {"up": set[str]()}
OF_EVERY_SERIES = {"instance", "job"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def families() -> dict[str, tuple[str, set[str]]]:
    """The type and the labels of every metric of a server, by the name it was made with."""
    metrics = Metrics()
    metrics.watch_queue(lambda: 0, lambda: 0)
    metrics.watch_ready(lambda: True)
    made: dict[str, Any] = dict(
        metrics.registry._names_to_collectors
    )  # a series tells no labels before it has some
    return {f.name: (f.type, set(made[f.name]._labelnames)) for f in metrics.registry.collect()}


def series() -> dict[str, set[str]]:
    """The labels of every series, by its name in Prometheus."""
    found = dict(OF_PROMETHEUS)
    for name, (kind, labels) in families().items():
        for suffix in SUFFIXES[kind]:
            found[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def alerts() -> Iterator[tuple[str, str]]:
    for group in load(DEPLOY / "alerts.yml")["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def panels() -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((DEPLOY / "grafana/hyvideo-rt.json").read_text())["panels"]
    return content


def queries() -> list[tuple[str, str]]:
    """What is asked, and by whom."""
    asked = [(f"panel {p['title']}", target["expr"]) for p in panels() for target in p["targets"]]
    return [*alerts(), *asked]


def complaint(query: str, known: dict[str, set[str]]) -> str | None:
    """Why Prometheus would find nothing, if so."""
    try:
        tree = promql_parser.parse(query.replace("$__rate_interval", "5m"))
    except ValueError as error:
        return f"it does not parse: {error}"
    selectors: list[Any] = []
    grouped: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            grouped.update(node.modifier.labels)

    promql_parser.walk(tree, visit)
    for selector in selectors:
        if selector.name not in known:
            return f"there is no metric {selector.name}"
        strange = {m.name for m in selector.matchers.matchers} - known[selector.name] - OF_EVERY_SERIES
        if strange:
            return f"{selector.name} has no labels {sorted(strange)}"
    strange = grouped - OF_EVERY_SERIES - set().union(*(known[s.name] for s in selectors))
    return f"no metric in it has the labels {sorted(strange)}" if strange else None


@pytest.mark.parametrize(("asker", "query"), queries(), ids=[asker for asker, _ in queries()])
def test_what_is_asked_for_exists(asker: str, query: str) -> None:
    assert complaint(query, series()) is None


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("rate(hv_request_total[5m])", "no metric hv_request_total"),
        ("hv_requests", "no metric hv_requests"),
        ("rate(hv_stage_duration_seconds[5m])", "no metric hv_stage_duration_seconds"),
        ('hv_requests_total{state="failed"}', "no labels ['state']"),
        ("sum by (size) (hv_requests_total)", "the labels ['size']"),
        ("sum(hv_queue_depth", "does not parse"),
    ],
)
def test_what_does_not_exist_is_found(query: str, why: str) -> None:
    assert why in (complaint(query, series()) or "")


def test_the_docs_name_every_metric_with_its_labels() -> None:
    text = (ROOT / "docs/serving.md").read_text()
    rows = re.findall(r"^\| `(hv_\w+)` \|([^|]*)\|", text, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    names = {name + "_total" * (kind == "counter"): labels for name, (kind, labels) in families().items()}
    assert documented == names
    assert set(re.findall(r"\bhv_\w+", text)) <= set(series()) | set(names)


def test_statuses_and_codes_in_queries_exist() -> None:
    text = " ".join(query for _, query in queries())
    assert set(re.findall(r'hv_requests?_\w+\{[^}]*status="(\w+)"', text)) <= {
        "completed",
        "failed",
        "cancelled",
    }
    service = (ROOT / "hyvideo_rt/server/service.py").read_text()
    for code in re.findall(r'code="(\w+)"', text):
        assert f'"{code}"' in service, code


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"hv_\w+", " ".join(t["expr"] for p in panels() for t in p["targets"])))
    for name in families():
        assert any(found.startswith(name) for found in shown), name


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_prometheus_scrapes_the_server_with_its_own_key() -> None:
    config, compose = load(DEPLOY / "prometheus.yml"), (DEPLOY / "compose.yaml").read_text()
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["server:8000"]}], "the service's name in compose.yaml"
    assert job["authorization"] == {"credentials_file": "/run/secrets/metrics-key"}
    assert "secrets: [metrics-key]" in compose
    assert config["rule_files"] == ["alerts.yml"]
    for rule in (rule for group in load(DEPLOY / "alerts.yml")["groups"] for rule in group["rules"]):
        assert set(rule["annotations"]) == {"summary", "what_to_do"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_grafana_finds_its_data_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = load(provisioning / "datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    sources = {panel["datasource"]["uid"] for panel in panels()}
    assert sources == {source["uid"]}
    (provider,) = load(provisioning / "dashboards/hyvideo-rt.yaml")["providers"]
    target = f"{provider['options']['path']}/hyvideo-rt.json"
    assert f"./grafana/hyvideo-rt.json:{target}:ro" in (DEPLOY / "compose.yaml").read_text()
