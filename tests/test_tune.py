"""Tuning checkpoints: the original's loss and gradients, LoRA, restarts, and several processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from m3_toys import toy_config, toy_m3, toy_prompt
from PIL import Image
from safetensors.torch import load_file

from complexity.errors import InvalidInput
from serving.m3 import GenerateRequest, load
from serving.m3.checkpoint import save_tiny
from serving.m3.loss import scale_losses
from serving.m3.prompt import IGNORE, Turn
from serving.m3.tune import prepare
from serving.m3.tuning import Collate, Recipe, TuningRow
from training_data.readers.llava_json import read_conversations
from training_data.train_m3 import main

GOLDEN = Path(__file__).parent / "golden"
TALK = [{"from": "human", "value": "What color is it?\n<image>"}, {"from": "gpt", "value": "red"}]
MORE = [{"from": "human", "value": "Read the sign."}, {"from": "gpt", "value": "EXIT"}]
BOTH = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "MILK"}]


def picture(color="red", size=(40, 30)):
    return Image.new("RGB", size, color)


@pytest.fixture
def corpus(tmp_path):
    """Rows of one turn, of several, of two pictures and of none."""
    for color in ("red", "blue"):
        picture(color).save(tmp_path / f"{color}.png")
    rows = [
        {"id": "one", "image": "red.png", "conversations": TALK + MORE},
        {"id": "two", "image": ["red.png", "blue.png"], "conversations": BOTH},
        {"id": "none", "conversations": MORE},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture
def model(tmp_path):
    m3 = toy_m3()
    save_tiny(tmp_path / "toy", m3.model, toy_config(len(m3.prompt.tokenizer)), m3.prompt.tokenizer, torch.float32)
    return tmp_path / "toy"


@pytest.fixture
def llava(tmp_path):
    """A checkpoint of the original format with a tokenizer in it."""
    shutil.copytree(GOLDEN / "ckpt", tmp_path / "ckpt")
    toy_prompt().tokenizer.save_pretrained(tmp_path / "ckpt" / "llava15-tiny-m3")
    return tmp_path / "ckpt" / "llava15-tiny-m3"


def train(corpus, model, *options):
    command = ["--model", model, "--data", corpus / "rows.json", "--images", corpus, "--out", corpus / "out"]
    command += ["--per_device_train_batch_size", "2", "--use_cpu", "true", "--dataloader_num_workers", "0"]
    return main([*map(str, command), *options])


def mixed_rows(m3):
    pictures = [picture(), picture("blue", (30, 60)), picture("green")]
    talks = [
        ([Turn("<image>\nred?", "red"), Turn("Read the sign.", "EXIT 3")], pictures[:1]),
        ([Turn("<image><image>\nor?", "MILK")], pictures[1:]),
        ([Turn("How much?", "3.40")], []),
    ]
    return [TuningRow(*m3.prompt.conversation(turns), tuple(shown)) for turns, shown in talks]


@pytest.mark.parametrize("name", ["llava15-tiny-m3", "llavanext-tiny-m3"])
def test_the_loss_and_its_gradients_are_the_originals(name):
    """A row of the recording gives the recorded loss at every scale, their mean, and the projector's gradients."""
    notes = json.loads((GOLDEN / "notes.json").read_text())
    golden = load_file(GOLDEN / f"{name}.golden.safetensors")
    m3 = load(GOLDEN / "ckpt" / name, dtype=torch.float32)
    tuning = prepare(m3, Recipe(m3.ladder))
    image = next(each for each in (GOLDEN / "images").glob("*.png") if f"{each.stem}.train_loss" in golden)
    row = TuningRow(notes["input_ids"], notes["labels"], (Image.open(image).convert("RGB"),))
    loss = tuning(**Collate(m3.model.vision)([row]))["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"{image.stem}.train_loss"]), abs=1e-4)
    for tokens in m3.ladder:
        assert tuning.latest[tokens] == pytest.approx(float(golden[f"{image.stem}.loss_s{tokens}"]), abs=1e-4)
    norms = torch.stack([weight.grad.norm() for weight in m3.model.projector.parameters()])
    torch.testing.assert_close(norms, golden[f"{image.stem}.grad_norm_proj"], atol=1e-4, rtol=0)


def test_a_batch_of_mixed_rows_equals_its_rows_one_by_one():
    """Several turns, several pictures and none pad each other without a trace."""
    m3 = toy_m3()
    tuning = prepare(m3, Recipe((1, 36)))
    rows, collate = mixed_rows(m3), Collate(m3.model.vision)
    together = tuning(**collate(rows))["loss"]
    counts = [sum(label != IGNORE for label in row.labels) for row in rows]
    alone = [tuning(**collate([row]))["loss"].item() for row in rows]
    assert together.item() == pytest.approx(sum(c * a for c, a in zip(counts, alone, strict=True)) / sum(counts))


def test_a_rows_loss_is_a_plain_causal_one():
    """The cross-entropy of the answers' tokens in one plain pass, nothing else."""
    m3 = toy_m3()
    (row, *_) = mixed_rows(m3)
    tuning = prepare(m3, Recipe((9,)))
    loss = tuning(**Collate(m3.model.vision)([row]))["loss"]
    embeds = m3.model.embed(row.ids, m3.encode(row.pictures), 9)
    states = m3.model.language_model.model(inputs_embeds=embeds[None]).last_hidden_state[0]
    labels = torch.tensor([IGNORE] * (len(embeds) - len(row.labels)) + row.labels)
    foretell = states[:-1][labels[1:] != IGNORE]
    (plain,) = scale_losses(m3.model, lambda _: foretell, labels[labels != IGNORE], [9])
    torch.testing.assert_close(loss, plain)


def test_rows_without_pictures_reach_every_trained_weight():
    """Distributed training waits for every gradient, so a batch of texts gives the projector one too: zero."""
    m3 = toy_m3()
    tuning = prepare(m3, Recipe((9,)))
    tuning(**Collate(m3.model.vision)(mixed_rows(m3)[2:]))["loss"].backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in m3.model.projector.parameters())
    assert all(weight.grad is None for weight in m3.model.tower.parameters())


