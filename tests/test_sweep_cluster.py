"""The sweep of records with Ray Data: what is killed is done again, and every sample stands once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_sweep_records import read_folder, write_pictures

from complexity.labels import read_labels
from training_data.sweeping.table import FAILURES, read_failures

HERE = Path(__file__).parent
SCRIPT = (
    "import sys; from test_sweep_records import read_folder; from training_data.sweep import main; "
    "sys.exit(main(read=read_folder))"
)


def start(tmp_path, log):
    command = [sys.executable, "-c", SCRIPT, "--read", "folder", "--data", str(tmp_path / "pictures")]
    command += ["--out", str(tmp_path / "labels"), "--actors", "2"]
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
    again = start(tmp_path, log)
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
