"""docs/feedback.md from end to end on the real service, collect to swap; and the trace of a request through it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, takewhile
from math import sqrt
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from doubles import chat_body
from prometheus_client.parser import text_string_to_metric_families
from server import Server, free_port, start
from span_file import EXPORTER, VARIABLE

from complexity.feedback import FeedbackRow, read_feedback
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.labels import LabelMeta, LabelRow, write_shard
from complexity.sample import Sample
from router.artifact import load_artifact
from serving.metrics import PREFIX, SHADOW
from serving.settings import ROOT
from training_data.drawn.corpus import draw_item
from training_data.scoring import exact_match

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

SHIPPED = ROOT / "router/artifacts/m3-tiny"
LADDER = (1, 9, 36, 144, 576)
NEXT = "router/artifacts/next"  # as the document names it, counted from the folder of ray_app.yaml
TRAIN_ROUTER = [sys.executable, "-c", "import sys; from router.train import main; sys.exit(main())"]
DRAWN = {"train": 120, "calibration": 40, "test": 40}  # pictures of the table
HELD_OUT = 5_000_000  # seed of pictures that nobody has seen
PERCENT = 30


@dataclass(frozen=True)
class Pair:
    """A question about a picture, and what is right."""

    image: bytes
    question: str
    answer: str


def pairs_of(seed: int, pictures: int, questions: int = 3) -> list[Pair]:
    """Held-out pictures, freshly drawn, with their questions."""
    items = (draw_item("test", seed, index, questions) for index in range(pictures))
    return [Pair(item.png, asked.text, asked.answer) for item in items for asked in item.questions]


def write_table(folder: Path) -> None:
    """A small label table in place of a sweep's, which takes minutes: drawn pictures, and made-up verdicts on m3-tiny.

    What is written small takes 144 tokens, other things 9, and one in ten is never right.
    """
    model = load_artifact(SHIPPED).model
    rows = []
    for split, pictures in DRAWN.items():
        for index in range(pictures):
            item = draw_item(split, 0, index, 3)
            picture = Sample(item.png, "-")
            for k, asked in enumerate(item.questions):
                needed = 144 if asked.family.startswith(("read_", "receipt_", "first_", "line_", "bar_")) else 9
                solved = (index + k) % 10 > 0
                rows += [
                    LabelRow(
                        sample_id=f"{item.item_id}-{k}",
                        dataset="drawn",
                        task=asked.family,
                        split=split,
                        image_sha256=picture.image_sha256,
                        question=asked.text,
                        references=[asked.answer],
                        model=model,
                        tokens=tokens,
                        visual_tokens=tokens,
                        prediction="",
                        score=float(solved and tokens >= needed),
                        mean_logprob=-0.5,
                        generated_tokens=1,
                        image_features=picture.image_features,
                    )
                    for tokens in LADDER
                ]
    write_shard(folder / "0.parquet", rows, LabelMeta(LADDER, IMAGE_FEATURE_VERSION, model, "made-up-1"))


class User:
    """Who runs the service: edits its ray_app.yaml, tells it so, asks, and gives feedback."""

    def __init__(self, folder: Path):
        self.folder, self.metrics_port = folder, free_port()
        self._told = yaml.safe_load((ROOT / "ray_app.yaml").read_text())
        (self._application,) = self._told["applications"]
        self._application["args"] |= {
            "feedback_dir": "feedback",
            "tracing": {"exporter": EXPORTER},
        }
        self._write()
        here = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
        options = ("--config", str(folder / "ray_app.yaml"), "--metrics-port", str(self.metrics_port))
        environment = {"PYTHONPATH": here, VARIABLE: str(folder / "spans.jsonl")}
        self.server: Server = start(folder / "log.txt", *options, **environment)
        self._client = httpx.Client(base_url=self.server.url, timeout=120)

    def ask(self, pair: Pair, model: str = "m3-auto", **headers: str) -> tuple[str, dict[str, Any]]:
        """The answer, and the field `m3` with it."""
        body = chat_body(pair.question, pair.image, model)
        reply = self._client.post("/v1/chat/completions", json=body, headers=headers).raise_for_status().json()
        return reply["choices"][0]["message"]["content"], reply["m3"]

    def judge(self, pair: Pair, answer: str, decided: dict[str, Any]) -> dict[str, Any]:
        """Give feedback on an answer; what came back."""
        score = exact_match(answer, [pair.answer])
        verdict = {"decision_id": decided["decision_id"], "score": score, "reference": pair.answer}
        headers = {"idempotency-key": decided["decision_id"]}
        return dict(self._client.post("/v1/feedback", json=verdict, headers=headers).raise_for_status().json())

    def change(self, user_config: dict[str, Any]) -> None:
        """Edit ray_app.yaml, `kill -HUP`, and wait until serve-m3 says that it was read."""
        read = "serve-m3: the config was read again"
        times = self.server.log.read_text().count(read)
        self._application["deployments"][0]["user_config"] = user_config
        self._write()
        self.server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.server.log.read_text().count(read) > times)

    def rows(self) -> dict[str, FeedbackRow]:
        """The journal's rows by decision."""
        return {row.answered.decision_id: row for row in read_feedback(self.folder / "feedback").rows}

    def shadowed(self) -> float:
        """Decisions of a shadow that were counted so far."""
        page = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20).text
        samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == PREFIX + SHADOW.name)

    def close(self) -> None:
        self._client.close()
        self.server.stop()

    def _write(self) -> None:
        (self.folder / "ray_app.yaml").write_text(yaml.safe_dump(self._told))


def wait_for(what: Callable[[], bool], limit_s: float = 120) -> None:
    deadline_s = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    running = User(tmp_path_factory.mktemp("loop"))
    yield running
    running.close()


