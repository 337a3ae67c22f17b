"""Requests of all kinds to a running service, and an account of what came back."""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from doubles import data_url

from training_data.drawn.corpus import draw_item

DOCUMENTED_5XX = {"model_unavailable", "timeout", "feedback_not_stored"}
LIMIT_S = 70.0  # of a request; the service gives up after 60


@dataclass
class Outcome:
    """What was seen."""

    known: dict[str, str] = field(default_factory=dict)  # answers before the faults
    stored: set[str] = field(default_factory=set)  # decisions whose feedback was acknowledged
    decided: list[str] = field(default_factory=list)
    by_status: Counter[str] = field(default_factory=Counter)
    by_code: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    wrong: int = 0
    hung: int = 0
    undocumented_5xx: int = 0
    torn: int = 0  # streams that ended without [DONE] and without an error event


class Load:
    """Sends requests of all kinds."""

    def __init__(self, url: str, session: aiohttp.ClientSession, rng: random.Random, outcome: Outcome):
        self._url, self._session, self._rng, self.outcome = url, session, rng, outcome
        items = [draw_item("test", 7_000_000, index, questions=3) for index in range(60)]
        self._asked = [(data_url(item.png), asked.text) for item in items for asked in item.questions]

    def body(self, i: int, model: str, **options: Any) -> dict[str, Any]:
        url, question = self._asked[i % len(self._asked)]
        content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
        return {"model": model, "messages": [{"role": "user", "content": content}], **options}

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and text; counts what must not be."""
        self.outcome.requests += 1
        start_s = time.monotonic()
        try:
            limit = aiohttp.ClientTimeout(total=LIMIT_S)
            async with self._session.post(self._url + path, json=body, headers=headers, timeout=limit) as reply:
                status, text = reply.status, await reply.text()
        except TimeoutError:
            self.outcome.hung += 1
            return 0, ""
        except aiohttp.ClientError as error:
            self._note("lost", type(error).__name__)
            self.outcome.undocumented_5xx += 1
            return 0, ""
        self.outcome.hung += time.monotonic() - start_s > LIMIT_S
        code = ""
        if status >= 400:
            try:
                code = json.loads(text)["error"]["code"]
            except (ValueError, KeyError, TypeError):
                code = "no JSON"
            if status >= 500 and code not in DOCUMENTED_5XX:
                self.outcome.undocumented_5xx += 1
                print(f"{path} {status}: {text[:300]}", file=sys.stderr)
        self._note(str(status), code)
        if status == 429:
            await asyncio.sleep(self._rng.random())  # as Retry-After asks
        return status, text

    def _note(self, status: str, code: str) -> None:
        self.outcome.by_status[status] += 1
        if code:
            self.outcome.by_code[code] += 1

    async def fixed(self, i: int, model: str | None = None) -> None:
        """A greedy answer at a fixed scale, the same before and during all faults."""
        model = model or self._rng.choice(("m3-1", "m3-36", "m3-144"))
        i %= len(self._asked)
        status, text = await self.post("/v1/chat/completions", self.body(i, model))
        if status == 200:
            said = json.loads(text)["choices"][0]["message"]["content"]
            self.outcome.wrong += said != self.outcome.known.setdefault(f"{i} {model}", said)

    async def one(self, kind: str, i: int) -> None:
        """A request of a kind."""
        chat, outcome = "/v1/chat/completions", self.outcome
        match kind:
            case "fixed":
                await self.fixed(i)
            case "auto":
                status, text = await self.post(chat, self.body(i, "m3-auto"))
                if status == 200:
                    outcome.decided.append(json.loads(text)["m3"]["decision_id"])
            case "stream":
                status, text = await self.post(chat, self.body(i, "m3-auto", stream=True))
                ended = text.rstrip().endswith("data: [DONE]")
                outcome.torn += status == 200 and not ended and '"error"' not in text
            case "two":
                await self.post(chat, self.body(i, "m3-9", n=2, temperature=1))
            case "route":
                await self.post("/v1/route", self.body(i, "m3-auto-0.02"))
            case "batch":
                await self.post("/v1/route/batch", {"requests": [self.body(i + k, "m3-auto") for k in range(4)]})
            case "feedback" if outcome.decided:
                name = outcome.decided.pop(self._rng.randrange(len(outcome.decided)))
                verdict = {"decision_id": name, "correct": self._rng.random() < 0.5}
                status, _ = await self.post("/v1/feedback", verdict, {"idempotency-key": name})
                if status == 200:
                    outcome.stored.add(name)
            case "bad":
                await self.post(chat, self.body(i, "m3-7"))
            case "leave":
                try:
                    await asyncio.wait_for(self.post(chat, self.body(i, "m3-576", stream=True)), 0.05)
                except TimeoutError:
                    self._note("left", "")