def test_a_long_conversation_loses_its_end_and_never_its_picture():
    """What goes beyond the context is left out; a picture that does is an error with the numbers."""
    m3 = toy_m3()
    collate, tuning = Collate(m3.model.vision), prepare(m3, Recipe((576,)))
    ids, labels = m3.prompt.conversation([Turn("<image>\nred?", "red"), Turn("red " * 600, "EXIT")])
    short = m3.prompt.conversation([Turn("<image>\nred?", "red")])
    losses = [tuning(**collate([TuningRow(*row, (picture(),))]))["loss"] for row in ((ids, labels), short)]
    torch.testing.assert_close(*losses)
    beyond = m3.prompt.conversation([Turn("<image>\n" + "red " * 600, "EXIT")])
    tuning(**collate([TuningRow(*beyond, (picture(),))]))["loss"].backward()
    assert not any(weight.grad.any() for weight in tuning.parameters() if weight.requires_grad)
    two = m3.prompt.conversation([Turn("<image><image>\nred?", "red")])
    with pytest.raises(InvalidInput, match="1152 visual tokens doesn't fit the model's context of 1024"):
        tuning(**collate([TuningRow(*two, (picture(), picture()))]))


def test_tuning_learns_the_rows_and_writes_a_model(corpus, model, capsys):
    """After some epochs the model, loaded again, gives the answers that it was told."""
    assert train(corpus, model, "--scales", "1", "9", "--num_train_epochs", "60", "--learning_rate", "5e-3") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["rows"] == 3 and report["loss"] > 0
    m3 = load(corpus / "out")
    shown = tuple(m3.encode([picture()]))
    (said,) = m3.generate([GenerateRequest("What color is it?", shown, 9)])
    assert said.text == "red"


def test_a_stopped_run_goes_on_from_its_checkpoint(corpus, model, capsys):
    """Stopped after one step and started again, it ends with the weights of a run that was not stopped."""
    options = ["--scales", "9", "--save_steps", "1", "--num_train_epochs", "2"]
    options += ["--lr_scheduler_type", "constant", "--learning_rate", "1e-3"]
    assert train(corpus, model, *options) == 0
    whole = load_file(corpus / "out" / "model.safetensors")
    shutil.rmtree(corpus / "out")
    assert train(corpus, model, *options, "--max_steps", "2") == 0
    (corpus / "out" / "config.json").unlink()
    capsys.readouterr()
    assert train(corpus, model, *options) == 0
    assert capsys.readouterr().out.count("'loss_9'") == 2  # of four steps
    for name, weight in load_file(corpus / "out" / "model.safetensors").items():
        torch.testing.assert_close(weight, whole[name])