def test_a_request_is_one_trace_through_the_replica(user):
    """From the reading of it to the last token that a replica wrote, all within its caller's trace."""
    trace, caller = "5" * 32, "7" * 16
    user.ask(pairs_of(HELD_OUT - 1, 1)[0], traceparent=f"00-{trace}-{caller}-01")

    def spans() -> dict[str, dict[str, Any]]:
        path = user.folder / "spans.jsonl"
        found = map(json.loads, path.read_text().splitlines() if path.exists() else ())
        return {span["name"]: span for span in found if span["context"]["trace_id"] == f"0x{trace}"}

    wait_for(lambda: "chat" in spans())  # it ends last
    made = spans()
    above = {name: span["parent_id"] for name, span in made.items()}
    chat, read, decide = (made[name]["context"]["span_id"] for name in ("chat", "read", "decide"))
    assert above == {
        "chat": f"0x{caller}",
        **dict.fromkeys(("read", "decide", "queue", "tower", "prefill", "decode"), chat),
        "image": read,
        **dict.fromkeys(("cache", "features", "predict"), decide),
    }
    assert all(made["chat"]["start_time"] <= span["start_time"] for span in made.values())
    assert all(span["end_time"] <= made["chat"]["end_time"] for span in made.values())


def test_feedback_becomes_a_router_that_watches_then_decides_for_some_then_for_all(user):
    """Each step as the document has it; no answer fails on the way, and each says which artifact decided."""
    shipped = load_artifact(SHIPPED).digest
    write_table(user.folder / "labels")

    # collect
    pairs = pairs_of(HELD_OUT, 40)
    models = ["m3-auto", "m3-auto", "m3-9", "m3-144"]  # a share of the requests names its scale
    answered = [(pair, *user.ask(pair, models[i % 4])) for i, pair in enumerate(pairs)]
    receipts = [user.judge(*each) for each in answered]
    assert not any(receipt["duplicate"] for receipt in receipts) and user.judge(*answered[0])["duplicate"]
    assert {decided["artifact"] for _, _, decided in answered} == {shipped}
    assert set(user.rows()) == {decided["decision_id"] for _, _, decided in answered}

    # retrain
    command = [*TRAIN_ROUTER, "labels", "--feedback", "feedback", "--out", NEXT]
    trained = subprocess.run(command, cwd=user.folder, capture_output=True, text=True, timeout=600, check=True)
    told = json.loads(trained.stdout.splitlines()[-1])
    heard = told["feedback"]
    assert heard["rows"] == len(pairs) == heard["used"] + sum(heard["left_out"].values()) and heard["used"] > 0.8 * len(
        pairs
    )
    assert set(heard["left_out"]) <= {"unfamiliar"}
    assert f"feedback: {heard['used']} of {len(pairs)} rows" in trained.stderr
    assert told["digest"] == load_artifact(user.folder / NEXT).digest != shipped

    # shadow
    user.change({"shadow": NEXT})
    watched = pairs_of(HELD_OUT + 1, 30)
    seen = 0

    def is_watched() -> bool:
        nonlocal seen
        seen = user.shadowed()
        user.ask(watched[0])
        return seen > 0

    wait_for(is_watched)
    asked = [(pair, *user.ask(pair)) for pair in watched]
    for each in asked:
        user.judge(*each)
    assert {decided["artifact"] for _, _, decided in asked} == {shipped}
    rows = [user.rows()[decided["decision_id"]].answered for _, _, decided in asked]
    assert [row.tokens for row in rows] == [decided["tokens"] for _, _, decided in asked]
    choices = Counter((row.tokens, row.shadow_tokens) for row in rows if row.shadow_tokens is not None)
    assert choices.total() > 0.8 * len(rows) and any(served != shadow for served, shadow in choices)
    wait_for(lambda: user.shadowed() >= seen + 0.8 * len(rows))

    # canary
    user.change({"canary": NEXT, "canary_percent": PERCENT})
    sample = pairs_of(HELD_OUT + 2, 60)

    few = sample[:20]

    def deciders(pairs: list[Pair]) -> list[str]:
        with ThreadPoolExecutor(4) as pool:
            return [decided["artifact"] for _, decided in pool.map(user.ask, pairs)]

    wait_for(lambda: told["digest"] in deciders(few))
    first, again = deciders(sample), deciders(sample)
    n, p = len(sample), PERCENT / 100
    assert set(first) == {shipped, told["digest"]} and first == again
    assert abs(first.count(told["digest"]) - n * p) <= 4 * sqrt(n * p * (1 - p))
    for digest in (shipped, told["digest"]):
        pair = sample[first.index(digest)]
        answer, decided = user.ask(pair)
        user.judge(pair, answer, decided)
        assert user.rows()[decided["decision_id"]].answered.artifact == digest

    # swap
    stop = threading.Event()

    def load(seed: int) -> list[str]:
        asked = takewhile(lambda _: not stop.is_set(), cycle(pairs_of(seed, 80)))
        return [user.ask(pair)[1]["artifact"] for pair in asked]

    with ThreadPoolExecutor(2) as pool:
        loading = [pool.submit(load, HELD_OUT + 3 + i) for i in range(2)]
        try:
            user.change({"artifact": NEXT})
            wait_for(lambda: set(deciders(few)) == {told["digest"]})
        finally:
            stop.set()
        named = [each.result() for each in loading]  # raises if one has failed
    assert set(named[0] + named[1]) == {shipped, told["digest"]} and all(each[-1] == told["digest"] for each in named)

    # and back
    user.change({})
    wait_for(lambda: set(deciders(few)) == {shipped})
