"""benchmarks/gpu.py on a CPU, in small: every part is measured, and a missing GPU is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
# `torch` and `transformers` alone: the script must not reach for the project's own packages
RUN = f"import runpy, sys; sys.path = [p for p in sys.path if p]; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"


def run(folder, *options):
    command = [sys.executable, "-c", RUN, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_every_part_is_measured_at_every_scale(tmp_path):
    """The script runs on a CPU with a toy model: every part, scale and batch size, each beside its floor."""
    options = ["--size", "toy", "--device", "cpu", "--dtype", "float32", "--batches", "1", "2", "--repeats", "1"]
    done = run(tmp_path, *options, "--text", "8", "--out", str(tmp_path / "gpu.md"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    found = {(row["part"], row["tokens"], row["batch"]) for row in report["rows"]}
    parts = ("prefill", "decode", "decode, static")
    scales = {(part, tokens, batch) for part in parts for tokens in (1, 9, 36, 144, 576) for batch in (1, 2)}
    assert found == scales | {("tower", 0, 1), ("tower", 0, 2)}
    assert all(row["ms"] > 0 and row["floor_ms"] > 0 and row["peak_gib"] is None for row in report["rows"])
    prefill = {row["tokens"]: row["floor_ms"] for row in report["rows"] if row["part"] == "prefill"}
    assert prefill[576] > prefill[144] >= prefill[1]
    assert len((tmp_path / "gpu.md").read_text().splitlines()) == len(report["rows"]) + 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    """One plain line."""
    done = run(tmp_path)
    assert done.returncode == 2 and "no GPU" in done.stderr
