"""Checkpoints as released: their files, shards, towers and names of weights, whole and broken."""

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece as spm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from complexity.errors import CheckpointError
from serving.m3 import GenerateRequest, load
from serving.m3.formats import VICUNA

GOLDEN = Path(__file__).parent / "golden"
IDS = [1, 45, 17, -200, 201, 33, 9, 118, 77]


@pytest.fixture
def checkpoints(tmp_path):
    """A copy of the recorded checkpoints that a test may spoil."""
    shutil.copytree(GOLDEN / "ckpt", tmp_path / "ckpt")
    return tmp_path / "ckpt"


def logits(m3, tokens=9):
    (picture,) = m3.encode([Image.linear_gradient("L").convert("RGB")])
    return m3.model.language_model(inputs_embeds=m3.embed([picture], IDS, tokens)[None]).logits[0]


def change(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def test_bin_weights_are_read_like_safetensors(checkpoints):
    """A checkpoint saved by torch, without the tower's keys, gives the same numbers."""
    folder = checkpoints / "llava15-tiny-m3"
    before = logits(load(folder))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(
        {name: each for name, each in weights.items() if "vision_tower" not in name}, folder / "pytorch_model.bin"
    )
    torch.testing.assert_close(logits(load(folder)), before)


def test_broken_bin_weights_are_one_clear_error(checkpoints):
    """A file that torch can't read is named."""
    folder = checkpoints / "llava15-tiny-m3"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin can't be read"):
        load(folder)


def test_shards_are_read_by_their_index(checkpoints):
    """Weights spread over files are one model; a missing file is named."""
    folder = checkpoints / "llava15-tiny-m3"
    before = logits(load(folder))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.testing.assert_close(logits(load(folder)), before)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-2.safetensors"):
        load(folder)


def test_the_towers_own_keys_count_only_when_it_was_tuned(checkpoints):
    """`unfreeze_mm_vision_tower` decides between the checkpoint's tower and the named one, as in the original."""
    folder = checkpoints / "llavanext-tiny-m3"  # its own tower differs from the named one
    tuned = logits(load(folder))
    change(folder, unfreeze_mm_vision_tower=False)
    assert (logits(load(folder)) - tuned).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu"])
def test_other_projectors(checkpoints, kind):
    """Projectors of one layer and of three are built and filled."""
    folder = checkpoints / "llava15-tiny-m3"
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "mm_projector" not in k}
    sizes = [(64, 32)] if kind == "linear" else [(64, 32), (64, 64), (64, 64)]
    for i, (out, into) in enumerate(sizes):
        name = "model.mm_projector." + ("" if kind == "linear" else f"{2 * i}.")
        weights |= {f"{name}weight": torch.randn(out, into) / 8, f"{name}bias": torch.randn(out)}
    save_file(weights, folder / "model.safetensors")
    change(folder, mm_projector_type=kind)
    m3 = load(folder)
    features = torch.randn(3, 32)
    expected = features
    for i in range(len(sizes)):
        name = "model.mm_projector." + ("" if kind == "linear" else f"{2 * i}.")
        expected = torch.nn.functional.gelu(expected) if i else expected
        expected = expected @ weights[f"{name}weight"].T + weights[f"{name}bias"]
    torch.testing.assert_close(m3.model.projector(features), expected)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"mm_projector_type": "qformer"}, "qformer.*linear"),
        ({"mm_patch_merge_type": "spiral"}, "merge type 'spiral'.*spatial_unpad"),
        ({"image_aspect_ratio": "anyres_max_9"}, "anyres_max_9.*pad"),
        ({"mm_vision_tower": "../nowhere"}, "nowhere"),
        ({"vocab_size": 321}, r"lm_head.*\(320, 64\).*\(321, 64\)"),
        ({"num_hidden_layers": 3}, "missing weights.*layers.2"),
        ({"num_hidden_layers": 1}, "unexpected.*layers.1"),
    ],
)
def test_what_does_not_fit_is_named(checkpoints, setting, said):
    """Unsupported kinds and weights that don't fit the configuration end in one error that names them."""
    folder = checkpoints / "llava15-tiny-m3"
    change(folder, **setting)
    with pytest.raises(CheckpointError, match=said):
        load(folder)


def test_a_configuration_with_holes_is_refused(checkpoints):
    """Sizes that aren't there are named, not guessed: the defaults would be a model of 7 billion."""
    (checkpoints / "llava15-tiny-m3" / "config.json").write_text('{"model_type": "llava_llama"}')
    with pytest.raises(CheckpointError, match="lacks hidden_size.*mm_vision_tower"):
        load(checkpoints / "llava15-tiny-m3")


def test_a_model_without_a_tokenizer_takes_ids_only(checkpoints):
    """It loads, and says so when asked in words."""
    m3 = load(checkpoints / "llava15-tiny-m3")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        m3.generate([GenerateRequest("What?", (), 9)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_positions_exact(checkpoints, dtype):
    """All weights are in the asked type, the rotary frequencies stay in single precision, and the answer is close."""
    folder = checkpoints / "llavanext-tiny-m3"
    m3 = load(folder, dtype=dtype)
    assert {weight.dtype for weight in m3.model.parameters()} == {dtype}
    assert m3.model.language_model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert (logits(m3).float() - logits(load(folder))).abs().max() < 0.5


def test_a_tokenizer_model_is_read_as_llama_reads_it(checkpoints):
    """The released checkpoints bring a SentencePiece file alone; each piece of text gets the ids that it gives."""
    folder = checkpoints / "llava15-tiny-m3"
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join([VICUNA, "USER: What color is the background? ASSISTANT: green"] * 50))
    spm.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "tokenizer"), vocab_size=300, model_type="bpe",
        byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, split_digits=True, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False,
    )  # fmt: skip
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    said = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, **special}))
    m3 = load(folder)
    pieces = spm.SentencePieceProcessor(str(folder / "tokenizer.model"))
    asked = "\nWhat color is it, 12? ASSISTANT:"
    assert m3.prompt.head() == [1, *pieces.encode(f"{VICUNA} USER: "), -200]
    assert m3.prompt.question_ids("What color is it, 12?") == pieces.encode(asked)
    assert m3.prompt.answer_ids("green") == [*pieces.encode("green"), 2]
    assert m3.prompt.text(pieces.encode("green é")) == "green é"
