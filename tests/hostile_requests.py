"""Requests made to hurt, small ones and huge ones, and what is wrong with a reply to one."""

import copy
import json
import random
from typing import Any, Protocol

from doubles import LADDER, FakeM3, FakeRouter, LocalModel, chat_body, data_url
from hostile import damaged

from serving.model import ModelInfo
from serving.service import Service
from serving.settings import Settings

DOCUMENTED = {400, 401, 404, 405, 408, 409, 413, 429}
LONGEST = 1000  # characters of an error
LIMIT_S = 10.0  # of a reply
HUGE_BYTES = 10_000_000
HUGE_SHARE = 0.005  # of hostile requests: one takes as long as a hundred others
ECHO = 200  # characters of what was sent that an error may repeat
TEXTS = ("", "\0", "\u202egnihtyna", "\ud7ff\uffff", "<image>", "x" * 5000, "\x1b[31m", "%s%n{0}", "\U0001f600" * 300)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 0.5, [], {}, [[]], "m3-auto"),
    *TEXTS,
)
CHAT = json.dumps(chat_body("QUESTION"), separators=(",", ":")).encode()
PART = b'{"type":"text","text":"QUESTION"}'
HUGE: dict[str, tuple[bytes, bytes, bytes]] = {  # in the place of what stands what, again and again, and then what
    "plain words": (b"QUESTION", b"what is it? ", b""),
    "one enormous word": (b"QUESTION", b"x", b""),
    "blanks": (b"QUESTION", b" ", b""),
    "NUL": (b"QUESTION", b"\\u0000", b""),
    "bidirectional controls": (b"QUESTION", "\u202e\u2066".encode(), b""),
    "bidirectional controls, escaped": (b"QUESTION", b"\\u202e", b""),
    "marks on one letter": (b"QUESTION", "\u0301".encode(), b""),
    "quotes": (b"QUESTION", b'\\"', b""),
    "lone surrogates": (b"QUESTION", b"\\ud800", b""),
    "a lone surrogate at the end": (b"QUESTION", b"x", b"\\udc00"),
    "deep lists": (b'"QUESTION"', b"[", b'"QUESTION"'),
    "deep objects": (b'"QUESTION"', b'{"text":', b'"QUESTION"'),
    "parts that are texts": (PART, PART + b",", PART),
    "parts that are numbers": (PART, b"1,", PART),
    "parts that are empty": (PART, b"{},", PART),
    "fields that nobody knows": (b'"model"', b'"a":1,', b'"model"'),
    "a model's name": (b"m3-auto", b"m3-auto-0.1", b""),
    "parameters of a data URL": (b";base64", b";a=a", b";base64"),
    "a picture of zeros": (b'"}}', b"A", b'"}}'),
}


class Reply(Protocol):
    """A reply as httpx has it, as far as it is looked at; schemathesis has it too."""

    status_code: int

    def json(self) -> Any: ...


def service_of_doubles(settings: Settings | None = None) -> Service:
    """The service's own code before a model and a router without weights."""
    return Service(FakeRouter(), LocalModel(FakeM3()), ModelInfo("fake", LADDER, 192), settings or Settings())


def huge_body(kind: str, size: int = HUGE_BYTES) -> bytes:
    """A chat request that one of the HUGE kinds makes so many bytes long, roughly."""
    place, piece, end = HUGE[kind]
    return CHAT.replace(place, piece * (size // len(piece)) + end)


def hostile_body(rng: random.Random, pictures: list[bytes]) -> bytes:
    """A request that is huge, or broken in one way or several, or in none."""
    if rng.random() < HUGE_SHARE:
        return huge_body(rng.choice(list(HUGE)))
    kind = rng.randrange(11)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        deep = rng.choice((50, 500, 20_000))
        return (rng.choice((b"[", b'{"m3":')) * deep)[:2_000_000]
    body: dict[str, Any] = chat_body("What colour is it?", rng.choice(pictures))
    if rng.random() < 0.5:
        body = chat_body("What colour is it?", damaged(rng.choice(pictures), rng))
    if kind == 2:
        body["messages"][0]["content"][1]["image_url"]["url"] = data_url(rng.choice(pictures))[: rng.randrange(2000)]
    elif kind == 3:
        body["messages"][0]["content"][0]["text"] = rng.choice(TEXTS) * rng.choice((1, 10, 2000))
    elif kind == 4:
        body = {"requests": [body] * rng.randrange(4)}
    elif kind == 5:
        body = {"decision_id": rng.choice(TEXTS), "score": rng.choice(VALUES), "correct": rng.choice(VALUES)}
    elif 5 < kind < 10:
        for _ in range(rng.randrange(1, 4)):
            _replace(body, rng)
    text = json.dumps(body)
    if kind == 10:  # a name twice
        name, value = rng.choice(("model", "messages", "m3", "stream")), json.dumps(_value(rng))
        text = rng.choice((f'{{"{name}": {value}, {text[1:]}', f'{text[:-1]}, "{name}": {value}}}'))
    if kind == 9:
        at = rng.randrange(len(text))
        text = (
            text[:at]
            + rng.choice((text[at : at + 30] * 2, "\\ud800", "1e999", ",,", "NaN", "\\u0000"))
            + text[at + 1 :]
        )
    return text.encode(errors="surrogatepass") + (b"\xff" if rng.random() < 0.02 else b"")


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))  # lists and objects are filled by what is replaced later


def _replace(body: Any, rng: random.Random) -> None:
    """Put something else in the place of a random value of a JSON tree, or add a field."""
    while True:
        keys = list(body) if isinstance(body, dict) else list(range(len(body)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(body[key], dict | list) and body[key] and rng.random() < 0.7:
            body = body[key]
            continue
        if isinstance(body, dict) and rng.random() < 0.3:
            name = rng.choice(("n", "stop", "m3", "stream", "logprobs", "top_p", "seed", "tools", "x" * 300))
            body[name] = _value(rng)
        else:
            body[key] = _value(rng)
        return


def fault_of(reply: Reply, body: bytes) -> str | None:
    """What is wrong with a reply; None if nothing is."""
    if reply.status_code < 300:
        return None
    if reply.status_code not in DOCUMENTED:
        return "an undocumented status"
    try:
        error = reply.json()["error"]
    except (ValueError, KeyError, TypeError):
        return "not OpenAI's shape"
    if set(error) != {"message", "type", "param", "code"} or not all(
        each is None or isinstance(each, str) for each in error.values()
    ):
        return "not OpenAI's shape"
    if len(error["message"]) > LONGEST:
        return f"an error of {len(error['message'])} characters"
    sent = body.decode(errors="replace")
    for told in filter(None, error.values()):
        if any(told[at : at + ECHO + 1] in sent for at in range(len(told) - ECHO)):
            return f"more than {ECHO} characters echoed"
    return None
