"""The command `analyze-m3` and its numbers: against naive loops, against a world whose luck is known, as a command."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doubles import png
from hypothesis import given, settings
from hypothesis import strategies as st
from label_world import LADDER, META, made_up_rows, write_world
from scipy.stats import spearmanr

from complexity.errors import InvalidInput, LabelTableError
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.labels import PICTURES, LabelTable, read_answers, read_labels, write_shard
from serving.settings import ROOT
from training_data.analysis.analysis import DataSet, analyse, recommend, same_samples
from training_data.analysis.gallery import make_gallery
from training_data.analysis.luck import chances_anew, fit_thresholds
from training_data.analysis.sample_complexity import picture_complexity, spearman
from training_data.analysis.score_table import analyse_scores, means, read_scores
from training_data.analysis.text import recommendation, verdict
from training_data.analyze import main, slugs

PUBLISHED = ROOT / "training_data" / "published"
SLACK = 1e-6  # of numbers that a table holds as float32


def table_of(
    score: np.ndarray, tasks: Sequence[str] = (), pictures: Sequence[str] = (), ladder: tuple[int, ...] = LADDER
) -> LabelTable:
    """A table in memory with these scores (B, S), each sample about a picture of its own unless told."""
    count = len(score)

    def text(values: Sequence[str], otherwise: str) -> np.ndarray:
        return np.array(values or [otherwise.format(i) for i in range(count)], dtype=object)

    rng = np.random.default_rng(1)
    features = rng.normal(size=(count, len(IMAGE_FEATURE_NAMES))).astype(np.float32)
    return LabelTable(
        meta=replace(META, ladder=ladder),
        sample_id=text((), "sample-{:05}"),
        dataset=text(["made-up"] * count, ""),
        task=text(list(tasks) or ["task"] * count, ""),
        split=text([""] * count, ""),
        image_sha256=text(pictures, "picture-{}"),
        question=text((), "question {}"),
        image_features=features,
        tower_features=np.zeros((count, 0), np.float32),
        latents=np.zeros((count, 0), np.float32),
        score=np.asarray(score, np.float32),
        mean_logprob=np.full(score.shape, np.nan, np.float32),
        reference_logprob=np.full(score.shape, np.nan, np.float32),
        visual_tokens=np.tile(np.asarray(ladder, np.int32) + 1, (count, 1)),
    )


def analysed(score: np.ndarray, **more: Sequence[str]) -> DataSet:
    (found,) = analyse(table_of(score, **more))
    return found


def guessing_world(count: int, seed: int, slip: float, guess: float) -> tuple[np.ndarray, np.ndarray]:
    """Two renderings' scores (B, S) of samples that need a rung or none, with slips and guesses."""
    rng = np.random.default_rng(seed)
    needs = rng.choice(6, size=count, p=[0.2, 0.2, 0.2, 0.1, 0.1, 0.2])
    chance = np.where(np.arange(5) >= needs[:, None], 1 - slip, guess)
    first, second = (rng.random((2, count, 5)) < chance).astype(float)
    return first, second


