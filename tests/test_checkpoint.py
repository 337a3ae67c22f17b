"""A model's folder: written and read back the same, and refused by name where something is missing."""

import json

import pytest
import torch
from m3_toys import toy_config, toy_m3, toy_pictures
from safetensors.torch import load_file, save_file

from complexity.errors import CheckpointError
from serving.m3 import GenerateRequest, load
from serving.m3.checkpoint import save_tiny


@pytest.fixture
def folder(tmp_path):
    m3 = toy_m3()
    save_tiny(tmp_path / "toy", m3.model, toy_config(len(m3.prompt.tokenizer)), m3.prompt.tokenizer, torch.float32)
    return tmp_path / "toy"


def test_a_saved_model_answers_as_before(folder):
    """Weights, configuration and tokenizer come back from the folder whole."""
    request = GenerateRequest("Read the red sign.", tuple(toy_pictures(1)), 36, max_new_tokens=6)
    assert toy_m3().generate([request])[0].text == load(folder).generate([request])[0].text


def test_other_weights_make_another_model_id(folder):
    """Labels and artifacts are tied to the weights' bytes."""
    before = load(folder).model_id
    weights = load_file(folder / "model.safetensors")
    weights["projector.0.bias"] += 1
    save_file(weights, folder / "model.safetensors")
    assert before.startswith("toy@") and load(folder).model_id != before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    """An incomplete folder says what is missing."""
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load(folder)


def test_missing_and_unexpected_weights_are_named(folder):
    """Weights that don't fit the configuration are listed by name."""
    weights = load_file(folder / "model.safetensors")
    weights["projector.9.bias"] = weights.pop("projector.0.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"projector\.0\.bias.*projector\.9\.bias"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", '{"model_type": "llava_llama"}'), ("model.safetensors", "garbage")],
)
def test_broken_files_are_one_clear_error(folder, name, content):
    """Broken JSON, another kind of model and truncated weights end in the project's own error."""
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match="toy"):
        load(folder)


def test_unknown_settings_are_refused(folder):
    """A configuration with a field that this version doesn't know isn't half understood."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rotary": "new"}))
    with pytest.raises(CheckpointError, match="rotary"):
        load(folder)


def test_heuristic_reductions_are_other_models(folder):
    """Labels of sampled visual tokens never mix with those of pooled ones; an unknown reduction is refused."""
    plain, sampled = load(folder), load(folder, reduction="spatial")
    assert sampled.model_id == plain.model_id + "+spatial"
    (picture,) = toy_pictures(1)
    assert not torch.equal(plain.model.visual(picture, 9), sampled.model.visual(picture, 9))
    with pytest.raises(CheckpointError, match="average, spatial, sequential"):
        load(folder, reduction="random")
