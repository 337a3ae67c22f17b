"""What Prometheus reads from a real Ray that `Metrics` counts in."""

import subprocess
import sys

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from server import free_port

from serving.metrics import ALL, PREFIX

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROGRAM = """
import os, secrets, sys, time, urllib.error, urllib.request
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on the loopback address alone
    "RAY_metrics_report_interval_ms": "1000",
}
import ray

port = int(sys.argv[1])
ray.init(address="local", include_dashboard=False, num_cpus=1, object_store_memory=100 * 2**20,
         log_to_driver=False, _metrics_export_port=port)

@ray.remote
class Counting:
    def __init__(self):
        from serving.metrics import Metrics
        self.metrics = Metrics()

    def count(self):
        from router.cache import CacheStats
        from router.policy import Decision
        decision = Decision(36, (1, 36, 576), (0.25, 0.5, 0.75), "predicted", 0.001, "artifact", 2.0)
        self.metrics.requested("/v1/chat/completions", 200)
        self.metrics.rate_limited()
        self.metrics.decided(decision)
        self.metrics.answered(decision, 36, 0.5, 0.25)
        self.metrics.feedback(1.0)
        self.metrics.shadowed(decision, decision)
        self.metrics.cached(CacheStats(1, 1, 1, 1, 1, 1, 1))

    def tell(self):
        self.metrics.drifted(0.25)
        self.metrics.working(2, 3)

counting = Counting.remote()
ray.get(counting.count.remote())
last = sys.argv[2:]
deadline_s = time.monotonic() + 60
page = ""
while time.monotonic() < deadline_s and not all(name in page for name in last):
    ray.get(counting.tell.remote())
    time.sleep(0.5)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            page = reply.read().decode()
    except urllib.error.URLError:
        pass
print(page)
ray.shutdown()
"""


@pytest.fixture(scope="module")
def families() -> dict[str, Metric]:
    names = [PREFIX + declared.name for declared in ALL]
    command = [sys.executable, "-c", PROGRAM, str(free_port()), *names]
    page = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    return {family.name: family for family in text_string_to_metric_families(page)}


def test_every_metric_is_exported_with_its_kind_and_labels(families: dict[str, Metric]):
    for declared in ALL:
        family = families[PREFIX + declared.name.removesuffix("_total")]
        assert family.type == declared.kind
        assert all(set(declared.labels) <= set(sample.labels) for sample in family.samples)


def test_counts_and_gauges_come_out_as_they_went_in(families: dict[str, Metric]):
    def only(name: str, suffix: str = "") -> float:
        (value,) = (sample.value for sample in families[PREFIX + name].samples if sample.name.endswith(suffix))
        return value

    assert only("m3_decisions") == 1
    assert (only("m3_visual_tokens"), only("m3_visual_tokens_if_finest")) == (36, 576)
    assert (only("m3_scale_drift_index"), only("m3_waiting_requests"), only("m3_running_requests")) == (0.25, 2, 3)
    assert only("m3_answer_seconds", "_count") == 1


def test_a_histogram_has_the_declared_buckets(families: dict[str, Metric]):
    for declared in ALL:
        if declared.kind == "histogram":
            samples = families[PREFIX + declared.name].samples
            bounds = [float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")]
            assert bounds == [*declared.bounds, float("inf")]