def test_its_numbers_are_those_of_a_naive_loop():
    """Scores, both conventions of the oracle, shares and harm of soft scores, counted sample by sample."""
    rng = np.random.default_rng(3)
    score = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], size=(60, 5))
    own = analysed(score).whole
    coarse_tokens, fine_tokens, earned, earned_fine, needed, hurts = [], [], [], [], [], 0
    for row in score:
        right = [rung for rung in range(5) if row[rung] >= 0.5]
        needed.append(right[0] if right else 5)
        coarse_tokens.append(LADDER[right[0]] if right else 1)
        fine_tokens.append(LADDER[right[0]] if right else 576)
        earned.append(row[right[0]] if right else row[0])
        earned_fine.append(row[right[0]] if right else row[4])
        hurts += bool(right) and row[4] < 0.5
    assert [scale.score.value for scale in own.scales] == pytest.approx(score.mean(0).tolist(), abs=SLACK)
    assert [scale.loss.value for scale in own.scales] == pytest.approx((score[:, 4:] - score).mean(0), abs=SLACK)
    assert [scale.visual_tokens for scale in own.scales] == [tokens + 1 for tokens in LADDER]
    assert own.oracle.tokens.value == pytest.approx(np.mean(coarse_tokens))
    assert own.oracle.tokens_finest.value == pytest.approx(np.mean(fine_tokens))
    assert own.oracle.score.value == pytest.approx(np.mean(earned), abs=SLACK)
    assert own.oracle.score_finest.value == pytest.approx(np.mean(earned_fine), abs=SLACK)
    assert own.needed == pytest.approx([needed.count(rung) / 60 for rung in range(6)])
    assert own.finer_hurts.value == pytest.approx(hurts / 60)
    solved = [tokens for tokens, rung in zip(coarse_tokens, needed, strict=True) if rung < 5]
    assert own.oracle.tokens_solved == pytest.approx(np.mean(solved))


rights = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 5), min_size=1, max_size=25)
softs = st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 5), min_size=1, max_size=25)


@settings(max_examples=25, deadline=None)
@given(rights)
def test_the_oracle_beats_every_fixed_scale_where_answers_are_right_or_wrong(rows: list[tuple[float, ...]]):
    """And its tokens are fewest as the paper charges them, then without the unsolved or as CARES charges them."""
    own = analysed(np.array(rows)).whole
    best = max(scale.score.value for scale in own.scales)
    assert own.oracle.score.value >= best - SLACK
    assert own.oracle.score.value == pytest.approx(own.oracle.best.value) == pytest.approx(own.oracle.right.value)
    assert 1 <= own.oracle.tokens.value <= own.oracle.tokens_finest.value <= 576
    assert own.oracle.tokens_solved is None or own.oracle.tokens.value <= own.oracle.tokens_solved + 1e-9
    assert own.luck.lucky is None or -1e-9 <= own.luck.lucky.value <= 1


@settings(max_examples=25, deadline=None)
@given(softs)
def test_shares_sum_to_one_and_intervals_are_in_order(rows: list[tuple[float, ...]]):
    """Of any scores: shares by need sum to 1, the best of scales beats each, the coarser recommendation is by mean."""
    own = analysed(np.array(rows)).whole
    assert math.isclose(sum(own.needed), 1.0)
    assert own.oracle.best.value >= max(scale.score.value for scale in own.scales) - SLACK
    assert own.fixed.by_mean <= own.fixed.tokens and {own.fixed.best, own.fixed.tokens} <= set(LADDER)
    for rate in (*(scale.score for scale in own.scales), own.oracle.score, own.finer_hurts, own.luck.score):
        assert rate.ci[0] <= rate.ci[1] and -SLACK <= rate.value <= 1 + SLACK


def test_tasks_stand_apart():
    """Each task's group is what the same analysis of its samples alone finds, up to chance of the draws."""
    score = np.random.default_rng(5).integers(0, 2, size=(40, 5)).astype(float)
    tasks = ["a", "b"] * 20
    found = analysed(score, tasks=tasks)
    assert [group.task for group in found.tasks] == ["a", "b"] and found.whole.task is None
    alone = analysed(score[::2], tasks=["a"] * 20).tasks[0]
    assert found.tasks[0].needed == alone.needed and found.tasks[0].oracle.tokens.value == alone.oracle.tokens.value
    assert found.tasks[0].luck.score.value == pytest.approx(alone.luck.score.value)


