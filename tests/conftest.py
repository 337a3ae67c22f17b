"""Fixtures that more than one test file uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from redis_process import RedisProcess, start_redis
from server import Server, start

from training_data.drawn.corpus import CorpusItem, draw_item

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real service, from ray_app.yaml, with the shipped model and artifact; started once."""
    running = start(tmp_path_factory.mktemp("serve-m3") / "log.txt")
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A real redis-server of the test's own, free to be killed or frozen."""
    running = start_redis(tmp_path)
    yield running
    running.kill()


@pytest.fixture(scope="session")
def drawn_samples() -> list[CorpusItem]:
    """Pictures that no training saw, each with questions of many families."""
    return [draw_item("test", 2_000_000, index, questions=40) for index in range(60)]
