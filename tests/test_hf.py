"""Checkpoints in transformers' formats: read, exported and read back, with the same logits."""

import json
import shutil

import pytest
import torch
from m3_toys import toy_m3, toy_prompt
from PIL import Image
from safetensors.torch import load_file, save_file
from test_llava import GOLDEN, IDS, change
from transformers import LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

from complexity.errors import CheckpointError
from serving.m3 import load
from serving.m3.export import export, main
from serving.m3.images import cut, pixels_of
from serving.m3.prompt import IMAGE, prompt_ids

KINDS = {
    "llava15-tiny-m3": LlavaForConditionalGeneration,
    "llavanext-tiny-m3": LlavaNextForConditionalGeneration,
}
PICTURE = Image.effect_mandelbrot((640, 426), (-2, -1, 1, 1), 60).convert("RGB")


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    """A checkpoint of the original format with a tokenizer, loaded, and the folder of its export."""
    place = tmp_path_factory.mktemp("exported")
    shutil.copytree(GOLDEN / "ckpt", place / "ckpt")
    toy_prompt().tokenizer.save_pretrained(place / "ckpt" / request.param)
    m3 = load(place / "ckpt" / request.param)
    export(m3, place / "hf")
    return m3, place / "hf", KINDS[request.param]


def logits(m3, tokens):
    (picture,) = m3.encode([PICTURE])
    return m3.model.language_model(inputs_embeds=m3.embed([picture], IDS, tokens)[None]).logits[0, :, :320]


def test_an_export_gives_the_same_logits_at_every_scale(exported):
    """Out to transformers' format and back in."""
    m3, folder, _ = exported
    again = load(folder)
    for tokens in m3.ladder:
        torch.testing.assert_close(logits(again, tokens), logits(m3, tokens), atol=1e-4, rtol=1e-4)


def test_transformers_own_forward_agrees_at_the_finest_scale(exported):
    """transformers' model class reads the export, and its logits are ours."""
    m3, folder, kind = exported
    theirs = kind.from_pretrained(folder).eval()
    whole = cut(PICTURE, m3.model.vision)
    pixels = pixels_of(whole.tiles, m3.model.vision)
    (picture,) = m3.encode([PICTURE])
    count = len(m3.model.visual(picture, 576))
    place = theirs.config.image_token_id
    ids = [token for each in IDS for token in ([place] * count if each == IMAGE else [each])]
    tiled = {"image_sizes": torch.tensor([[PICTURE.height, PICTURE.width]])} if whole.grid else {}
    with torch.inference_mode():
        said = theirs(
            input_ids=torch.tensor([ids]), pixel_values=pixels[None] if whole.grid else pixels, **tiled
        ).logits[0, :, :320]
    torch.testing.assert_close(said, logits(m3, 576), atol=1e-4, rtol=1e-4)


def test_an_export_is_asked_in_the_same_words(exported):
    """The chat format goes along: prompts come out as the same token ids."""
    m3, folder, _ = exported
    again = load(folder)
    for pictures in range(3):
        asked = prompt_ids(m3.prompt, "What color is it?", pictures)
        assert prompt_ids(again.prompt, "What color is it?", pictures) == asked
        assert asked.count(IMAGE) == pictures


def test_the_rows_added_to_the_vocabulary_never_win(tmp_path):
    """The vocabulary is filled up for the picture's token; a logit of an added row is the mean of the others."""
    export(load(GOLDEN / "ckpt" / "llava15-tiny-m3"), tmp_path / "hf")
    again = load(tmp_path / "hf")
    (picture,) = again.encode([PICTURE])
    whole = again.model.language_model(inputs_embeds=again.embed([picture], IDS, 9)[None]).logits[0]
    assert whole.shape[-1] == 384
    mean = whole[:, :320].mean(-1, keepdim=True).expand(-1, 64)
    torch.testing.assert_close(whole[:, 320:], mean, atol=1e-4, rtol=1e-4)


def test_older_names_of_weights_are_read(exported, tmp_path):
    """transformers has named the same weights in three ways."""
    m3, folder, _ = exported
    shutil.copytree(folder, tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    weights = load_file(file)
    inner = {name.replace("vision_tower.", "vision_tower.vision_model.", 1): each for name, each in weights.items()}
    newest = {
        ("lm_head.weight" if name == "language_model.lm_head.weight" else "model." + name).replace(
            "model.language_model.model.", "model.language_model."
        ): each
        for name, each in weights.items()
    }
    for names in (inner, newest):
        assert set(names) != set(weights)
        save_file(names, file)
        torch.testing.assert_close(logits(load(tmp_path / "hf"), 9), logits(m3, 9), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "siglip.*CLIP"),
        ({"vision_feature_layer": [-2, -1]}, "several layers"),
    ],
)
def test_unsupported_kinds_are_named(exported, tmp_path, setting, said):
    """What this reader doesn't know is refused in one line."""
    _, folder, _ = exported
    shutil.copytree(folder, tmp_path / "hf")
    change(tmp_path / "hf", **setting)
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path / "hf")


def test_pictures_are_cropped_where_the_processor_does(exported, tmp_path):
    """Vanilla LLaVA-1.5 in transformers' format crops to a square unless its processor pads."""
    _, folder, _ = exported
    shutil.copytree(folder, tmp_path / "hf")
    file = tmp_path / "hf" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_pad": False}))
    aspect = load(tmp_path / "hf").model.vision.aspect
    assert aspect == (
        "anyres" if "next" in json.loads((folder / "config.json").read_text())["model_type"] else "square"
    )


def test_export_m3_reports_what_it_wrote_and_overwrites_nothing(tmp_path, capsys):
    """The command prints one JSON line; a second run into the same folder is refused."""
    source = GOLDEN / "ckpt" / "llava15-tiny-m3"
    assert main([str(source), str(tmp_path / "hf"), "--dtype", "float16"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["bytes"] > 100_000
    assert load(tmp_path / "hf", dtype=None).ladder == (1, 9, 36, 144, 576)
    assert main([str(source), str(tmp_path / "hf")]) == 2
    assert "isn't empty" in capsys.readouterr().err


def test_what_transformers_cannot_hold_is_not_exported(tmp_path):
    """m3-tiny's tower has no counterpart there."""
    with pytest.raises(CheckpointError, match="CLIP tower"):
        export(toy_m3(), tmp_path)
