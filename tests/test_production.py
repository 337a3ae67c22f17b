"""The real service as a platform uses it: other clients, replicas that die, callers that go away, a stop under load."""

import asyncio
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from doubles import chat_body, data_url, png
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from server import Server, free_port, start, wait_for, write_config

from complexity.feedback import read_feedback
from serving.settings import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("production")


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(folder: Path, metrics_port: int) -> Iterator[Server]:
    config = folder / "ray_app.yaml"
    args = {
        "api_keys": [{"name": "tests", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}],
        "feedback_dir": str(folder / "feedback"),
        "access_log": str(folder / "access.log"),
    }
    write_config(config, args, Ingress={"user_config": {"shadow": str(ROOT / "router/artifacts/m3-tiny-tower")}})
    running = start(folder / "log.txt", "--config", str(config), "--metrics-port", str(metrics_port))
    yield running
    if running.process.poll() is None:
        running.stop()


def post(service: Server, body: object, path: str = "/v1/chat/completions") -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(service.url + path, json=body, headers=headers, timeout=90)


def fine(i: int, **options: object) -> dict[str, object]:
    """A request at the finest scale about a picture of its own."""
    return chat_body(f"What colour is it? {i}", png(colour=f"#{i:06x}"), "m3-576") | options


PICTURE = {"type": "image_url", "image_url": {"url": data_url(png(64, 64, "navy")), "detail": "low"}}
QUESTION = {"type": "text", "text": "What colour is the background?"}


def test_the_openai_client_gets_several_answers_log_probabilities_and_a_conversation(service):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0, timeout=90) as client:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [QUESTION, PICTURE]}]
        first = client.chat.completions.create(
            model="m3-auto-0.02", messages=messages, n=2, temperature=1, seed=3, logprobs=True, top_logprobs=2
        )
        again = client.chat.completions.create(
            model="m3-auto-0.02", messages=messages, n=2, temperature=1, seed=3, logprobs=True, top_logprobs=2
        )
        said, said_again = ([choice.message.content for choice in each.choices] for each in (first, again))
        assert len(said) == 2 and said == said_again
        sure, sure_again = (
            [token.logprob for choice in each.choices for token in choice.logprobs.content] for each in (first, again)
        )
        assert sure == pytest.approx(sure_again, abs=1e-4)  # rounded otherwise where the two weren't read together
        assert len(first.choices[0].logprobs.content[0].top_logprobs) == 2
        assert first.m3["tokens"] <= 36
        messages += [first.choices[0].message, {"role": "user", "content": "And is it dark?"}]
        assert client.chat.completions.create(model="m3-auto", messages=messages).choices[0].message.content


def test_the_async_client_streams_side_by_side(service):
    async def scenario() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0, timeout=90) as client:
            stream = await client.chat.completions.create(
                model="m3-auto",
                messages=[{"role": "user", "content": [QUESTION, PICTURE]}],
                n=2,
                stream=True,
                stream_options={"include_usage": True},
            )
            texts, usage = ["", ""], None
            async for chunk in stream:
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    texts[choice.index] += choice.delta.content or ""
            assert usage is not None and usage.completion_tokens > 0
            return texts

    one, two = asyncio.run(scenario())
    assert one == two != ""


def test_langchains_client_is_answered_whole_and_streamed(service):
    client = ChatOpenAI(base_url=f"{service.url}/v1", api_key=KEY, model="m3-9", max_retries=0, timeout=90)
    messages = [SystemMessage("Be brief."), HumanMessage([QUESTION, PICTURE | {"image_url": {"url": data_url(png())}}])]
    whole = client.invoke(messages)
    streamed = "".join(chunk.text for chunk in client.stream(messages))
    assert whole.text == streamed != "" and whole.usage_metadata["input_tokens"] > 9


def test_without_its_key_nobody_is_answered(service):
    assert httpx.post(f"{service.url}/v1/route", json=chat_body()).status_code == 401
    assert httpx.get(f"{service.url}/health").status_code == 200


def test_feedback_is_on_the_disk_with_what_the_shadow_would_have_done(service, folder):
    answered = post(service, chat_body("What colour is the background?", png(50, 50, "teal"))).json()["m3"]
    verdict = {"decision_id": answered["decision_id"], "correct": True, "reference": "teal"}
    assert post(service, verdict, "/v1/feedback").status_code == 200
    (row,) = (each for each in read_feedback(folder / "feedback").rows if each.references == ("teal",))
    assert (row.score, row.answered.tokens) == (1.0, answered["tokens"])
    assert row.answered.shadow_tokens in (None, 1, 9, 36, 144, 576)


def test_the_log_tells_of_requests_and_nothing_of_what_they_asked(service, folder):
    name = "a-request-of-the-tests"
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": name}
    question = "What colour is the secret?"
    reply = httpx.post(f"{service.url}/v1/route", json=chat_body(question), headers=headers)
    assert reply.headers["x-request-id"] == name
    wait_for(lambda: name in (folder / "access.log").read_text(), 10)
    (line,) = (line for line in (folder / "access.log").read_text().splitlines() if name in line)
    assert '"route": "/v1/route"' in line and '"key": "tests"' in line and "secret" not in line


def test_prometheus_reads_what_happened(service, metrics_port):
    def page() -> str:
        return httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=20).text

    post(service, fine(1))
    names = ("m3_requests_total", "m3_decisions_total", "m3_visual_tokens_total", "m3_running_requests")
    wait_for(lambda: all(f"ray_{name}" in page() for name in names), 60)


def test_a_replica_that_dies_costs_no_unstreamed_answer_and_ends_streams_with_an_event(service):
    """Requests that it had are answered by the other; a stream that had begun ends with an error event, none hangs."""

    def whole(i: int) -> int:
        return post(service, fine(i)).status_code

    def stream(i: int) -> str:
        reply = post(service, fine(i, stream=True))
        last = reply.text.strip().split("\n\n")[-1]
        return "done" if last == "data: [DONE]" else "event" if '"error"' in last else f"torn: {last}"

    before = set(service.replicas())
    assert len(before) == 2
    with ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(whole, 1000 + i) for i in range(40)] + [pool.submit(stream, 2000 + i) for i in range(20)]
        time.sleep(1)
        os.kill(min(before), signal.SIGKILL)
        told = Counter(each.result() for each in asked)
    assert told[200] == 40
    assert told["done"] + told["event"] == 20
    wait_for(lambda: len(set(service.replicas()) - before) == 1)
    wait_for(lambda: post(service, fine(1)).status_code == 200)


def test_a_caller_that_goes_away_frees_its_place(service):
    """After fifty streams that were left at once, a request doesn't wait for fifty answers."""

    async def leave(client: httpx.AsyncClient, i: int) -> None:
        body = fine(3000 + i, stream=True, max_tokens=256)
        headers = {"authorization": f"Bearer {KEY}"}
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
            async for _ in reply.aiter_raw():
                return

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=90) as client:
            await asyncio.gather(*(leave(client, i) for i in range(50)))

    asyncio.run(scenario())
    wait_for(lambda: post(service, fine(2)).json()["choices"][0]["finish_reason"] == "stop", 30)


def test_told_to_stop_it_answers_what_it_has_and_takes_nothing_new(service):
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(lambda i=i: post(service, fine(4000 + i)).status_code) for i in range(40)]
        time.sleep(1.5)
        assert service.stop() == 0
        assert Counter(each.result() for each in asked) == {200: 40}
    with pytest.raises(httpx.ConnectError):
        post(service, fine(1))
