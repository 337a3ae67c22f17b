"""benchmarks/golden.py: the recorded outputs of the original code are met, and a difference is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
RECORDING = "llavanext-tiny-m3.golden.safetensors"


def compare(folder):
    command = [sys.executable, ROOT / "benchmarks" / "golden.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_outputs_are_those_of_the_original_code():
    """Embeddings, logits, greedy tokens, losses and gradients of both kinds of checkpoint at every scale."""
    code, worst = compare(GOLDEN)
    assert (code, worst["cases"], worst["greedy_mismatches"]) == (0, 20, 0)
    assert worst["logits"] < 1e-3 and worst["embeds"] < 1e-4 and worst["loss"] < 1e-4 and worst["grad_norm"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "kind"),
    [("sq336.s9.logits_tail", "logits"), ("sq336.s1.gen", "greedy_mismatches"), ("sq336.loss_s36", "loss")],
)
def test_a_difference_is_found(tmp_path, key, kind):
    """A recording that differs by little fails, and the report names the kind."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    (tmp_path / "golden" / "images" / "tiny40x30.png").unlink()
    (tmp_path / "golden" / "llava15-tiny-m3.golden.safetensors").unlink()
    recorded = load_file(tmp_path / "golden" / RECORDING)
    recorded[key] = recorded[key] + (1 if kind == "greedy_mismatches" else 2e-3)
    save_file(recorded, tmp_path / "golden" / RECORDING)
    code, worst = compare(tmp_path / "golden")
    assert code == 1 and worst[kind] > 1e-3
