"""The dashboard and the alerts in deploy/ speak of exactly the metrics that the service declares."""

import json
import re
from typing import Any, get_args

import pytest
import yaml

from router.policy import Why
from serving.metrics import ALL, CACHE_RESULTS, CODES, ENDPOINTS, PREFIX, SERVE_LABELS, Arm, Declared
from serving.settings import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD_EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = DASHBOARD_EXPRESSIONS + [rule["expr"] for rule in RULES]

NAME = re.compile(rf"\b{PREFIX}\w+")
SELECTOR = re.compile(rf"\b({PREFIX}\w+)(?:\{{([^}}]*)\}})?(\[[^\]]+\])?")
MATCHER = re.compile(r"""(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)\"""")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) \(([^)]*)\)")
EXPORTED = {
    PREFIX + declared.name + suffix: declared
    for declared in ALL
    for suffix in (("_bucket", "_sum", "_count") if declared.kind == "histogram" else ("",))
}
KNOWN_VALUES = {
    "endpoint": ENDPOINTS,
    "code": {*map(str, CODES)},
    "result": {*CACHE_RESULTS.values(), "right", "wrong"},
    "why": get_args(Why),
    "arm": get_args(Arm),
    "direction": {"same", "coarser", "finer", "failed"},
}


def labels_of(declared: Declared) -> set[str]:
    return {*declared.labels, *SERVE_LABELS, *(["le"] if declared.kind == "histogram" else [])}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_shown_or_watched_is_declared(expression: str):
    names = NAME.findall(expression)
    assert names and set(names) <= EXPORTED.keys()


def test_every_declared_metric_is_shown():
    shown = {EXPORTED[name] for expression in DASHBOARD_EXPRESSIONS for name in NAME.findall(expression)}
    assert {declared.name for declared in ALL} == {declared.name for declared in shown}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_is_one_of_its_metric(expression: str):
    known = [labels_of(EXPORTED[name]) for name in NAME.findall(expression)]
    grouped = {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")} - {""}
    assert grouped <= set.union(*known)
    for name, matchers, _ in SELECTOR.findall(expression):
        assert {label for label, _ in MATCHER.findall(matchers)} <= labels_of(EXPORTED[name])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_value_that_is_looked_for_can_occur(expression: str):
    for _, matchers, _ in SELECTOR.findall(expression):
        for label, pattern in MATCHER.findall(matchers):
            for one in pattern.split("|"):
                assert any(re.fullmatch(one, value) for value in KNOWN_VALUES[label]), (label, one)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_counters_are_rates_and_gauges_are_not(expression: str):
    for name, _, window in SELECTOR.findall(expression):
        assert bool(window) == (EXPORTED[name].kind != "gauge"), name


@pytest.mark.parametrize("expression", DASHBOARD_EXPRESSIONS)
def test_a_quantile_keeps_the_buckets(expression: str):
    if "histogram_quantile" in expression:
        assert "sum by (le" in expression and "_bucket" in expression


def test_legends_name_labels_that_the_expression_keeps():
    for panel in PANELS:
        for target in panel["targets"]:
            kept = {
                label.strip() for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(",")
            }
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_panels_have_ids_of_their_own_and_dont_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_the_rows_are_what_is_asked_first():
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        "Traffic and errors",
        "Routing decisions",
        "Savings",
        "Cache",
        "Latency",
        "Shadow and drift",
    ]


def test_every_panel_asks_the_chosen_data_source():
    (variable,) = DASHBOARD["templating"]["list"]
    wanted = {"type": variable["query"], "uid": f"${{{variable['name']}}}"}
    for panel in PANELS:
        assert panel["datasource"] == wanted and all(target["datasource"] == wanted for target in panel["targets"])


def test_every_alert_says_how_bad_it_is_and_what_is_wrong():
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == 7
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.fullmatch(r"\d+m", rule["for"]) and rule["annotations"]["summary"].endswith(".")