def test_the_model_of_luck_foretells_a_second_rendering():
    """Where thresholds, slips and guesses are true, the oracle's choices earn anew what the model says they do."""
    first, second = guessing_world(4000, seed=0, slip=0.05, guess=0.3)
    modelled = analysed(first).whole
    (found,) = analyse(table_of(first), table_of(second))
    redone = found.whole
    assert (modelled.luck.method, redone.luck.method) == ("threshold model", "second rendering")
    assert modelled.luck.score.value == pytest.approx(redone.luck.score.value, abs=0.02)
    assert redone.oracle.score.value > redone.luck.score.value + 0.1
    assert modelled.luck.lucky is not None and redone.luck.lucky is not None
    assert modelled.luck.lucky.value == pytest.approx(redone.luck.lucky.value, abs=0.02)


def test_what_knowing_the_chances_is_worth_survives_a_second_rendering():
    """Choosing by the model's chances gains as much in the second rendering as it promises, and not as the oracle."""
    first, second = guessing_world(4000, seed=1, slip=0.05, guess=0.3)
    (promised,), (kept,) = analyse(table_of(first)), analyse(table_of(first), table_of(second))
    assert promised.headroom.repeatable.value == pytest.approx(kept.headroom.repeatable.value, abs=0.02)
    assert kept.headroom.oracle.value > kept.headroom.repeatable.value + 0.03


def test_without_guesses_there_is_hardly_luck_and_with_guesses_alone_there_is_nothing_else():
    """Nested answers repeat; coin flips don't."""
    nested, _ = guessing_world(2000, seed=2, slip=0.0, guess=0.0)
    lucky = analysed(nested).whole.luck.lucky
    assert lucky is not None and lucky.value < 0.01
    flips = (np.random.default_rng(3).random((2000, 5)) < 0.2).astype(float)
    own = analysed(flips).whole
    assert own.luck.lucky is not None and own.luck.lucky.value == pytest.approx(0.8, abs=0.06)


def test_the_fit_finds_the_rates_that_made_the_answers():
    """A sample right everywhere keeps its slip rate, one wrong everywhere its guess rate."""
    first, _ = guessing_world(6000, seed=4, slip=0.08, guess=0.25)
    patterns, counts = np.unique(first > 0.5, axis=0, return_counts=True)
    chances = fit_thresholds(patterns, counts.astype(float))
    assert chances[patterns.all(axis=1)][0, -1] == pytest.approx(0.92, abs=0.02)
    assert chances[~patterns.any(axis=1)][0, 0] == pytest.approx(0.25, abs=0.03)


def test_soft_scores_stay_soft_anew():
    """Chances of soft scores lie between what wrong and right answers earn."""
    score = np.where(guessing_world(500, 6, 0.05, 0.2)[0] > 0, 0.8, 0.1)
    anew = chances_anew(score, np.array(["task"] * 500))
    assert 0.1 <= anew.min() and anew.max() <= 0.8 + 1e-9


def test_another_rendering_must_fit():
    """None of the samples: the model serves; some of them, or another ladder: an error that says so."""
    rows = table_of(np.eye(5))
    strange = replace(rows, sample_id=np.array([f"other-{i}" for i in range(5)], dtype=object))
    assert same_samples(rows, strange) is None
    with pytest.raises(LabelTableError, match="2 of 5 samples of 'made-up' are missing"):
        same_samples(rows, rows.select(np.arange(3)))
    with pytest.raises(LabelTableError, match="ladder"):
        same_samples(rows, table_of(np.eye(5)[:, :2], ladder=(1, 9)))


@pytest.mark.parametrize(("pictures", "take"), [(100, 576), (1000, 9)])
def test_few_pictures_make_nothing_sure(pictures: int, take: int):
    """No loss seen from 9 tokens on: the mean trusts it at once, the interval from some hundred pictures on."""
    score = np.ones((pictures, 5))
    score[::10, 0] = 0
    fixed = analysed(score).whole.fixed
    assert (fixed.by_mean, fixed.tokens) == (9, take)


