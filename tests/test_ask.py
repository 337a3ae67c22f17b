"""The command ask-m3: the router's scale, a given one or all, and what it refuses."""

import json

import pytest
import torch
from m3_toys import toy_config, toy_m3

from serving.ask import main
from serving.m3.checkpoint import save_tiny
from training_data.drawn.corpus import draw_item


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("ask") / "picture.png"
    file.write_bytes(draw_item("test", 2026, 37, 12).png)
    return str(file)


def asked(capsys, *args):
    code = main(list(args))
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_the_router_chooses_by_default(capsys, picture):
    """One answer, at a scale of the ladder, and a line that says why."""
    code, out, err = asked(capsys, "--image", picture, "What color is the background?")
    (answer,) = json.loads(out[-1])["answers"]
    assert (code, answer["answer"]) == (0, "green")
    assert f"the router chose {answer['tokens']} of 576" in err and answer["tokens"] <= 36


def test_all_scales_side_by_side(capsys, picture):
    """A line for each rung of the ladder, and the same in JSON."""
    code, out, _ = asked(capsys, "--image", picture, "--all", "What color is the background?")
    answers = json.loads(out[-1])["answers"]
    assert code == 0 and len(out) == 7
    assert [answer["visual_tokens"] for answer in answers] == [1, 9, 36, 144, 576]
    assert all(answer["mean_logprob"] <= 0 and answer["ms"] > 0 for answer in answers)


def test_a_given_scale(capsys, picture):
    """`--tokens` takes a rung, and refuses anything else with the ladder."""
    assert asked(capsys, "--image", picture, "--tokens", "9", "What is it?")[0] == 0
    code, _, err = asked(capsys, "--image", picture, "--tokens", "100", "What is it?")
    assert code == 2 and "1, 9, 36, 144, 576" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--image", "nowhere.png", "What?"], "nowhere.png can't be read"),
        (["--image", "{text}", "What?"], "picture"),
        (["--image", "{picture}", " "], "question is empty"),
        (["--image", "{picture}", "--model", "/nowhere", "What?"], "no folder /nowhere"),
        (["--image", "{picture}", "--max-new-tokens", "0", "What?"], "at least 1"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, picture, args, said):
    """A missing file, a file that is no picture, no question, no model."""
    (tmp_path / "text.png").write_text("no picture")
    code, _, err = asked(capsys, *[arg.format(text=tmp_path / "text.png", picture=picture) for arg in args])
    assert code == 2 and err.startswith("ask-m3: ") and said in err and err.count("\n") == 1


def test_another_models_router_is_refused(capsys, tmp_path, picture):
    """A router fits the weights that it was made for; the message names both."""

    m3 = toy_m3()
    save_tiny(tmp_path / "toy", m3.model, toy_config(len(m3.prompt.tokenizer)), m3.prompt.tokenizer, torch.float32)
    code, _, err = asked(capsys, "--image", picture, "--model", str(tmp_path / "toy"), "What?")
    assert code == 2 and "toy@" in err and "m3-tiny@" in err
