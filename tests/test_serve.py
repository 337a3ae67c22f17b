"""The real service over real HTTP: serve-m3, Ray, the shipped model and artifact, and the official openai client."""

import json
import os
import shutil
import signal
import socket
import subprocess
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
from server import SERVE_M3, Server, free_port, start

from serving.settings import ROOT
from training_data.corpus import CorpusItem
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
    ("option", "value"), [("stream", True), ("n", 2), ("temperature", 0.5), ("logprobs", True), ("stop", ["."])]
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


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_it_started(tmp_path, signum):
    running = start(tmp_path / "log.txt")
    port = int(running.url.rpartition(":")[2])
    children = running.children()
    assert children
    assert running.stop(signum) == 0
    assert not running.children()
    assert not [pid for pid in children if alive(pid)]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections may linger
        probe.bind(("127.0.0.1", port))
    assert "Traceback" not in running.log.read_text()


@pytest.mark.slow
def test_an_artifact_that_was_tampered_with_stops_the_start_with_one_line(tmp_path):
    artifact = tmp_path / "artifact"
    shutil.copytree(ROOT / "router/artifacts/m3-tiny", artifact)
    (artifact / "artifact.json").write_text((artifact / "artifact.json").read_text() + " ")
    config = tmp_path / "ray_app.yaml"
    text = (ROOT / "ray_app.yaml").read_text()
    text = text.replace("serving/m3/weights", str(ROOT / "serving/m3/weights"))
    config.write_text(text.replace("router/artifacts/m3-tiny", str(artifact)))
    ended = subprocess.run(
        [*SERVE_M3, "--config", str(config), "--port", str(free_port())], capture_output=True, text=True, timeout=600
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    starting, error = ended.stderr.splitlines()
    assert starting.startswith("serve-m3: starting")
    assert error.startswith(f"serve-m3: ArtifactError: {artifact}/artifact.json: its SHA-256")


@pytest.mark.slow
def test_it_decides_after_the_tower_and_answers_twice_when_told_to(tmp_path, pairs):
    """The other shipped router, asking the replica what its tower sees; unsure answers are given again."""
    config = tmp_path / "ray_app.yaml"
    text = (ROOT / "ray_app.yaml").read_text()
    text = text.replace("serving/m3/weights", str(ROOT / "serving/m3/weights"))
    tower = f"{ROOT / 'router/artifacts/m3-tiny-tower'}\n      second_look: true"
    config.write_text(text.replace("router/artifacts/m3-tiny", tower))
    running = start(tmp_path / "log.txt", "--config", str(config))
    try:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            told = [
                decided(ask(client, question, pair.image)) for pair in pairs for question in (pair.coarse, pair.fine)
            ]
    finally:
        running.stop()
    assert {each["why"] for each in told} <= {"predicted", "unsure", "unfamiliar"}
    assert all(each["probabilities"] for each in told)
    twice = [each for each in told if each["first_tokens"] is not None]
    assert twice and all(each["why"] == "unsure" for each in twice)
    assert all(each["visual_tokens"] == each["first_tokens"] + each["tokens"] for each in twice)
    coarse, fine = told[::2], told[1::2]
    assert sum(each["tokens"] for each in coarse) < sum(each["tokens"] for each in fine) / 2


def alive(pid: int) -> bool:
    """Whether a process still runs; one that merely awaits its parent doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