def test_the_fixed_scale_keeps_the_allowed_loss():
    """What is recommended loses no more than allowed, whatever is allowed; more allowed never takes more tokens."""
    score = guessing_world(3000, seed=8, slip=0.05, guess=0.1)[0]
    losses, pictures = score[:, -1:] - score, np.arange(3000).astype(str)
    taken = []
    for allowed in (0.0, 0.02, 0.1, 0.3, 0.99):
        fixed = recommend(losses, score.mean(0), LADDER, pictures, allowed, seed=0)
        assert losses[:, LADDER.index(fixed.tokens)].mean() <= allowed
        taken.append(fixed.tokens)
    assert taken == sorted(taken, reverse=True) and taken[0] == 576 and taken[-1] == 1


def test_a_task_that_decides_all_leaves_nothing_to_a_router():
    """Where each task has its scale and no luck, the lookup gets the whole gain."""
    score = np.array([[1.0] * 5, [0, 0, 0, 1, 1]] * 400)
    room = analysed(score, tasks=["easy", "hard"] * 400).headroom
    assert room.lookup.value > 0.05 and abs(room.beyond_lookup.value) < 0.01


def test_pictures_are_ordered_by_what_they_need():
    """Geometric means over solved questions, and unsolved pictures left out, as a loop finds them."""
    score = np.random.default_rng(9).integers(0, 2, size=(60, 5)).astype(float)
    pictures = [f"picture-{i % 20}" for i in range(60)]
    found = picture_complexity(table_of(score, pictures=pictures), seed=0)
    for need in found.pictures:
        own = [score[i] for i in range(60) if pictures[i] == need.image_sha256]
        logs = [math.log(LADDER[int(row.argmax())]) for row in own if row.any()]
        assert need.tokens == pytest.approx(math.exp(np.mean(logs)))
        assert (need.questions, need.unsolved) == (len(logs), len(own) - len(logs))
    assert [need.tokens for need in found.pictures] == sorted(need.tokens for need in found.pictures)
    nothing = picture_complexity(table_of(np.zeros((5, 5))), seed=0)
    assert nothing.pictures == () and nothing.correlations == ()


def test_rank_correlations_are_scipys():
    """With ties; a constant feature has none; the interval holds the value."""
    rng = np.random.default_rng(10)
    need = rng.integers(0, 5, 80).astype(float)
    features = np.stack([need + rng.normal(size=80), rng.integers(0, 3, 80), np.ones(80)], axis=1)
    *found, constant = spearman(need, features, seed=0)
    assert constant is None
    for rate, feature in zip(found, features.T, strict=False):
        assert rate is not None and rate.value == pytest.approx(spearmanr(need, feature).statistic)
        assert rate.ci[0] < rate.value < rate.ci[1]


def test_what_decides_in_a_made_up_world_correlates(tmp_path: Path):
    """Its pictures' blobs decide how many tokens they need, and lead the list within tasks."""
    table = read_labels(write_world(tmp_path, pictures=300))
    correlations = picture_complexity(table, seed=0).correlations
    strongest = max(correlations, key=lambda each: abs(each.within_tasks.value))
    assert strongest.feature == "figure_blobs" and strongest.within_tasks.ci[0] > 0.2


def test_answers_are_read_back(tmp_path: Path):
    """The texts of the wanted samples, in the ladder's order, from whichever shard."""
    rows = made_up_rows(10)
    write_shard(tmp_path / "0.parquet", list(reversed(rows[:75])), META)
    write_shard(tmp_path / "1.parquet", rows[75:], META)
    wanted = [rows[0].sample_id, rows[-1].sample_id]
    found = read_answers(tmp_path, wanted)
    assert set(found) == set(wanted)
    for name in wanted:
        assert found[name].references == ("yes",)
        assert found[name].predictions == tuple(row.prediction for row in rows if row.sample_id == name)


