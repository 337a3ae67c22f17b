"""The HTTP interface over a fake model and a fake router, in this process, without Ray."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from doubles import LADDER, FailingModel, FakeM3, FakeRouter, LocalModel, chat_body, png
from fastapi import FastAPI

from serving.api import create_app
from serving.model import Model, ModelInfo, ModelOverloaded, ModelTimeout, ModelUnavailable
from serving.service import Service
from serving.settings import Settings


def app_of(model: Model, settings: Settings | None = None, router: FakeRouter | None = None) -> FastAPI:
    router = router or FakeRouter()
    return create_app(Service(router, model, ModelInfo("fake-m3", LADDER, 192), settings or Settings()))


def send(app: FastAPI, *calls: Callable[[httpx.AsyncClient], Any]) -> list[httpx.Response]:
    """Send requests to the app, one after the other."""

    async def scenario() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await call(client) for call in calls]

    return asyncio.run(scenario())


def post(path: str, body: object) -> Callable[[httpx.AsyncClient], Any]:
    return lambda client: client.post(path, json=body)


def chat(body: object) -> Callable[[httpx.AsyncClient], Any]:
    return post("/v1/chat/completions", body)


def get(path: str) -> Callable[[httpx.AsyncClient], Any]:
    return lambda client: client.get(path)


def error_of(reply: httpx.Response) -> dict[str, Any]:
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


@pytest.fixture
def app() -> FastAPI:
    return app_of(LocalModel(FakeM3()))


def test_a_chat_completion_has_openais_shape_and_the_decision(app):
    (reply,) = send(app, chat(chat_body("What colour is it?", png(colour="#0a141e"))))
    body = reply.json()
    assert reply.status_code == 200
    assert body["object"] == "chat.completion" and body["model"] == "m3-auto" and body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "10,20,30 What colour is it?", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 6,  # the end token is one
        "total_tokens": 11,
        "prompt_tokens_details": {"image_tokens": 1, "cached_tokens": 0},
    }
    assert body["m3"] == {
        "version": "1",
        "decision_id": body["id"].replace("chatcmpl-", "m3-"),
        "tokens": 1,
        "why": "predicted",
        "probabilities": {"1": 0.1, "9": 0.2, "36": 0.3, "144": 0.4, "576": 0.5},
        "price": 0.001,
        "artifact": "fake-artifact",
        "decision_ms": 1.5,
        "explanation": None,
        "visual_tokens": 1,
        "saved_tokens": 575,
        "first_tokens": None,
        "mean_logprob": -0.25,
        "reads": "conversation",
    }


def test_the_decision_is_in_the_headers_too(app):
    (reply,) = send(app, chat(chat_body("What does it say?")))
    assert {name: value for name, value in reply.headers.items() if name.startswith("x-m3-")} == {
        "x-m3-version": "1",
        "x-m3-decision-id": reply.json()["m3"]["decision_id"],
        "x-m3-tokens": "576",
        "x-m3-visual-tokens": "576",
        "x-m3-saved-tokens": "0",
        "x-m3-why": "predicted",
        "x-m3-artifact": "fake-artifact",
        "x-m3-decision-ms": "1.500",
    }


def test_the_same_picture_gets_a_scale_by_its_question(app):
    coarse, fine = send(app, chat(chat_body("What colour is it?")), chat(chat_body("What does it say?")))
    assert (coarse.json()["m3"]["tokens"], fine.json()["m3"]["tokens"]) == (1, 576)


def test_a_repeated_request_is_decided_from_the_cache(app):
    first, second = send(app, chat(chat_body()), chat(chat_body()))
    assert (first.json()["m3"]["why"], second.json()["m3"]["why"]) == ("predicted", "cached")


def test_a_scale_asked_for_by_name_is_used_and_nothing_is_predicted(app):
    (reply,) = send(app, chat(chat_body("What colour is it?", model="m3-144")))
    decision = reply.json()["m3"]
    assert (decision["tokens"], decision["why"], decision["probabilities"]) == (144, "forced", None)
    assert reply.json()["model"] == "m3-144"


def test_an_answer_cut_short_says_so(app):
    (reply,) = send(app, chat(chat_body("What colour is it?") | {"max_tokens": 2}))
    assert reply.json()["choices"][0]["finish_reason"] == "length"
    assert reply.json()["usage"]["completion_tokens"] == 2


def test_route_gives_the_decision_without_asking_the_model():
    m3 = FakeM3()
    (reply,) = send(app_of(LocalModel(m3)), post("/v1/route", chat_body("What colour is it?")))
    assert reply.json() == {
        "object": "m3.decision",
        "version": "1",
        "decision_id": reply.headers["x-m3-decision-id"],
        "model": "m3-auto",
        "tokens": 1,
        "why": "predicted",
        "probabilities": {"1": 0.1, "9": 0.2, "36": 0.3, "144": 0.4, "576": 0.5},
        "price": 0.001,
        "artifact": "fake-artifact",
        "decision_ms": 1.5,
        "explanation": None,
    }
    assert reply.headers["x-m3-tokens"] == "1" and "x-m3-visual-tokens" not in reply.headers
    assert m3.read == []


@pytest.mark.parametrize("model", ["m3-auto", "m3-9"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
def test_bytes_that_are_no_picture_are_the_callers_mistake_on_every_path(app, path, model):
    (reply,) = send(app, post(path, chat_body(image=b"not a picture", model=model)))
    assert reply.status_code == 400
    error = error_of(reply)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_image")
    assert error["param"] == "messages.0.content.1.image_url.url"


def test_models_lists_every_scale_and_finds_each(app):
    listed, one, none = send(app, get("/v1/models"), get("/v1/models/m3-36"), get("/v1/models/m3-37"))
    assert [entry["id"] for entry in listed.json()["data"]] == ["m3-auto", *(f"m3-{tokens}" for tokens in LADDER)]
    assert one.json()["owned_by"] == "fake-m3"
    assert none.status_code == 404 and error_of(none)["code"] == "model_not_found"


def test_a_path_or_method_that_is_not_there_is_refused_in_openais_shape(app):
    nowhere, wrong = send(app, get("/v1/embeddings"), get("/v1/chat/completions"))
    assert (nowhere.status_code, error_of(nowhere)["code"]) == (404, "unknown_url")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")


def test_a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not():
    async def chunks():
        for _ in range(20):
            yield b"x" * 100

    app = app_of(LocalModel(FakeM3()), Settings(max_body_bytes=1000))
    declared, streamed = send(
        app,
        lambda client: client.post("/v1/chat/completions", content=b"x" * 1001),
        lambda client: client.post("/v1/chat/completions", content=chunks()),
    )
    for reply in (declared, streamed):
        assert reply.status_code == 413 and error_of(reply)["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ModelOverloaded("busy", retry_after_s=3), 429, "overloaded"),
        (ModelUnavailable("gone"), 503, "model_unavailable"),
        (ModelTimeout("slow"), 504, "timeout"),
        (RuntimeError("a secret of the inside"), 500, "internal_error"),
    ],
)
def test_a_failing_model_is_an_error_in_openais_shape_without_internals(failure, status, code):
    (reply,) = send(app_of(FailingModel(failure)), chat(chat_body()))
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
    assert "secret" not in reply.text
    if status == 429:
        assert reply.headers["retry-after"] == "3" and error_of(reply)["type"] == "rate_limit_error"


def test_what_the_model_refuses_is_the_callers_mistake(app):
    (reply,) = send(app, chat(chat_body("refuse")))
    assert reply.status_code == 400
    assert "beyond the model's context" in error_of(reply)["message"]


def test_health_lives_and_ready_waits_for_the_model(app):
    alive, ready = send(app, get("/health"), get("/ready"))
    assert (alive.status_code, ready.status_code) == (200, 200)
    alive, ready = send(app_of(FailingModel(ModelUnavailable("gone"))), get("/health"), get("/ready"))
    assert (alive.status_code, ready.status_code) == (200, 503)
    assert error_of(ready)["code"] == "model_unavailable"


def test_a_busy_model_is_ready():
    (ready,) = send(app_of(FailingModel(ModelOverloaded("busy"))), get("/ready"))
    assert ready.status_code == 200


def test_requests_in_flight_together_share_a_batch():
    async def scenario() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app_of(LocalModel(m3)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            bodies = [chat_body(f"What colour is it? {i}") for i in range(12)]
            return await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for body in bodies))

    m3 = FakeM3(slow_s=0.1)
    replies = asyncio.run(scenario())
    answers = [reply.json()["choices"][0]["message"]["content"] for reply in replies]
    assert answers == [f"255,0,0 What colour is it? {i}" for i in range(12)]
    assert len(m3.read) < 12


def test_a_content_type_that_is_not_json_does_not_matter(app):
    body = b'{"model": "m3-auto", "messages": [{"role": "user", "content": "Hi?"}]}'
    (reply,) = send(app, lambda client: client.post("/v1/route", content=body, headers={"content-type": "text/plain"}))
    assert error_of(reply)["code"] == "image_required"


def test_the_interface_describes_itself(app):
    (reply,) = send(app, get("/openapi.json"))
    assert {"/v1/chat/completions", "/v1/route", "/v1/models", "/health", "/ready"} <= set(reply.json()["paths"])


def test_a_request_may_bound_the_routers_choice():
    """Floor and ceiling reach the router; off the ladder, crossed, or with a fixed model they are refused by name."""
    router = FakeRouter()
    app = app_of(LocalModel(FakeM3()), router=router)
    body = chat_body("What colour is it?", png())
    wishes = [{"floor": 9}, {"ceiling": 36}, {"floor": 9, "ceiling": 144}]
    for reply in send(app, *(chat(body | {"m3": wish}) for wish in wishes)):
        assert reply.status_code == 200
    assert [(asked.floor, asked.ceiling) for asked in router.asked] == [(9, None), (None, 36), (9, 144)]
    wrong = [{"floor": 100}, {"floor": 144, "ceiling": 9}, {"flor": 9}]
    replies = send(app, *(chat(body | {"m3": wish}) for wish in wrong), chat(body | {"model": "m3-9", "m3": wishes[0]}))
    assert [reply.status_code for reply in replies] == [400] * 4
    told = [error_of(reply) for reply in replies]
    assert "1, 9, 36, 144, 576" in told[0]["message"] and told[0]["param"] == "m3.floor"
    assert "above the ceiling" in told[1]["message"] and told[2]["param"] == "m3.flor"
    assert "m3-9 has a fixed number" in told[3]["message"]


def test_an_unsure_answer_is_given_again_and_both_are_counted():
    """The second answer is sent, with the tokens of both; a ceiling holds for it too, and a forced scale has one."""
    app = app_of(LocalModel(FakeM3()), router=FakeRouter(second_look=True))
    body = chat_body("What colour is it?", png())
    once, twice, bounded = send(
        app,
        chat(body | {"model": "m3-1"}),
        chat(body),
        chat(body | {"m3": {"ceiling": 144}}),
    )
    assert once.json()["m3"]["first_tokens"] is None
    told = twice.json()
    assert (told["m3"]["tokens"], told["m3"]["first_tokens"], told["m3"]["why"]) == (576, 1, "unsure")
    assert told["m3"]["visual_tokens"] == told["usage"]["prompt_tokens_details"]["image_tokens"] == 577
    assert told["usage"]["completion_tokens"] == 2 * once.json()["usage"]["completion_tokens"]
    assert bounded.json()["m3"]["visual_tokens"] == 145 and twice.headers["x-m3-tokens"] == "576"