@pytest.mark.parametrize(
    "options", ["--lora 2", "--lora 2 --bf16 true", "--train-tower --activation_checkpointing true"]
)
def test_llavas_are_tuned_into_transformers_format(corpus, llava, options, capsys):
    """What is trained changes, the rest stays, and the result loads and answers."""
    assert train(corpus, llava, *"--scales 1 --max_steps 2 --learning_rate 1e-2".split(), *options.split()) == 0
    before, after = load(llava, dtype=torch.float32), load(corpus / "out", dtype=torch.float32)
    old, new = before.model.state_dict(), after.model.state_dict()
    assert set(old) == set(new)
    near = 1e-2 if "bf16" in options else 0.0  # what bfloat16 rounds
    same = {name: torch.allclose(old[name], new[name][: len(old[name])], rtol=near, atol=0.0) for name in old}
    changed = {name.split(".")[0] for name in old if not same[name]}
    assert changed == {"language_model", "projector"} | ({"tower"} if "--train-tower" in options else set())
    assert after.generate([GenerateRequest("red?", tuple(after.encode([picture()])), 9, 3)])


def test_users_mistakes_are_one_line_each(corpus, model, capsys):
    """Before anything is loaded or written."""
    rows = json.loads((corpus / "rows.json").read_text())

    def said(change) -> str:
        spoilt = json.loads(json.dumps(rows))
        change(spoilt)
        (corpus / "rows.json").write_text(json.dumps(spoilt))
        assert train(corpus, model) == 2
        assert not (corpus / "out").exists()
        return capsys.readouterr().err

    assert "row 0 (id one): there is no picture" in said(lambda each: each[0].update(image="gone.png"))
    assert "1 times <image> for 0 pictures" in said(lambda each: each[0].pop("image"))
    assert 'ending with "gpt"' in said(lambda each: each[2]["conversations"].pop())
    assert 'expected an object with "conversations"' in said(lambda each: each.append("?"))
    (corpus / "rows.json").write_text("{}")
    assert train(corpus, model) == 2 and "no list of conversations" in capsys.readouterr().err
    (corpus / "rows.json").write_text(json.dumps(rows))
    assert train(corpus, model, "--scales", "10") == 2 and "10 visual tokens" in capsys.readouterr().err
    assert train(corpus, model, "--depth", "3") == 2 and "knows --depth 3" in capsys.readouterr().err
    assert train(corpus, corpus / "nothing") == 2 and "there is no folder" in capsys.readouterr().err


def test_what_comes_before_the_first_question_is_left_out(corpus):
    """As the original does; the only picture of a question comes first."""
    rows = [{"image": "red.png", "conversations": [{"from": "gpt", "value": "Hello."}, *TALK]}]
    (corpus / "rows.json").write_text(json.dumps(rows))
    (conversation,) = read_conversations(corpus / "rows.json", corpus)
    assert conversation.turns == (Turn("<image>\nWhat color is it?", "red"),)


@pytest.mark.slow
def test_two_processes_share_the_rows(corpus, model):
    """Under torch's launcher each process takes a part of every batch, texts alone too; one model is written."""
    rows = json.loads((corpus / "rows.json").read_text())
    (corpus / "rows.json").write_text(json.dumps([rows[0], rows[2], rows[2], rows[1]]))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "training_data.train_m3"]
    command += ["--model", model, "--data", corpus / "rows.json", "--images", corpus, "--out", corpus / "out"]
    command += ["--per_device_train_batch_size", "1", "--scales", "9", "--use_cpu", "true", "--ddp_backend", "gloo"]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = [line for line in done.stdout.splitlines() if line.startswith('{"out"')]
    assert json.loads(report)["rows"] == 4
    assert done.stdout.count("'loss_9'") == 2  # four rows, two processes
    assert load(corpus / "out").ladder