def test_the_gallery_shows_each_granularity(tmp_path: Path):
    """Samples that need what they are shown under, of different pictures; a broken picture is left out."""
    write_world(tmp_path, pictures=60)
    (tmp_path / PICTURES).mkdir()
    table = read_labels(tmp_path)
    for i, name in enumerate(np.unique(table.image_sha256)):
        (tmp_path / PICTURES / f"{name}.png").write_bytes(b"broken" if i == 0 else png(400, 300))
    gallery = make_gallery(tmp_path, table, picture_complexity(table, 0).pictures, per_scale=2, seed=0)
    assert len(gallery.strip) >= 9
    for shown in gallery.samples:
        right = [tokens for tokens, score in zip(LADDER, shown.scores, strict=True) if score >= 0.5]
        assert shown.needed == (right[0] if right else None)
        assert shown.predictions == tuple("yes" if score else "no" for score in shown.scores)
    for needed in (*LADDER, None):
        assert sum(shown.needed == needed for shown in gallery.samples) <= 2
    assert {shown.needed for shown in gallery.samples} >= set(LADDER[:4])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label table of two data sets, one of which has a hostile name; pictures beside it."""
    folder = tmp_path_factory.mktemp("labels")
    write_world(folder, pictures=40)
    odd = [
        replace(row, dataset="<b>$x_{$</b>", task="$a^", question="<script>alert(1)</script>", prediction="<i>&")
        for row in made_up_rows(12, seed=9)
    ]
    write_shard(folder / "2.parquet", odd, META)
    (folder / PICTURES).mkdir()
    for row in odd:
        (folder / PICTURES / f"{row.image_sha256}.png").write_bytes(png(64, 64))
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*args: str | Path) -> tuple[int, str, str]:
        status = main([str(arg) for arg in args])
        return status, *capsys.readouterr()

    return command


def test_the_command_tells_it_all(world: Path, tmp_path: Path, run: Run):
    """Tables above, one JSON object as the last line and in the folder, progress on stderr, a page and its figures."""
    status, out, err = run(world, "--out", tmp_path / "a", "--again", world)
    assert status == 0 and "analysing" in err
    *tables, last = out.splitlines()
    told = json.loads(last)
    assert any(line.startswith("oracle ") for line in tables)
    stored = json.loads((tmp_path / "a" / "analysis.json").read_text())
    assert stored == {key: value for key, value in told.items() if key not in ("page", "seconds")}
    assert [each["name"] for each in told["datasets"]] == ["<b>$x_{$</b>", "made-up"]
    assert all(each["verdict"].count(".") >= 1 for each in told["datasets"])
    assert told["datasets"][1]["whole"]["luck"]["method"] == "second rendering"
    pngs = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert "analysis-made-up-scales.png" in pngs and "analysis-b-x-b-needed.png" in pngs
    assert all((tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG") for name in pngs)


def test_the_page_holds_all_it_shows(world: Path, tmp_path: Path, run: Run):
    """Nothing is fetched from elsewhere, and no name, question or answer becomes markup."""
    run(world, "--out", tmp_path)
    page = (tmp_path / "analysis.html").read_text()
    assert "http" not in page and "<script" not in page and "<i>&<" not in page
    assert "&lt;script&gt;alert(1)" in page and "data:image/png;base64," in page
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page
    assert page.count("class=right>") and page.count("class=wrong>")


def test_the_same_seed_tells_the_same(world: Path, tmp_path: Path, run: Run):
    """Page and numbers are the same to the byte."""
    for name in ("a", "b"):
        assert run(world, "--out", tmp_path / name)[0] == 0
    for name in ("analysis.html", "analysis.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_users_mistake_is_one_plain_line(world: Path, tmp_path: Path, run: Run):
    """Exit status 2 and a line that says what is wrong."""
    write_shard(tmp_path / "one.parquet", [r for r in made_up_rows(1) if r.tokens == 1], replace(META, ladder=(1,)))
    (tmp_path / "file").write_text("")
    out = tmp_path / "out"
    scores = PUBLISHED / "llava-next-7b-m3.csv"
    for args, said in (
        ((tmp_path / "nothing", "--out", out), "no label table"),
        ((tmp_path / "one.parquet", "--out", out), "ladder of one scale"),
        ((world, "--out", out, "--again", tmp_path / "nothing"), "no label table"),
        ((world, "--out", out, "--max-loss", "1.5"), "1.5"),
        ((world, "--out", out, "--examples", "-1"), "-1"),
        ((world, "--out", tmp_path / "file"), "can't be written"),
        (("--scores", tmp_path / "nothing", "--out", out), "not a readable table"),
        (("--scores", scores, "--again", world, "--out", out), "--again"),
    ):
        status, printed, err = run(*args)
        (line,) = [line for line in err.splitlines() if line.startswith("analyze-m3: ")]
        assert status == 2 and said in line and not printed
    for args in (("--out", out), (world, "--scores", scores, "--out", out)):
        with pytest.raises(SystemExit) as stopped:
            run(*args)
        assert stopped.value.code == 2


def test_slugs_never_meet():
    """Names that look alike in a file system get files of their own."""
    assert len(slugs(["A b", "a-b", "a_b", "!!"])) == 4


# Recomputed from Table 2 by hand: tokens of the solved, tokens with the unsolved charged 576, scale within a point.
TABLE_2 = {
    "TextVQA": (44.1, 201.0, 144),
    "AI2D": (14.8, 147.5, 9),
    "ChartQA": (58.6, 209.9, 576),
    "DocVQA": (78.2, 169.1, 576),
    "MMBench": (11.6, 156.4, 9),
    "POPE": (6.4, 38.9, 36),
    "ScienceQA": (9.5, 145.0, 9),
    "MMMU": (44.3, 307.8, 1),
}


def test_table_2_of_the_paper_in_both_conventions():
    """The oracle's tokens without the unsolved and with them charged 576, and the scales within a point."""
    sets = {own.dataset: own for own in analyse_scores(read_scores(PUBLISHED / "llava-next-7b-m3.csv"), 0.01)}
    assert list(sets) == list(TABLE_2)
    for name, (solved, finest, take) in TABLE_2.items():
        given = sets[name].oracle
        assert given is not None
        assert (given.tokens_solved, given.tokens_finest) == pytest.approx((solved, finest), abs=0.0501)
        assert sets[name].tokens[sets[name].recommended] == take
    over = [own.oracle.over_finest for own in sets.values() if own.oracle]
    assert (min(over), max(over)) == pytest.approx((3.6, 16.4), abs=0.05)


