"""Requests of 10 MB, which the limit on bodies lets in: refused or answered in time, and without taking much memory."""

import json
import re
import subprocess
import sys

import pytest
from doubles import FakeM3, LocalModel, chat_body
from hostile_requests import HUGE, HUGE_BYTES, LIMIT_S, huge_body
from test_api import app_of, chat, error_of, send

from serving.conversation import DATA_URL
from serving.failures import Refused
from serving.openai import ChatRequest, RouteBatch
from serving.parse import MOST_PIECES, parsed
from serving.settings import ROOT, Settings

MOST_MB = 250  # that all of them together add to a process

# Sends every kind in a process of its own, since memory's peak is the process's; tells statuses, times and growth.
ASK_ALL = """
import asyncio, json, resource, sys, time
sys.path.insert(0, "tests")
import httpx
from hostile_requests import CHAT, HUGE, fault_of, huge_body, service_of_doubles
from serving.api import create_app
from serving.settings import Settings


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def main(most_body_bytes):
    app = create_app(service_of_doubles(Settings(max_body_bytes=most_body_bytes)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://huge", timeout=60) as client:
        assert (await client.post("/v1/chat/completions", content=CHAT)).status_code == 200
        before_mb, told = peak_mb(), {}
        for kind in HUGE:
            body = huge_body(kind)
            start_s = time.perf_counter()
            reply = await client.post("/v1/chat/completions", content=body)
            took_s = time.perf_counter() - start_s
            code = reply.json().get("error", {}).get("code")
            told[kind] = reply.status_code, code, took_s, fault_of(reply, body), peak_mb() - before_mb
    print(json.dumps(told))


asyncio.run(main(int(sys.argv[1])))
"""


def ask_all(max_body_bytes: int) -> dict[str, list]:
    command = [sys.executable, "-c", ASK_ALL, str(max_body_bytes)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("max_body_bytes", [Settings().max_body_bytes, 100_000_000])
def test_ten_megabytes_are_refused_or_answered_in_time_and_take_little_memory(max_body_bytes):
    told = ask_all(max_body_bytes)
    assert set(told) == set(HUGE)
    for kind, (status, code, took_s, wrong, growth_mb) in told.items():
        assert wrong is None and status in (200, 400, 404), (kind, status, code, wrong)
        assert took_s < LIMIT_S and growth_mb < MOST_MB, (kind, took_s, growth_mb)
    codes = {kind: code for kind, (_, code, *_) in told.items()}
    assert codes["plain words"] == codes["NUL"] == codes["one enormous word"] == "question_too_long"
    assert codes["lone surrogates"] == "invalid_json" and codes["blanks"] == "empty_question"
    assert (
        codes["deep lists"] == codes["parts that are numbers"] == codes["fields that nobody knows"] == "too_many_values"
    )


def test_ten_megabytes_over_the_limit_on_bodies_are_refused_by_size():
    app = app_of(LocalModel(FakeM3()), Settings(max_body_bytes=HUGE_BYTES // 2))
    replies = send(app, *(lambda client, kind=kind: client.post("/v1/route", content=huge_body(kind)) for kind in HUGE))
    assert {(reply.status_code, error_of(reply)["code"]) for reply in replies} == {(413, "body_too_large")}


def test_a_body_in_too_many_pieces_is_refused_and_what_stands_in_texts_does_not_count():
    body = chat_body("[{," * 300)
    body["prompt_cache_key"] = ',[{"' * MOST_PIECES
    assert parsed(ChatRequest, json.dumps(body).encode()).prompt_cache_key == body["prompt_cache_key"]
    (reply,) = send(app_of(LocalModel(FakeM3())), chat(chat_body() | {"stop": ["a"] * MOST_PIECES}))
    assert reply.status_code == 400 and error_of(reply)["code"] == "too_many_values"
    with pytest.raises(Refused, match="more than 100000"):
        parsed(ChatRequest, b'""' * (MOST_PIECES + 1))


def test_a_full_batch_of_long_conversations_has_not_too_many_pieces():
    turns = [{"role": role, "content": [{"type": "text", "text": "What, then?"}]} for role in ("user", "assistant")]
    messages = [*(turns * 31), turns[0], chat_body()["messages"][0]]
    batch = {"requests": [chat_body() | {"messages": messages}] * 64}
    assert len(parsed(RouteBatch, json.dumps(batch).encode()).requests) == 64


@pytest.mark.parametrize(
    "head", ["data:image/png;base64,", "data:a/b;c=d;base64,", "data:a/b" + ";c=d" * 9 + ";base64,"]
)
def test_a_data_url_may_have_parameters(head):
    assert DATA_URL.match(head)[0] == head
    assert not DATA_URL.match(re.sub(";base64,", ";base64;x=y,", head))
