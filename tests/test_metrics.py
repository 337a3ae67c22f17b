"""What is counted, and under which labels."""

import asyncio
import re
from dataclasses import fields, replace
from typing import get_args

import pytest
from doubles import LADDER, CollectedMetrics
from hypothesis import given
from hypothesis import strategies as st

from router.cache import CacheStats
from router.policy import Decision, Why
from serving.metrics import (
    ALL,
    ANSWER_TIME,
    CACHE,
    CACHE_RESULTS,
    CODES,
    DECISION_TIME,
    DECISIONS,
    DRIFT,
    ENDPOINTS,
    FEEDBACK,
    FIRST_TOKEN_TIME,
    IF_FINEST,
    PROBABILITY,
    RATE_LIMITED,
    REQUESTS,
    RUNNING,
    SERVE_LABELS,
    SHADOW,
    VISUAL_TOKENS,
    WAITING,
    Metrics,
    keep_telling,
)

DECISION = Decision(36, LADDER, (0.1, 0.2, 0.3, 0.4, 0.5), "predicted", 0.001, "artifact", 2.5)


@pytest.fixture
def seen() -> CollectedMetrics:
    return CollectedMetrics()


@pytest.fixture
def metrics(seen: CollectedMetrics) -> Metrics:
    return Metrics(seen.make)


def test_names_and_labels_are_as_prometheus_wants_them():
    assert len({declared.name for declared in ALL}) == len(ALL)
    for declared in ALL:
        assert re.fullmatch(r"m3_[a-z_]+", declared.name), declared.name
        assert declared.name.endswith("_total") == (declared.kind == "counter"), declared.name
        assert bool(declared.bounds) == (declared.kind == "histogram"), declared.name
        assert list(declared.bounds) == sorted(set(declared.bounds)) and all(bound > 0 for bound in declared.bounds)
        assert not set(declared.labels) & {*SERVE_LABELS, "le"}, declared.name


def test_a_decision_is_counted_with_its_time_and_probability(metrics: Metrics, seen: CollectedMetrics):
    metrics.decided(DECISION)
    metrics.decided(replace(DECISION, tokens=1, why="cached"), arm="canary")
    assert seen.total(DECISIONS, scale="36", why="predicted", arm="main") == 1
    assert seen.total(DECISIONS, scale="1", why="cached", arm="canary") == 1
    assert seen.last(DECISION_TIME, why="predicted") == 0.0025
    assert seen.last(PROBABILITY, scale="36") == 0.3 and seen.last(PROBABILITY, scale="1") == 0.1


@pytest.mark.parametrize("why", get_args(Why))
def test_a_decision_without_probabilities_has_none_counted(why: Why, metrics: Metrics, seen: CollectedMetrics):
    metrics.decided(replace(DECISION, probabilities=None, why=why))
    assert seen.total(DECISIONS, why=why) == 1 and seen.total(PROBABILITY) == 0


def test_an_answer_is_held_against_always_the_finest(metrics: Metrics, seen: CollectedMetrics):
    metrics.answered(DECISION, visual_tokens=2 * 36, answer_s=0.5, first_token_s=0.2)
    assert seen.total(VISUAL_TOKENS, scale="36") == 72
    assert seen.total(IF_FINEST, scale="36") == 2 * 576
    assert seen.last(ANSWER_TIME, scale="36") == 0.5 and seen.last(FIRST_TOKEN_TIME, scale="36") == 0.2


def test_the_finest_saves_nothing(metrics: Metrics, seen: CollectedMetrics):
    metrics.answered(replace(DECISION, tokens=576), visual_tokens=5 * 576, answer_s=0.5)
    assert seen.total(VISUAL_TOKENS) == seen.total(IF_FINEST) == 5 * 576
    assert seen.total(FIRST_TOKEN_TIME) == 0


def test_a_first_answer_that_was_not_sent_is_spent_and_not_saved(metrics: Metrics, seen: CollectedMetrics):
    metrics.answered(replace(DECISION, tokens=576), visual_tokens=576, answer_s=0.5, visual_tokens_before=9)
    assert seen.total(VISUAL_TOKENS) == 585 and seen.total(IF_FINEST) == 576