def test_table_2_over_all_data_sets():
    """Unweighted means of the static choices and of the oracle in both conventions."""
    found = {
        m.name: m for m in means(analyse_scores(read_scores(PUBLISHED / "llava-next-7b-m3.csv"), 0.01), (0.01, 0.02))
    }
    for name, tokens, score in (
        ("always 576", 576, 65.38),
        ("always 144", 144, 64.97),
        ("always 36", 36, 62.13),
        ("always 9", 9, 58.10),
        ("always 1", 1, 52.31),
        ("per data set, within 1 of the finest", 170, 65.28),
        ("per data set, within 2 of the finest", 112, 64.82),
        ("oracle, unsolved charged the coarsest", 24.3, 74.31),
        ("oracle, unsolved charged the finest", 172.0, 74.31),
    ):
        assert found[name].tokens == pytest.approx(tokens, abs=0.5) and found[name].score == pytest.approx(
            score, abs=0.006
        )
    assert found["per data set, its best"].score == pytest.approx(66.15, abs=0.005)


def test_the_paper_on_video_has_no_oracle():
    """Table 3: full tokens are not best on 4 of 6 sets, and the means stop at the static choices."""
    sets = analyse_scores(read_scores(PUBLISHED / "llava-next-7b-m3-video.csv"), 0.01)
    assert sum(max(own.scores) > own.scores[-1] for own in sets) == 4 and len(sets) == 6
    assert all(own.oracle is None for own in sets)
    assert not any(mean.name.startswith("oracle") for mean in means(sets, (0.01,)))


