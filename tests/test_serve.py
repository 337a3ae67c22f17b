"""The real service over real HTTP: serve-m3, Ray, the shipped model and artifact, and the official openai client."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from doubles import data_url, png
from openai.types.chat import ChatCompletion
from server import Server

from training_data.drawn.corpus import CorpusItem
from training_data.scoring import exact_match

pytestmark = pytest.mark.ray

COARSE = ("background",)
FINE = ("read_word", "read_number", "first_line", "receipt_total", "bar_highest", "smallest_shape")


@dataclass(frozen=True)
class Pair:
    """A picture with a question that few tokens answer, and one about something small in it."""

    image: bytes
    coarse: str
    coarse_answer: str
    fine: str
    fine_answer: str


def pair_of(item: CorpusItem) -> Pair | None:
    coarse = next((asked for asked in item.questions if asked.family in COARSE), None)
    fine = next((asked for asked in item.questions if asked.family in FINE), None)
    if coarse is None or fine is None:
        return None
    return Pair(item.png, coarse.text, coarse.answer, fine.text, fine.answer)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def pairs(drawn_samples: list[CorpusItem]) -> list[Pair]:
    found = [pair for item in drawn_samples if (pair := pair_of(item)) is not None][:12]
    assert len(found) == 12
    return found


def content(question: str, *images: bytes) -> list[dict[str, object]]:
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"type": "text", "text": question}, *pictures]


def ask(
    client: openai.OpenAI, question: str, image: bytes, model: str = "m3-auto", **options: object
) -> ChatCompletion:
    """Ask one question about one picture."""
    messages = [{"role": "user", "content": content(question, image)}]
    return client.chat.completions.create(model=model, messages=messages, **options)  # type: ignore[call-overload]


def said(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


def decided(completion: ChatCompletion) -> dict[str, object]:
    return completion.m3  # type: ignore[attr-defined]


def test_the_same_picture_gets_a_scale_by_its_question_and_right_answers(client, pairs):
    coarse = [ask(client, pair.coarse, pair.image) for pair in pairs]
    fine = [ask(client, pair.fine, pair.image) for pair in pairs]
    right_coarse = [exact_match(said(one), [pair.coarse_answer]) for one, pair in zip(coarse, pairs, strict=True)]
    right_fine = [exact_match(said(one), [pair.fine_answer]) for one, pair in zip(fine, pairs, strict=True)]
    finer = [decided(b)["tokens"] > decided(a)["tokens"] for a, b in zip(coarse, fine, strict=True)]
    assert sum(right_coarse) >= 11  # of 12
    assert sum(all(row) for row in zip(right_coarse, right_fine, finer, strict=True)) >= 6


def test_the_decision_was_predicted_by_the_shipped_artifact(client, pairs):
    decision = decided(ask(client, "Which color is the background? Say one word.", pairs[0].image))
    assert decision["why"] == "predicted"
    assert list(decision["probabilities"]) == ["1", "9", "36", "144", "576"]
    assert decision["visual_tokens"] == decision["tokens"]


def test_a_second_identical_request_is_decided_from_the_cache(client, pairs):
    first, second = (ask(client, pairs[0].coarse.lower(), pairs[0].image) for _ in range(2))
    assert (decided(first)["why"], decided(second)["why"]) == ("predicted", "cached")
    assert decided(first)["probabilities"] == decided(second)["probabilities"]
    assert said(first) == said(second)


def test_what_is_unlike_the_training_data_gets_the_finest_scale(client):
    """A picture that nobody draws, and another language."""
    strange = decided(ask(client, "Welche Farbe hat der Hintergrund?", png(40, 30, "navy")))
    assert (strange["why"], strange["tokens"]) == ("unfamiliar", 576)


def test_a_scale_can_be_asked_for_by_name(client, pairs):
    for tokens in (1, 9, 36, 144, 576):
        completion = ask(client, pairs[0].coarse, pairs[0].image, f"m3-{tokens}")
        assert decided(completion)["why"] == "forced"
        assert completion.usage.prompt_tokens_details.image_tokens == tokens
        assert completion.usage.prompt_tokens > tokens
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_the_decision_is_in_the_headers(client, pairs):
    raw = client.chat.completions.with_raw_response.create(
        model="m3-auto", messages=[{"role": "user", "content": content(pairs[0].coarse, pairs[0].image)}]
    )
    decision = decided(raw.parse())
    assert raw.headers["x-m3-tokens"] == str(decision["tokens"])
    assert raw.headers["x-m3-why"] == decision["why"]
    assert raw.headers["x-m3-artifact"] == decision["artifact"]


def test_the_answer_limit_is_honoured(client, pairs):
    completion = ask(client, pairs[0].fine, pairs[0].image, max_completion_tokens=1)
    assert completion.usage.completion_tokens == 1
    assert completion.choices[0].finish_reason == "length"


def test_route_decides_as_chat_does_without_an_answer(server, client, pairs):
    body = {"model": "m3-auto", "messages": [{"role": "user", "content": content(pairs[1].fine, pairs[1].image)}]}
    request = urllib.request.Request(f"{server.url}/v1/route", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as reply:
        routed = json.load(reply)
    decision = decided(ask(client, pairs[1].fine, pairs[1].image))
    assert (routed["tokens"], routed["probabilities"]) == (decision["tokens"], decision["probabilities"])
    assert "choices" not in routed


def test_an_answer_is_streamed_as_it_is_without(client, pairs):
    """The same text in pieces, with the decision and, when asked for, the usage."""
    whole = ask(client, pairs[0].fine, pairs[0].image)
    *chunks, end, usage = ask(
        client, pairs[0].fine, pairs[0].image, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == said(whole)
    assert end.choices[0].finish_reason == whole.choices[0].finish_reason
    assert end.m3["tokens"] == decided(whole)["tokens"]
    assert usage.usage.total_tokens == whole.usage.total_tokens


def test_an_error_before_the_first_token_of_a_stream_is_an_http_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "@%" * 450, png(), "m3-576", stream=True)
    assert "context" in caught.value.message


def test_chance_follows_its_seed(client, pairs):
    """The same seed says the same; at a high temperature, other seeds say something else."""
    options = {"temperature": 2.0, "max_tokens": 12}
    first, again = (said(ask(client, pairs[0].fine, pairs[0].image, "m3-1", seed=7, **options)) for _ in range(2))
    others = {said(ask(client, pairs[0].fine, pairs[0].image, "m3-1", seed=seed, **options)) for seed in range(8)}
    assert first == again and len(others) > 1


def test_a_stop_text_ends_the_answer(client, pairs):
    answer = said(ask(client, pairs[0].fine, pairs[0].image))
    stopped = ask(client, pairs[0].fine, pairs[0].image, stop=answer[-1])
    assert (
        said(stopped) == answer[: answer.index(answer[-1])].rstrip()
        or said(stopped) == answer[: answer.index(answer[-1])]
    )
    assert stopped.choices[0].finish_reason == "stop"


def test_nothing_but_the_service_listens_for_http_outside_of_this_machine(server):
    """HAProxy's statistics and metrics are bound to the loopback address."""
    mine = {pid for pid in server.children() if b"haproxy" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    assert mine
    sockets = {
        os.readlink(link).removeprefix("socket:[").removesuffix("]")
        for pid in mine
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if os.readlink(link).startswith("socket:")
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets]
    assert listening and set(listening) == {"0100007F"}


def test_models_lists_the_ladder(client):
    assert [model.id for model in client.models.list()] == [
        "m3-auto", "m3-1", "m3-9", "m3-36", "m3-144", "m3-576"
    ]  # fmt: skip
    assert client.models.retrieve("m3-36").owned_by.startswith("m3-tiny")


def test_many_at_once_are_answered_as_one_by_one(client, pairs):
    asked = [(pair.coarse, pair.image) for pair in pairs] + [(pair.fine, pair.image) for pair in pairs]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda one: said(ask(client, *one)), asked))
    assert together == [said(ask(client, *one)) for one in asked]


