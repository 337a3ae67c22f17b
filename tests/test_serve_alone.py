"""The real service in settings of its own: what it refuses, what changes while it runs."""

import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import yaml
from routers import rewritten
from server import SERVE_M3, free_port, start, write_config
from test_serve import Pair, ask, decided, pair_of

from router.artifact import load_artifact
from serving.settings import ROOT
from training_data.drawn.corpus import CorpusItem

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def pairs(drawn_samples: list[CorpusItem]) -> list[Pair]:
    return [pair for item in drawn_samples if (pair := pair_of(item)) is not None][:12]


def test_an_artifact_of_another_model_stops_the_start_with_one_line(tmp_path):
    artifact = tmp_path / "artifact"
    shutil.copytree(ROOT / "router/artifacts/m3-tiny", artifact)
    rewritten(artifact, model="m3-other@0123456789ab")
    config = tmp_path / "ray_app.yaml"
    write_config(config, {"artifact": str(artifact)})
    ended = subprocess.run(
        [*SERVE_M3, "--config", str(config), "--port", str(free_port())], capture_output=True, text=True, timeout=600
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    starting, error = ended.stderr.splitlines()
    assert starting.startswith("serve-m3: starting")
    assert error.startswith(f"serve-m3: ArtifactError: {artifact}: model of the artifact is 'm3-other@0123456789ab'")


def test_price_artifact_and_pools_change_without_a_failed_request(tmp_path, pairs):
    """Two pools; under load the price and then the artifact are exchanged; a config that is wrong changes nothing."""
    config = tmp_path / "ray_app.yaml"
    first = yaml.safe_load((ROOT / "ray_app.yaml").read_text())
    (application,) = first["applications"]
    application["args"]["pools"] = {"Coarse": 36, "Fine": 576}
    application["deployments"] = [{"name": "Ingress"}, {"name": "Coarse", "num_replicas": 2}, {"name": "Fine"}]
    config.write_text(yaml.safe_dump(first))
    running = start(tmp_path / "log.txt", "--config", str(config))

    def told() -> dict[str, object]:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            return [decided(ask(client, pair.coarse, pair.image)) for pair in pairs[:3]][-1]

    def change(user_config: dict[str, object], seen: str, wanted: object) -> None:
        application["deployments"][0]["user_config"] = user_config
        config.write_text(yaml.safe_dump(first))
        running.process.send_signal(signal.SIGHUP)
        deadline_s = time.monotonic() + 60
        while told()[seen] != wanted:
            assert time.monotonic() < deadline_s

    done = threading.Event()
    try:
        before = told()
        with ThreadPoolExecutor(3) as pool:
            load = [pool.submit(lambda: [told() for _ in iter(done.is_set, True)]) for _ in range(3)]
            try:
                change({"price": -1}, "tokens", 576)
                tower = ROOT / "router/artifacts/m3-tiny-tower"
                change({"artifact": str(tower)}, "artifact", load_artifact(tower).digest)
                change({"artifact": str(tmp_path)}, "artifact", load_artifact(tower).digest)
                change({}, "artifact", before["artifact"])
            finally:
                done.set()
            assert all(each.result() for each in load)
    finally:
        running.stop()


@pytest.mark.long
def test_it_decides_after_the_tower_and_answers_twice_when_told_to(tmp_path, pairs):
    """The other shipped router, asking the replica what its tower sees; unsure answers are given again."""
    config = tmp_path / "ray_app.yaml"
    write_config(config, {"artifact": str(ROOT / "router/artifacts/m3-tiny-tower"), "second_look": True})
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
