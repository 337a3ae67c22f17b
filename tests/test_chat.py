"""What chat completions offer beyond one plain answer, over a fake model and a fake router, without Ray."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from doubles import LADDER, CollectedMetrics, FakeM3, FakeRouter, LocalModel, chat_body, data_url, png
from fastapi import FastAPI
from test_api import app_of, chat, error_of, get, post, send
from test_streaming import chunks_of

from complexity.feedback import read_feedback
from serving import metrics
from serving.accounts import Accounts
from serving.api import create_app
from serving.feedback import FeedbackStore, Records
from serving.journal import Journal
from serving.metrics import Metrics
from serving.model import ModelInfo, Reads
from serving.rates import RateLimiter
from serving.service import Service
from serving.settings import Settings

INFO = ModelInfo("fake-m3", LADDER, 192)


@pytest.fixture
def app() -> FastAPI:
    return app_of(LocalModel(FakeM3()))


def said(reply: httpx.Response) -> list[str]:
    return [choice["message"]["content"] for choice in reply.json()["choices"]]


def test_a_conversation_with_pictures_reaches_the_model_as_it_stands(app):
    def picture(colour: str) -> dict[str, object]:
        return {"type": "image_url", "image_url": {"url": data_url(png(colour=colour))}}

    body = {
        "model": "m3-9",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture("#010203")]},
            {"role": "assistant", "content": "A square."},
            {"role": "user", "content": [picture("#040506"), {"type": "text", "text": "And this?"}]},
        ],
    }
    (reply,) = send(app, chat(body))
    assert said(reply) == ["1,2,3 4,5,6 Be brief. What is it? A square. And this?"]
    assert reply.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 18
    assert reply.json()["m3"]["reads"] == "conversation" and reply.json()["m3"]["saved_tokens"] == 2 * (576 - 9)


def test_the_caller_is_told_when_only_the_question_reaches_the_model():
    info = ModelInfo("fake-m3", LADDER, 192, Reads(history=False, system=False, pictures=1))
    app = create_app(Service(FakeRouter(), LocalModel(FakeM3()), info, Settings()))
    body = chat_body("What colour is it?")
    body["messages"] = [{"role": "system", "content": "Be brief."}, *body["messages"]]  # type: ignore[misc]
    (reply,) = send(app, chat(body))
    assert said(reply) == ["255,0,0 What colour is it?"] and reply.json()["m3"]["reads"] == "question"


def test_of_several_pictures_the_one_that_needs_most_decides(app):
    body = chat_body("What does it say?")
    body["messages"][0]["content"].append({"type": "image_url", "image_url": {"url": data_url(png(9, 9))}})  # type: ignore[index]
    (reply,) = send(app, chat(body))
    assert reply.json()["m3"]["visual_tokens"] == 2 * 576


def test_several_answers_come_with_seeds_of_their_own(app):
    greedy, sampled = send(
        app, chat(chat_body() | {"n": 2}), chat(chat_body() | {"n": 3, "temperature": 1.0, "seed": 2**63 - 1})
    )
    assert [choice["index"] for choice in greedy.json()["choices"]] == [0, 1] and len(set(said(greedy))) == 1
    assert len(said(sampled)) == 3
    (alone,) = send(app, chat(chat_body()))
    one, two = alone.json()["usage"], greedy.json()["usage"]
    assert two["completion_tokens"] == 2 * one["completion_tokens"] and two["prompt_tokens"] == one["prompt_tokens"]


def test_streamed_answers_come_side_by_side_and_the_decision_with_the_last(app):
    body = chat_body() | {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    (reply,) = send(app, chat(body))
    chunks = chunks_of(reply)
    texts, ends = ["", ""], []
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
            if "finish_reason" in choice:
                ends.append(choice["index"])
    assert texts == ["255,0,0 What is it?"] * 2 and sorted(ends) == [0, 1]
    assert [("m3" in chunk) for chunk in chunks].count(True) == 1 and "m3" in chunks[-2]
    assert chunks[-1]["usage"]["completion_tokens"] == 10


def test_log_probabilities_spell_the_answer_whole_and_streamed(app):
    body = chat_body("What colour is it?") | {"logprobs": True, "top_logprobs": 2}
    whole, streamed, plain = send(app, chat(body), chat(body | {"stream": True}), chat(chat_body()))
    (choice,) = whole.json()["choices"]
    content = choice["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in content).decode().strip() == choice["message"]["content"]
    assert all(token["logprob"] == -0.25 and len(token["top_logprobs"]) == 2 for token in content)
    assert content[0]["top_logprobs"][0]["token"] == content[0]["token"]
    pieces = [choice for chunk in chunks_of(streamed) for choice in chunk["choices"] if choice.get("logprobs")]
    assert [token for piece in pieces for token in piece["logprobs"]["content"]] == content
    assert plain.json()["choices"][0]["logprobs"] is None


def test_a_decision_can_be_explained(app):
    whole, alone, plain = send(
        app,
        chat(chat_body() | {"m3": {"explain": True}}),
        lambda client: client.post("/v1/route", json=chat_body(), headers={"x-m3-explain": "true"}),
        chat(chat_body()),
    )
    for reply in (whole.json()["m3"], alone.json()):
        told = reply["explanation"]
        assert [scale["tokens"] for scale in told["scales"]] == list(LADDER) and told["familiar"] is True
        assert told["features"] == [{"name": "edges", "log_odds": 0.25}] and told["cost_unit"] == "tokens"
    assert plain.json()["m3"]["explanation"] is None


def test_the_cache_can_be_passed_over(app):
    fresh = lambda body: chat(body | {"m3": {"cache": ["no-cache"]}})  # noqa: E731
    first, again, anew = send(app, chat(chat_body()), chat(chat_body()), fresh(chat_body()))
    assert [reply.json()["m3"]["why"] for reply in (first, again, anew)] == ["predicted", "cached", "predicted"]


def test_many_decisions_are_made_at_once_each_failing_for_itself(app):
    good, coarse = chat_body("What does it say?"), chat_body("What colour is it?")
    broken, unknown = chat_body(image=b"not a picture"), chat_body(model="m3-7")
    requests = [good, broken, coarse, unknown, chat_body(model="m3-9")]
    (reply,) = send(app, post("/v1/route/batch", {"requests": requests}))
    data = reply.json()["data"]
    assert reply.json()["object"] == "list"
    assert [each.get("tokens") for each in data] == [576, None, 1, None, 9]
    assert [data[i]["error"]["code"] for i in (1, 3)] == ["invalid_image", "model_not_found"]
    assert len({each["decision_id"] for each in data if "decision_id" in each}) == 3
    empty, many = send(
        app, post("/v1/route/batch", {"requests": []}), post("/v1/route/batch", {"requests": [good] * 65})
    )
    assert (empty.status_code, many.status_code) == (400, 400) and error_of(many)["param"] == "requests"


KEY = "a-long-random-key"
KEYS = [{"name": "one", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "tokens_per_minute": 600}]


def with_key(path: str, body: object, key: str = KEY) -> Any:
    return lambda client: client.post(path, json=body, headers={"authorization": f"Bearer {key}"})


def test_with_keys_every_route_but_health_asks_for_one():
    settings = Settings.model_validate({"api_keys": KEYS})
    app = app_of(LocalModel(FakeM3()), settings)
    let_in, stranger, wrong, health, described = send(
        app,
        with_key("/v1/chat/completions", chat_body()),
        chat(chat_body()),
        with_key("/v1/route", chat_body(), "another"),
        get("/health"),
        get("/openapi.json"),
    )
    assert (let_in.status_code, health.status_code) == (200, 200)
    for reply in (stranger, wrong, described):
        assert reply.status_code == 401 and error_of(reply)["code"] == "invalid_api_key"


def test_a_key_spends_visual_tokens_and_gets_them_back_for_what_failed():
    settings = Settings.model_validate({"api_keys": KEYS})
    seen = CollectedMetrics()
    limiter, accounts = RateLimiter(None, clock=lambda: 0.0), Accounts(INFO, Metrics(seen.make))
    service = Service(FakeRouter(), LocalModel(FakeM3()), INFO, settings, limiter=limiter, accounts=accounts)
    fine, failing = chat_body("What does it say?"), chat_body("refuse")
    failed, first, second, coarse, never = send(
        create_app(service),
        with_key("/v1/chat/completions", failing),
        with_key("/v1/chat/completions", fine),
        with_key("/v1/chat/completions", fine),
        with_key("/v1/chat/completions", chat_body("What colour is it?")),
        with_key("/v1/chat/completions", fine | {"n": 2, "temperature": 1}),
    )
    assert failed.status_code == 400 and first.status_code == 200
    assert first.headers["x-ratelimit-remaining-tokens"] == "24"
    assert second.status_code == 429 and error_of(second)["code"] == "rate_limit_exceeded"
    assert int(second.headers["retry-after"]) >= 50
    assert coarse.status_code == 200 and coarse.headers["x-ratelimit-remaining-tokens"] == "23"
    assert never.status_code == 400 and error_of(never)["code"] == "rate_limit_too_low"
    assert seen.total(metrics.RATE_LIMITED) == 2


def test_every_answer_names_its_request(app):
    named, unnamed, nowhere = send(
        app,
        lambda client: client.post("/v1/route", json=chat_body(), headers={"x-request-id": "mine-1"}),
        chat(chat_body("refuse")),
        get("/nowhere"),
    )
    assert named.headers["x-request-id"] == "mine-1"
    assert len(unnamed.headers["x-request-id"]) == len(nowhere.headers["x-request-id"]) == 32


def feedback_app(folder: Path) -> FastAPI:
    accounts = Accounts(INFO, None, FeedbackStore(Records(None), Journal(folder)))
    return create_app(Service(FakeRouter(), LocalModel(FakeM3()), INFO, Settings(), accounts=accounts))


def test_feedback_becomes_a_row_that_training_takes(tmp_path):
    async def scenario() -> list[httpx.Response]:
        transport = httpx.ASGITransport(feedback_app(tmp_path))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answered = await client.post("/v1/chat/completions", json=chat_body("What colour is it?"))
            name = answered.json()["m3"]["decision_id"]
            known = await client.post("/v1/feedback", json={"decision_id": name, "correct": True})  # at once
            verdict = {"decision_id": name, "score": 0.25, "reference": "red"}
            keyed = [
                await client.post("/v1/feedback", json=body, headers={"idempotency-key": "k"})
                for body in (verdict, verdict, verdict | {"score": 1})
            ]
            wrong = [
                await client.post("/v1/feedback", json=body)
                for body in (
                    {"decision_id": name},
                    verdict | {"correct": False},
                    verdict | {"decision_id": "m3-" + "0" * 32},
                )
            ]
            return [known, *keyed, *wrong]

    known, stored, again, other, none, both, unknown = asyncio.run(scenario())
    assert known.json()["duplicate"] is False and stored.json()["duplicate"] is False
    assert again.json()["duplicate"] is True
    assert [reply.status_code for reply in (other, none, both, unknown)] == [409, 400, 400, 404]
    (row,) = read_feedback(tmp_path).rows
    assert (row.score, row.references, row.answered.tokens, row.answered.question) == (
        0.25,
        ("red",),
        1,
        "What colour is it?",
    )


def test_feedback_is_off_unless_there_is_a_folder_for_it(app):
    (reply,) = send(app, post("/v1/feedback", {"decision_id": "m3-" + "0" * 32, "correct": True}))
    assert (reply.status_code, error_of(reply)["code"]) == (404, "feedback_off")


def test_what_happens_is_counted():
    collected = CollectedMetrics()
    accounts = Accounts(INFO, Metrics(collected.make))
    app = create_app(Service(FakeRouter(), LocalModel(FakeM3()), INFO, Settings(), accounts=accounts))
    send(app, chat(chat_body("What colour is it?")), chat(chat_body("refuse")), get("/nowhere"))
    assert collected.total(metrics.REQUESTS, endpoint="/v1/chat/completions", code="200") == 1
    assert collected.total(metrics.REQUESTS, endpoint="/v1/chat/completions", code="400") == 1
    assert collected.total(metrics.DECISIONS) == 2
    assert collected.total(metrics.VISUAL_TOKENS, scale="1") == 1
    assert collected.total(metrics.IF_FINEST) == 576


def test_the_description_is_whole_and_its_example_works(app):
    """Every reference in it resolves; bodies, errors and headers are told of each operation."""
    (reply,) = send(app, get("/openapi.json"))
    told = reply.json()
    schemas = told["components"]["schemas"]
    for name in {ref.rpartition("/")[2] for ref in _references(told)}:
        assert name in schemas
    chat_post = told["paths"]["/v1/chat/completions"]["post"]
    body = chat_post["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"].endswith("/ChatRequest")
    assert {"200", "400", "401", "413", "429", "500", "503", "504"} <= set(chat_post["responses"])
    assert not any("422" in operation["responses"] for path in told["paths"].values() for operation in path.values())
    (answer,) = send(app, chat(body["example"]))
    assert answer.status_code == 200


def _references(told: object) -> list[str]:
    if isinstance(told, dict):
        own = [told["$ref"]] if isinstance(told.get("$ref"), str) else []
        return own + [ref for value in told.values() for ref in _references(value)]
    return [ref for value in told for ref in _references(value)] if isinstance(told, list) else []


def test_a_body_that_does_not_come_is_not_waited_for():
    async def drip():
        yield json.dumps(chat_body()).encode()[:20]
        await asyncio.sleep(30)

    app = app_of(LocalModel(FakeM3()), Settings(body_timeout_s=0.1))
    (reply,) = send(app, lambda client: client.post("/v1/chat/completions", content=drip()))
    assert (reply.status_code, error_of(reply)["code"]) == (408, "body_timeout")
