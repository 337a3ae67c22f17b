"""The sweep of records with Ray Data: what is killed is done again, and every sample stands once.

The cluster of several nodes is one of several raylets on this machine.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_sweep_records import read_folder, write_pictures

from complexity.labels import read_labels
from training_data.readers.records import Picture
from training_data.sweeping.table import FAILURES, read_failures

HERE = Path(__file__).parent
SCRIPT = (
    "import sys; from test_sweep_records import read_folder; from training_data.sweep import main; "
    "sys.exit(main(read=read_folder))"
)


def start(tmp_path, log, *more):
    command = [sys.executable, "-c", SCRIPT, "--read", "folder", "--data", str(tmp_path / "pictures")]
    command += ["--out", str(tmp_path / "labels"), "--actors", "2", *more]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("w"), cwd=HERE, env=env, text=True)


def wait_for_shards(running, out, count, log):
    deadline = time.monotonic() + 400
    while len(list(out.glob("*.parquet"))) < count:
        assert running.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


def actors_of(running):
    """Processes of the sweep's own Ray that hold the model."""
    children = psutil.Process(running.pid).children(recursive=True)
    return [child for child in children if "Labeller" in " ".join(child.cmdline())]


def end(processes):
    """Wait until they are gone, and kill what is left."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        process.kill()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_actor_and_a_killed_driver_lose_and_double_nothing(tmp_path):
    """An actor killed while it works is replaced; a driver killed and started again goes on with what is missing."""
    write_pictures(tmp_path / "pictures", 96)
    out, log = tmp_path / "labels", tmp_path / "log"
    running = start(tmp_path, log)
    try:
        wait_for_shards(running, out, 1, log)
        first, *_ = actors_of(running)
        first.send_signal(signal.SIGKILL)
        wait_for_shards(running, out, 3, log)
    finally:
        family = psutil.Process(running.pid).children(recursive=True)
        running.kill()
        end(family)
    running.wait()
    kept = {path.name for path in out.glob("*.parquet")}
    told = list(read_folder("folder", tmp_path / "pictures", None))
    assert 0 < len(read_labels(out)) < len(told)
    check_rest(start(tmp_path, log), log, out, told, kept)


def check_rest(again, log, out, told, kept):
    """A sweep that goes on ends with every sample once, keeps what stood there, and sets aside what is gone once."""
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, log.read_text()[-3000:]
    report = json.loads(said.splitlines()[-1])
    table = read_labels(out)  # refuses duplicates and missing scales
    gone = {each.sample_id for each in told if each.record_id.endswith("-gone")}
    assert set(table.sample_id) == {each.sample_id for each in told} - gone
    assert 0 < report["new"] < len(table) and report["records"] == len(told) and kept < {p.name for p in out.glob("*")}
    assert {failure.sample_id for failure in read_failures(out)} == gone and report["failures"] == len(gone)
    lines = [line for file in (out / FAILURES).glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == len(gone)


class Poison(Picture):
    """What ends every process that reads it, as a decoder's bug would."""

    def read(self):
        os._exit(1)


def read_poison(name, path, images):
    """A reader that puts into the second batch a record that nobody survives."""
    told = [each for each in read_folder(name, path, images) if not each.record_id.endswith("gone")]
    return iter([*told[:60], replace(told[0], record_id="poison", pictures=(Poison(path / "poison.png"),))])


@pytest.mark.cluster
@pytest.mark.slow
def test_what_ends_every_actor_is_given_up_and_the_rest_is_done(tmp_path):
    """A batch that kills its actor again and again is told of when all others are in the table; exit 2."""
    write_pictures(tmp_path / "pictures", 20)
    reads = SCRIPT.replace("test_sweep_records", "test_sweep_cluster").replace("folder", "poison")
    command = [sys.executable, "-c", reads, "--read", "poison", "--data", str(tmp_path / "pictures")]
    command += ["--out", str(tmp_path / "labels"), "--actors", "1"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    ended = subprocess.run(command, capture_output=True, cwd=HERE, env=env, text=True, timeout=400)
    assert ended.returncode == 2, ended.stderr[-3000:]
    assert "sweep-m3: 1 batches aren't done: each ended 6 actors" in ended.stderr
    told = list(read_poison("poison", tmp_path / "pictures", None))
    lost = {each.sample_id for each in told} - set(read_labels(tmp_path / "labels").sample_id)
    assert "mine/poison" in lost and len(lost) < 20


@pytest.fixture
def cluster(monkeypatch):
    """A head and two nodes of a CPU each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))  # of the nodes' processes
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        running.add_node(num_cpus=1)
    yield running
    running.shutdown()


def labellers_of(node):
    """Processes of a node that hold the model."""
    (raylet,) = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return [child for child in children if "Labeller" in " ".join(child.cmdline())]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_node_and_a_killed_driver_lose_and_double_nothing(tmp_path, cluster):
    """A machine that dies while its actor works is made up for by another; then the driver dies, and goes on."""
    write_pictures(tmp_path / "pictures", 96)
    out, log = tmp_path / "labels", tmp_path / "log"
    told = list(read_folder("folder", tmp_path / "pictures", None))
    running = start(tmp_path, log, "--address", cluster.address)
    try:
        wait_for_shards(running, out, 1, log)
        working = [node for node in cluster.worker_nodes if labellers_of(node)]
        cluster.remove_node(working[0], allow_graceful=False)  # SIGKILL of all its processes
        before = len(list(out.glob("*.parquet")))
        wait_for_shards(running, out, before + 2, log)
    finally:
        running.kill()
        running.wait()
    kept = {path.name for path in out.glob("*.parquet")}
    assert 0 < len(read_labels(out)) < len(told)
    check_rest(start(tmp_path, log, "--address", cluster.address), log, out, told, kept)