@pytest.mark.parametrize(
    ("kind", "model", "body", "code"),
    [
        (openai.NotFoundError, "gpt-4o", content("What is it?", png()), "model_not_found"),
        (openai.NotFoundError, "m3-100", content("What is it?", png()), "model_not_found"),
        (openai.BadRequestError, "m3-auto", content("", png()), "empty_question"),
        (openai.BadRequestError, "m3-auto", content("What is it?", b"not a picture"), "invalid_image"),
        (openai.BadRequestError, "m3-36", content("What is it?", png()[:50]), "invalid_image"),
        (openai.BadRequestError, "m3-auto", content("What is it?"), "image_required"),
        (openai.BadRequestError, "m3-auto", content("What is it?", png(), png()), "too_many_images"),
        (openai.BadRequestError, "m3-auto", "What is it?", "image_required"),
    ],
)
def test_a_clients_mistake_is_an_error_that_names_it(client, kind, model, body, code):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": body}])
    assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")


def test_broken_base64_is_refused_and_not_echoed(client):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}
    broken = [{"type": "text", "text": "What is it?"}, picture]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m3-auto", messages=[{"role": "user", "content": broken}])
    assert caught.value.code == "invalid_base64"
    assert caught.value.param == "messages.0.content.1.image_url.url"
    assert "@@" not in caught.value.message


def test_a_question_beyond_the_models_context_is_the_clients_mistake(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "@%" * 450, png(), "m3-576")
    assert "context" in caught.value.message


@pytest.mark.parametrize(
    ("option", "value"), [("n", 9), ("temperature", 2.5), ("top_logprobs", 3), ("logit_bias", {"5": 1})]
)
def test_an_option_that_cannot_be_honoured_is_refused_by_name(client, option, value):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "What is it?", png(), **{option: value})
    assert caught.value.param == option


def test_a_body_over_the_limit_is_413(client):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, "What is it?", os.urandom(16_000_000))
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


def test_a_large_picture_is_answered(client):
    completion = ask(client, "What color is the background?", png(4000, 3000, "blue"))
    assert said(completion)


def test_the_service_is_alive_and_ready(server):
    for path in ("/health", "/ready"):
        with urllib.request.urlopen(f"{server.url}{path}", timeout=30) as reply:
            assert reply.status == 200


@pytest.mark.slow
def test_a_replica_that_dies_is_an_error_in_openais_shape_and_comes_back(server, client, pairs):
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in server.children()}
    os.kill(next(pid for pid, name in names.items() if b"ServeReplica:m3:M3" in name), signal.SIGKILL)
    deadline_s = time.monotonic() + 120
    while True:
        try:
            assert said(ask(client, pairs[0].coarse, pairs[0].image))
            break
        except openai.InternalServerError as error:
            assert error.code in ("model_unavailable", "timeout")
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
