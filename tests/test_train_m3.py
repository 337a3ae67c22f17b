"""Training m3-tiny: losses fall, a stopped run goes on to the same weights, and schedules are as said."""

from collections import Counter
from random import Random

import pytest
import torch
from m3_toys import packed, toy_m3

from serving.m3 import load
from serving.m3.loss import m3_losses
from serving.m3.packing import flat_prefix
from serving.m3.train import Stage, optimizers, run_stage, schedule
from training_data.drawn.corpus import draw_item
from training_data.drawn.questions import FAMILIES
from training_data.train_m3 import EARLY, LATE, QUESTIONS, TowerBatches, TuningBatches, _chosen, main


def stage(seed: int, steps: int = 6) -> Stage:
    """A few steps of the real loss on a toy model with made-up features."""
    m3 = toy_m3(seed)
    model = m3.model.requires_grad_(True)
    text = packed(m3.prompt, [[("Read the red sign.", "EXIT")], [("How much is MILK?", "3.40")]])

    def loss(features):
        cells = model.projector(features)
        each = m3_losses(model, lambda tokens: flat_prefix(model, cells, tokens), text, (1, 36))
        return each.mean(), {"loss": each.mean().item()}

    return Stage("toy", steps, model, optimizers([(model.language_model, 1e-2), (model.projector, 1e-2)]), loss)


def batches(start: int, steps: int = 6):
    width = toy_m3().model.tower.width
    return (torch.randn(2, 576, width, generator=torch.Generator().manual_seed(i)) for i in range(start, steps))


def test_training_lowers_the_loss(tmp_path):
    """The loop, its optimizers and the loss work together."""
    training = stage(0, steps=30)
    with torch.no_grad():
        before = training.loss(next(batches(0)))[0].item()
    run_stage(training, lambda start: batches(start, 30), tmp_path, "cpu")
    with torch.no_grad():
        assert training.loss(next(batches(0)))[0].item() < 0.5 * before


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    """Stopped after any step and started again, training ends where the uninterrupted run ends."""
    whole = stage(0)
    (tmp_path / "whole").mkdir()
    run_stage(whole, batches, tmp_path / "whole", "cpu")

    class Stopped(Exception):
        pass

    def first_three(start):
        for i, batch in enumerate(batches(start), start):
            if i == 3:
                raise Stopped
            yield batch

    (tmp_path / "parts").mkdir()
    with pytest.raises(Stopped):
        run_stage(stage(0), first_three, tmp_path / "parts", "cpu", checkpoint_every_s=0.0)
    resumed = stage(1)  # other weights: all must come from the checkpoint
    run_stage(resumed, batches, tmp_path / "parts", "cpu")
    for name, weight in whole.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], weight, msg=name)


def test_schedule_warms_up_and_comes_down():
    """The rate rises from near zero, is flat, then falls to a few percent."""
    rates = [schedule(step, 1000) for step in range(1000)]
    assert rates[0] < 0.05 and max(rates) == 1.0 and rates[399] == 1.0 and rates[-1] < 0.05


def test_a_lower_middle_is_reached_and_left_without_a_jump():
    """The rate is at its peak to 10% of the steps, at the middle's share from 30 to 40%, and never jumps."""
    rates = [schedule(step, 1000, middle=0.4) for step in range(1000)]
    assert rates[100] == 1.0 and rates[300:400] == pytest.approx([0.4] * 100) and 0.03 <= rates[-1] < 0.031
    assert all(0 <= before - after < 0.005 for before, after in zip(rates[100:], rates[101:], strict=False))


def test_batches_follow_from_the_seed():
    """The same seed and step give the same pictures and labels; another seed gives others."""
    one, same, other = (TowerBatches(seed, 24, 10)[4] for seed in (0, 0, 1))
    assert torch.equal(one.pixels, same.pixels) and torch.equal(one.targets, same.targets)
    assert not torch.equal(one.pixels, other.pixels)


def test_late_steps_train_every_scale_and_the_tower():
    """In a round of late steps each scale comes once, the middle ones twice, and the tower learns in each."""
    m3 = toy_m3()
    batches = TuningBatches(0, 0, 100, m3.prompt, m3.model.vision, all_scales=False)
    late = [batches[step] for step in range(40, 47)]
    scales = [batch.scales[0] for batch in late]
    assert sorted(scales) == [1, 9, 36, 36, 144, 144, 576] and all(batch.tower_learns for batch in late)
    early = [batches[step] for step in range(3)]
    assert [batch.scales for batch in early] == [(9,), (36,), (144,)] and not any(batch.tower_learns for batch in early)


def test_questions_are_chosen_by_their_families_weights():
    """Of a picture's questions as many as a sequence takes; a family of weight 2 before one of 0.25, none twice."""
    questions = draw_item("train", 0, 1, 40).questions
    chosen = [_chosen(questions, EARLY, Random(i)) for i in range(300)]
    assert all(len(set(each)) == len(each) == QUESTIONS for each in chosen)
    drawn, kept = Counter(question.family for question in questions), Counter(q.family for each in chosen for q in each)
    share = {family: kept[family] / (300 * drawn[family]) for family in drawn}
    assert share["presence"] > share["shape_by_colour"] + 0.1 > share["background"] + 0.2


def test_weighted_families_are_the_corpus():
    """A misspelt family would silently weigh nothing."""
    assert set(LATE) <= set(FAMILIES)


@pytest.mark.slow
def test_train_m3_makes_a_loadable_model(tmp_path, capsys):
    """The command ends in a folder that loads and holds at most 16 MB; its tower serves another run."""
    assert main(["--out", str(tmp_path), "--tower-pictures", "32", "--pictures", "16", "--device", "cpu"]) == 0
    assert load(tmp_path).ladder == (1, 9, 36, 144, 576)
    assert (tmp_path / "model.safetensors").stat().st_size <= 16_000_000
    tower = ["--tower", str(tmp_path / "tower.safetensors")]
    assert main(["--out", str(tmp_path / "again"), *tower, "--pictures", "16", "--device", "cpu"]) == 0
    assert not (tmp_path / "again" / "checkpoints" / "tower.pt").exists()


def test_too_few_pictures_is_a_plain_error(tmp_path, capsys):
    """A run that couldn't make a single step is refused."""
    assert main(["--out", str(tmp_path), "--pictures", "3"]) == 2
    assert "at least 16 pictures" in capsys.readouterr().err


def test_a_wrong_tower_is_one_line_and_exit_2(tmp_path, capsys):
    """A file that holds no tower ends in one plain line, before any training."""
    (tmp_path / "tower.safetensors").write_text("garbage")
    arguments = ["--tower", str(tmp_path / "tower.safetensors"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "holds no tower of this recipe" in said[0]