def test_published_scores_as_a_command(tmp_path: Path, run: Run):
    """Tables, a page without anything from elsewhere, a figure, and the JSON."""
    status, out, _ = run("--scores", PUBLISHED / "llava-next-7b-m3.csv", "--out", tmp_path)
    told = json.loads(out.splitlines()[-1])
    assert status == 0 and "per data set, within 1 of the finest" in out
    assert [each["take"] for each in told["datasets"]] == [take for _, _, take in TABLE_2.values()]
    assert json.loads((tmp_path / "analysis.json").read_text())["means"] == told["means"]
    page = (tmp_path / "analysis.html").read_text()
    assert "http" not in page and "147.5" in page and (tmp_path / "analysis-scores.png").is_file()


HEAD = "dataset,policy,tokens,score\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line"),
        ("dataset,tokens,score\nx,1,5\n", "first line"),
        (HEAD, "no scores"),
        (HEAD + "x,fixed,1\n", "line 2: 3 cells"),
        (HEAD + "# a remark\nx,best,1,50\n", "line 3: policy 'best'"),
        (HEAD + ",fixed,1,50\n", "no name"),
        (HEAD + "x,fixed,one,50\n", "must be numbers"),
        (HEAD + "x,fixed,nan,50\n", "positive number"),
        (HEAD + "x,fixed,1,101\n", "0 to 100"),
        (HEAD + "x,fixed,1,0.5\nx,fixed,9,0.7\n", "in percent"),
        (HEAD + "x,fixed,1,50\nx,fixed,1,51\n", "twice"),
        (HEAD + "x,oracle,1,50\n", "no row of a fixed scale"),
        (HEAD + "x,fixed,1,50\nx,oracle,1,60\nx,oracle,1,61\n", "2 oracles"),
        (HEAD + "x,fixed,1,50\nx,fixed,9,60\nx,oracle,2,55\n", "can't be"),
        (HEAD + "x,fixed,1,50\nx,fixed,9,60\nx,oracle,12,70\n", "can't be"),
    ],
)
def test_scores_that_cannot_be_are_refused(tmp_path: Path, text: str, said: str):
    """The message names what is wrong."""
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InvalidInput, match=said):
        analyse_scores(read_scores(tmp_path / "scores.csv"), 0.01)


def test_groups_are_counted():
    """Pairs and pictures are those of the table."""
    found = analysed(np.ones((6, 5)), pictures=["a", "a", "b", "b", "c", "c"])
    for group in (found.whole, *found.tasks):
        assert (group.pairs, group.pictures) == (6, 3)


def test_the_verdict_follows_from_the_answers():
    """No router where nothing is gained, a table where the task decides, a router where not; or too few to tell."""
    world = guessing_world(2000, seed=11, slip=0.02, guess=0.05)[0]
    easy_and_hard = np.array([[1.0] * 5, [0, 0, 0, 1, 1]] * 400)
    for score, tasks, said in (
        (np.ones((500, 5)), ["one", "other"] * 250, "made-up needs no router"),
        (easy_and_hard, ["easy", "hard"] * 400, "A table of one scale per task is enough for made-up"),
        (world, ["one"] * 2000, "made-up can use a router"),
        (world[:6], ["one"] * 6, "can't be told from 6 pictures"),
    ):
        assert said in verdict(analysed(score, tasks=tasks))


def test_the_recommendation_says_what_isnt_sure():
    """A cheaper scale that only the mean speaks for is named as such, and gains aren't called losses."""
    score = np.ones((60, 5))
    assert "by the mean alone 1 token, which these 60 pictures don't make sure" in recommendation(analysed(score).whole)
    score = np.tile([0, 1, 1, 1, 0.5], (400, 1))
    assert "9 tokens (it gains 50.0 points" in recommendation(analysed(score).whole)
