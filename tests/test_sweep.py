"""The command sweep-m3 on the drawn corpus: what it writes, and that a killed sweep goes on."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from m3_toys import toy_config, toy_m3

from complexity.errors import LabelTableError
from complexity.features import TOWER_FEATURE_VERSION
from complexity.image_features import IMAGE_FEATURE_VERSION, image_features
from complexity.labels import PICTURES, LabelMeta, read_labels, write_shard
from complexity.picture import decode_picture
from serving.m3 import GenerateRequest, load
from serving.m3.checkpoint import save_tiny
from serving.m3.tower_features import tower_features
from training_data.sweep import SWEEP_VERSION, draw_items, main, sample_id, sweep


@pytest.fixture
def model(tmp_path):
    m3 = toy_m3()
    save_tiny(tmp_path / "toy", m3.model, toy_config(len(m3.prompt.tokenizer)), m3.prompt.tokenizer, torch.float32)
    return tmp_path / "toy"


def test_a_generated_table_holds_what_the_model_says(model, tmp_path):
    """Each row is the model's own answer at that scale, with the picture's own features."""
    m3 = load(model)
    sweep(m3, "test", seed=5, pairs=12, questions=3, out=tmp_path / "labels", generate=True, pictures=True)
    table = read_labels(tmp_path / "labels")
    items = list(draw_items("test", 5, 12, 3))
    assert {sample_id(item, k) for item in items for k in range(len(item.questions))} == set(table.sample_id)
    assert table.meta == LabelMeta(m3.ladder, IMAGE_FEATURE_VERSION, m3.model_id, SWEEP_VERSION, TOWER_FEATURE_VERSION)
    row = list(table.sample_id).index(sample_id(items[1], 0))
    assert table.question[row] == items[1].questions[0].text and table.task[row] == items[1].questions[0].family
    np.testing.assert_array_equal(table.image_features[row], image_features(decode_picture(items[1].png).picture))
    np.testing.assert_allclose(table.latents[row], items[1].questions[0].latents)
    assert (tmp_path / "labels" / PICTURES / f"{table.image_sha256[row]}.png").read_bytes() == items[1].png
    (picture,) = m3.encode([items[1].picture.image])
    seen = tower_features(picture.tiles, m3.ladder)
    np.testing.assert_allclose(table.tower_features[row], seen, rtol=1e-3, atol=1e-4)
    for rung, tokens in enumerate(m3.ladder):
        (answer,) = m3.generate([GenerateRequest(items[1].questions[0].text, (picture,), tokens, 12)])
        assert table.mean_logprob[row, rung] == pytest.approx(answer.mean_logprob, abs=1e-4)
        assert table.visual_tokens[row, rung] == tokens


def test_judging_gives_the_scores_of_generating(tmp_path):
    """Whether greedy decoding gives the reference is known without decoding."""
    m3 = load()
    for generate in (False, True):
        sweep(m3, "test", seed=5, pairs=40, questions=5, out=tmp_path / str(generate), generate=generate)
    judged, generated = read_labels(tmp_path / "False"), read_labels(tmp_path / "True")
    assert list(judged.sample_id) == list(generated.sample_id)
    np.testing.assert_array_equal(judged.score, generated.score)
    right = judged.score == 1
    assert right.any() and not right.all()
    np.testing.assert_allclose(judged.mean_logprob[right], generated.mean_logprob[right], atol=1e-3)
    np.testing.assert_array_equal(judged.mean_logprob[right], judged.reference_logprob[right])
    assert np.isnan(judged.mean_logprob[~right]).all() and np.isfinite(generated.mean_logprob).all()
    assert np.isfinite(judged.reference_logprob).all() and np.isnan(generated.reference_logprob).all()


def test_killed_and_started_again_nothing_is_lost_or_doubled(model, tmp_path):
    """A sweep killed in mid-run keeps its finished batches; started again it ends with every sample once."""
    out = tmp_path / "labels"
    command = [sys.executable, "-c", "import sys; from training_data.sweep import main; sys.exit(main())"]
    command += ["--model", str(model), "--out", str(out), "--split", "test", "--pairs", "150", "--questions", "3"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.parquet")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(ended.stdout.splitlines()[-1])
    table = read_labels(out)  # refuses duplicates and missing scales
    assert len(table) >= 150 and report["new"] < len(table)
    assert all((out / name).stat().st_mtime_ns == written for name, written in kept.items())
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout.splitlines()[-1])["new"] == 0


def test_a_table_of_another_model_is_not_added_to(model, tmp_path):
    """Labels of different weights never mix in one table."""
    write_shard(tmp_path / "labels" / "old.parquet", [], LabelMeta((1, 9), "v0", "other@1", SWEEP_VERSION))
    with pytest.raises(LabelTableError, match="other@1"):
        sweep(load(model), "test", 0, 5, 2, tmp_path / "labels")


def test_a_users_mistake_is_one_line_and_exit_2(tmp_path, capsys):
    """A wrong folder ends in one plain line, not in a traceback."""
    assert main(["--model", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "config.json is missing" in capsys.readouterr().err