def test_an_answer_to_text_alone_reads_no_visual_tokens(metrics: Metrics, seen: CollectedMetrics):
    metrics.answered(DECISION, visual_tokens=0, answer_s=0.5)
    assert seen.total(VISUAL_TOKENS) == 0 and seen.total(ANSWER_TIME) == 0.5


def test_every_count_of_the_cache_has_a_result():
    assert set(CACHE_RESULTS) == {field.name for field in fields(CacheStats)}


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), max_size=20))
def test_the_caches_counts_are_counted_once(steps: list[list[int]]):
    seen = CollectedMetrics()
    metrics, stats = Metrics(seen.make), CacheStats()
    for step in steps:
        stats = CacheStats(*(getattr(stats, f.name) + n for f, n in zip(fields(CacheStats), step, strict=True)))
        metrics.cached(stats)
        metrics.cached(stats)  # nothing new
    assert {name: seen.total(CACHE, result=result) for name, result in CACHE_RESULTS.items()} == vars(stats)


def test_a_new_cache_begins_at_nothing(metrics: Metrics, seen: CollectedMetrics):
    metrics.cached(CacheStats(hits_local=5, misses=7))
    metrics.cached(CacheStats(hits_local=2))
    assert seen.total(CACHE, result="local_hit") == 7 and seen.total(CACHE, result="miss") == 7


@given(st.text(), st.integers(-1000, 10_000))
def test_no_request_makes_up_a_label(path: str, code: int):
    seen = CollectedMetrics()
    Metrics(seen.make).requested(path, code)
    ((_, labels),) = seen.values
    classes = {f"{each}xx" for each in range(1, 6)}
    assert dict(labels)["endpoint"] in ENDPOINTS | {"other"}
    assert dict(labels)["code"] in {*map(str, CODES), *classes, "other"}


def test_a_request_is_counted_by_endpoint_and_code(metrics: Metrics, seen: CollectedMetrics):
    metrics.requested("/v1/chat/completions", 200)
    metrics.requested("/v1/chat/completions", 418)
    metrics.requested("/etc/passwd", 404)
    assert seen.total(REQUESTS, endpoint="/v1/chat/completions", code="200") == 1
    assert seen.total(REQUESTS, code="4xx") == 1
    assert seen.total(REQUESTS, endpoint="other", code="404") == 1


@pytest.mark.parametrize(("shadow", "direction"), [(36, "same"), (9, "coarser"), (576, "finer"), (None, "failed")])
def test_the_shadow_is_told_by_where_it_lies(
    shadow: int | None, direction: str, metrics: Metrics, seen: CollectedMetrics
):
    metrics.shadowed(DECISION, None if shadow is None else replace(DECISION, tokens=shadow))
    assert seen.total(SHADOW, scale="36", direction=direction) == 1


def test_feedback_is_counted_by_verdict(metrics: Metrics, seen: CollectedMetrics):
    for score in (0.0, 0.49, 0.5, 1.0):
        metrics.feedback(score)
    assert seen.total(FEEDBACK, result="right") == seen.total(FEEDBACK, result="wrong") == 2


def test_gauges_say_what_was_told_last(metrics: Metrics, seen: CollectedMetrics):
    metrics.working(waiting=3, running=8)
    metrics.working(waiting=0, running=2)
    metrics.drifted(0.125)
    metrics.drifted(None)  # not known: nothing is told
    metrics.rate_limited()
    assert (seen.last(WAITING), seen.last(RUNNING), seen.last(DRIFT)) == (0, 2, 0.125)
    assert seen.total(RATE_LIMITED) == 1


async def test_telling_goes_on_after_an_error(caplog: pytest.LogCaptureFixture):
    calls: list[int] = []
    thrice = asyncio.Event()

    def tell() -> None:
        calls.append(1)
        if len(calls) == 3:
            thrice.set()
        raise RuntimeError("no gauge")

    telling = asyncio.create_task(keep_telling(tell, every_s=0.001))
    await asyncio.wait_for(thrice.wait(), 60)
    telling.cancel()
    assert [record.message for record in caplog.records] == ["metrics can't be told"]
