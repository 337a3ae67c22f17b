"""Streamed answers over a fake model: whole in pieces, errors before and after the first, texts that stop them."""

import json
from typing import Any

import httpx
import pytest
from doubles import FakeM3, FakeRouter, LocalModel, chat_body, png
from fastapi import FastAPI
from test_api import app_of, chat, error_of, send

from serving.settings import Settings


@pytest.fixture
def app() -> FastAPI:
    return app_of(LocalModel(FakeM3()))


def chunks_of(reply: httpx.Response) -> list[dict[str, Any]]:
    """The events of a streamed reply; the last is [DONE]."""
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def test_a_streamed_answer_is_the_whole_one_in_pieces(app):
    """Role first, then pieces, then how it ended with the decision, then the usage that was asked for."""
    body = chat_body("What colour is it?")
    whole, streamed = send(app, chat(body), chat(body | {"stream": True, "stream_options": {"include_usage": True}}))
    assert streamed.headers["content-type"].startswith("text/event-stream") and streamed.headers["x-m3-tokens"] == "1"
    first, *pieces, end, usage = chunks_of(streamed)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    told = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert told == whole.json()["choices"][0]["message"]["content"] and len(pieces) > 2
    assert end["choices"][0]["finish_reason"] == "stop"
    assert end["m3"]["tokens"] == 1 and end["m3"]["why"] == "cached"
    assert usage["choices"] == [] and usage["usage"] == whole.json()["usage"]
    assert len({chunk["id"] for chunk in (first, *pieces, end, usage)}) == 1


def test_a_streamed_answer_that_may_be_given_twice_is_sent_when_it_is_known():
    settings = Settings(second_look=True)
    app = app_of(LocalModel(FakeM3()), settings, FakeRouter(second_look=True))
    body = chat_body("What colour is it?", png()) | {"stream": True}
    (reply,) = send(app, chat(body))
    _, piece, end = chunks_of(reply)
    assert piece["choices"][0]["delta"]["content"] == "255,0,0 What colour is it?"
    assert end["m3"]["first_tokens"] == 1 and end["m3"]["tokens"] == 576


def test_what_fails_before_the_first_token_is_an_http_error_and_later_an_event(app):
    refused, broken = send(
        app,
        chat(chat_body("refuse") | {"stream": True}),
        chat(chat_body("one two crash") | {"stream": True}),
    )
    assert refused.status_code == 400 and "context" in error_of(refused)["message"]
    assert broken.status_code == 200 and "secret" not in broken.text
    events = [line for line in broken.text.split("\n\n") if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
    assert not any("[DONE]" in event for event in events)


def test_a_stop_text_ends_an_answer(app):
    body = chat_body("What colour is it?")
    one, several = send(app, chat(body | {"stop": "colour"}), chat(body | {"stop": ["is", "What"]}))
    assert one.json()["choices"][0]["message"]["content"] == "255,0,0 What "
    assert several.json()["choices"][0]["message"]["content"] == "255,0,0 "
