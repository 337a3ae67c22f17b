"""The command `train-router`: from a label table whose truth is known to an artifact that routes."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feedback_world import heard, verdict, write_journal
from label_world import BLOBS, LADDER, META, TASKS, chance, made_up_rows, write_world
from PIL import Image
from sklearn.metrics import roc_auc_score

from complexity.labels import LabelMeta, write_shard
from complexity.predictor import TREES_FILE
from router.artifact import load_artifact
from router.policy import choose
from router.train import main

ROOT = Path(__file__).parents[1]


def run(*args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["--threads", "1", *args])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The command run once, as a user runs it, on 1400 made-up pictures and some of another dataset."""
    folder = tmp_path_factory.mktemp("train")
    labels = write_world(folder / "labels", pictures=1400)
    strange = [replace(row, dataset="made-up-shifted") for row in made_up_rows(40, seed=9, split="test")]
    write_shard(labels / "2.parquet", strange, META)
    code = "import sys; from router.train import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(labels), "--out", str(folder / "artifact"), "--threads", "1"]
    return folder / "artifact", subprocess.run(command, capture_output=True, text=True)


def test_it_beats_the_lookup_where_pictures_differ(trained: tuple[Path, subprocess.CompletedProcess[str]]):
    """In a world where the picture decides, the router leads the per-task lookup at equal tokens, beyond doubt."""
    told = json.loads(trained[1].stdout.splitlines()[-1])
    gains = {lead["tokens"]: lead for lead in told["equal_tokens"]}
    assert gains[36]["gain"] > 0.01 and gains[144]["gain_ci"][0] > 0


def test_the_last_line_is_one_json_object(trained: tuple[Path, subprocess.CompletedProcess[str]]):
    """It names each policy with accuracy, tokens and interval; the table stands above it, progress on stderr."""
    _, done = trained
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    told = json.loads(last)
    policies = {policy["name"]: policy for policy in told["policies"]}
    assert {"router", "lookup", "image-size", "random-mixing", "oracle-unsolved-coarsest"} < set(policies)
    assert [policies[f"fixed-{tokens}"]["tokens"] for tokens in LADDER] == list(LADDER)
    for policy in policies.values():
        low, high = policy["accuracy_ci"]
        assert low <= policy["accuracy"] <= high
    assert policies["oracle-unsolved-coarsest"]["tokens"] < policies["oracle-unsolved-finest"]["tokens"]
    assert policies["router"]["tokens"] < policies["fixed-576"]["tokens"]
    assert any(line.startswith("router ") for line in table) and "fitting" in done.stderr
    assert {policy["name"] for policy in told["shifted"]["policies"]} == set(policies)


def test_the_artifact_routes(trained: tuple[Path, subprocess.CompletedProcess[str]]):
    """What was written loads for its model, holds the curve and the figures, and chooses scales by its price."""
    folder, done = trained
    told = json.loads(done.stdout.splitlines()[-1])
    artifact = load_artifact(folder, model=META.model, ladder=LADDER)
    assert artifact.digest == told["digest"] and artifact.price == told["price"]
    assert artifact.metrics["test"]["policies"] == told["policies"] and len(artifact.curve) > 10
    rows = [row for row in made_up_rows(30, seed=5) if row.tokens == 1]
    probabilities = [
        artifact.predictor.predict_proba([row.image_features], [row.question])[0]  # type: ignore[arg-type]
        for row in rows
    ]
    tokens = {row.task: set() for row in rows}
    for row, p in zip(rows, probabilities, strict=True):
        tokens[row.task].add(int(choose(p, LADDER, artifact.price)))
    assert max(tokens["background"]) < max(tokens["reading"]) and len(tokens["reading"]) > 1


def test_the_card_and_the_figure_are_for_people(trained: tuple[Path, subprocess.CompletedProcess[str]]):
    """The card says what made it and how well it does; the figure is a picture."""
    folder, _ = trained
    card = (folder / "README.md").read_text()
    for said in (META.model, "train-router labels --max-loss 0.01 --seed 0", "random-mixing", "at equal mean tokens"):
        assert said in card
    with Image.open(folder / "accuracy.png") as figure:
        assert figure.format == "PNG" and min(figure.size) > 400


def test_the_same_seed_gives_the_same_router(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A second run on the same table writes the same predictor, price and figures."""
    folder, done = trained
    status, out, _ = run(str(folder.parent / "labels"), "--out", str(tmp_path / "again"), capsys=capsys)
    assert status == 0
    one, two = json.loads(done.stdout.splitlines()[-1]), json.loads(out.splitlines()[-1])
    assert all(one[key] == two[key] for key in ("policies", "equal_tokens", "price"))
    assert (folder / TREES_FILE).read_text() == (tmp_path / "again" / TREES_FILE).read_text()


def test_the_report_says_what_a_paper_would(trained: tuple[Path, subprocess.CompletedProcess[str]]):
    """Beside the artifact lie a page that holds its figures, the figures, and the JSON with the gaps closed."""
    folder, done = trained
    report = folder.parent / "artifact-report"
    told = json.loads((report / "routing.json").read_text())
    assert {
        "tokens_share_at_1pt",
        "oracle_gap_closed",
        "oracle_gap_closed_ci",
        "vs_lookup",
        "vs_lookup_ci",
        "vs_question",
        "harmful_flips",
        "helpful_flips",
        "certified_alpha",
        "unfamiliar",
        "families",
        "policies",
    } < set(told)
    assert told["policies"] == json.loads(done.stdout.splitlines()[-1])["policies"]
    assert 0 < told["tokens_share_at_1pt"] < 1 and 0 < told["oracle_gap_closed"] < 1
    assert told["vs_question_ci"][0] > 0 and {each["task"] for each in told["families"]} == set(TASKS)
    html = (report / "routing.html").read_text()
    assert html.count("data:image/png;base64,") >= 4 and "The ten worst decisions" in html and "http" not in html
    for name in ("accuracy", "reliability", "families", "features"):
        with Image.open(report / f"routing-{name}.png") as figure:
            assert figure.format == "PNG"


def test_a_certificate_is_of_rows_that_did_not_set_the_price(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
):
    """The artifact carries it: the level, the rows it rests on, one a picture, and its conditions."""
    artifact = load_artifact(trained[0])
    own = artifact.certificate
    assert own.price == artifact.price and 0 < own.alpha < 0.2 and own.confidence == 0.9
    assert 100 < own.rows < 190 and own.flips < own.rows and "drawn as" in own.conditions


@pytest.fixture(scope="module")
def labels(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return trained[0].parent / "labels"


def test_a_budget_is_kept(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Mean tokens on the test rows come near the budget, and a tighter one costs accuracy."""
    found = []
    for budget in ("20", "80"):
        status, out, _ = run(str(labels), "--out", str(tmp_path / budget), "--budget", budget, capsys=capsys)
        assert status == 0
        told = json.loads(out.splitlines()[-1])
        (router,) = [policy for policy in told["policies"] if policy["name"] == "router"]
        assert router["tokens"] == pytest.approx(float(budget), rel=0.25)
        found.append(router["accuracy"])
    assert found[0] < found[1]


def test_certify_routes_to_the_finest_when_nothing_is_certain(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A generous level is certified and saves tokens; an impossible one is said to be so, and nothing is routed."""
    status, out, _ = run(str(labels), "--out", str(tmp_path / "a"), "--certify", "0.15", capsys=capsys)
    told = json.loads(out.splitlines()[-1])
    assert status == 0 and told["certified_alpha"] == 0.15 and told["price"] > -1
    status, out, _ = run(str(labels), "--out", str(tmp_path / "b"), "--certify", "0.0001", capsys=capsys)
    told = json.loads(out.splitlines()[-1])
    (router,) = [policy for policy in told["policies"] if policy["name"] == "router"]
    assert status == 0 and told["price"] == -1 and router["tokens"] == 576
    assert "Nothing could be certified" in out


def test_measured_costs_replace_tokens(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where all scales but the finest take the same time, the router has no use for the coarse ones."""
    (tmp_path / "costs.json").write_text(
        json.dumps({"unit": "ms", "costs": {"1": 10, "9": 10.001, "36": 10.002, "144": 10.003, "576": 40}})
    )
    arguments = [str(labels), "--out", str(tmp_path / "a"), "--costs", str(tmp_path / "costs.json")]
    status, out, _ = run(*arguments, "--budget", "11", capsys=capsys)
    told = json.loads(out.splitlines()[-1])
    (router,) = [policy for policy in told["policies"] if policy["name"] == "router"]
    assert status == 0 and told["cost_unit"] == "ms" and router["cost"] < 12 and router["tokens"] > 100
    assert (tmp_path / "a-report" / "routing-cost.png").exists()


def test_another_rendering_tells_luck_from_skill(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An oracle that is judged on other draws of the same samples loses what was luck."""
    again = [replace(row, score=1 - row.score) if i % 7 == 0 else row for i, row in enumerate(made_up_rows(1400))]
    write_shard(tmp_path / "again" / "0.parquet", again, META)
    arguments = [str(labels), "--out", str(tmp_path / "a"), "--again", str(tmp_path / "again")]
    status, out, err = run(*arguments, capsys=capsys)
    assert status == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told["oracle_gain_over_hull_repeated"] < told["oracle_gain_over_hull"]
    assert told["oracle_gap_closed_repeated"] > told["oracle_gap_closed"]


def test_any_ladder_is_trained_and_routed_from_a_table_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Three rungs of another elastic model: the same command, an artifact for that model and ladder."""
    ladder = (70, 280, 1120)
    meta = LabelMeta(ladder, META.feature_version, "another-model", "elsewhere")
    rung = dict(zip((9, 36, 576), ladder, strict=True))
    rows = [
        replace(row, tokens=rung[row.tokens], visual_tokens=rung[row.tokens], model=meta.model)
        for row in made_up_rows(300)
        if row.tokens in rung
    ]
    write_shard(tmp_path / "labels" / "0.parquet", rows, meta)
    status, out, err = run(str(tmp_path / "labels"), "--out", str(tmp_path / "a"), capsys=capsys)
    assert status == 0, err
    artifact = load_artifact(tmp_path / "a", model="another-model", ladder=ladder)
    row = rows[0]
    probabilities = artifact.predictor.predict_proba(np.array([row.image_features]), [row.question])[0]
    assert probabilities.shape == (3,) and int(choose(probabilities, ladder, artifact.price)) in ladder


@pytest.fixture(scope="module")
def without_reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose training rows hold no question of the task "reading"."""
    rows = [row for row in made_up_rows(500) if row.task != "reading" or row.split != "train"]
    labels = tmp_path_factory.mktemp("withheld") / "labels"
    write_shard(labels / "0.parquet", rows, META)
    return labels


def test_feedback_teaches_what_the_sweep_lacks(
    without_reading: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Verdicts on a task that no training row knows: the retrained predictor ranks its scales and samples better."""
    write_journal(tmp_path / "journals" / "a.jsonl", heard(700, seed=50, task="reading"))
    fresh = [row for row in made_up_rows(200, seed=77) if row.task == "reading"]
    features = np.array([row.image_features for row in fresh[:: len(LADDER)]])
    questions = [fresh[0].question] * len(features)
    right = np.array([row.score for row in fresh])
    truth = np.stack([chance(*TASKS["reading"][1:], blobs) for blobs in features[:, BLOBS]])
    ranked, wrong = [], []
    for name, more in (("without", []), ("with", ["--feedback", str(tmp_path / "journals")])):
        status, out, err = run(str(without_reading), "--out", str(tmp_path / name), *more, capsys=capsys)
        assert status == 0, err
        predicted = load_artifact(tmp_path / name).predictor.predict_proba(features, questions)
        ranked.append(roc_auc_score(right, predicted.ravel()))
        wrong.append(float(np.square(predicted - truth).mean()))
    assert ranked[1] > ranked[0] + 0.02 and wrong[1] < 0.5 * wrong[0]
    told = json.loads(out.splitlines()[-1])["feedback"]
    assert told["rows"] == told["used"] == 700 and told["left_out"] == {}
    assert "feedback: 700 of 700 rows" in err
    artifact = load_artifact(tmp_path / "with")
    assert "--feedback journals" in artifact.card and "feedback: 700 of 700 rows, SHA-256" in artifact.card
    assert artifact.metrics["feedback"] == told and told["swept_sha256"] != artifact.labels_sha256
    assert load_artifact(tmp_path / "without").labels_sha256 == told["swept_sha256"]


def test_feedback_that_does_not_fit_is_left_out_and_counted(
    without_reading: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Rows of another model, ladder or features, of held-out pictures, of unfamiliar samples, from second looks,
    superseded and torn ones teach nothing: the predictor is the same to the last bit as without them."""
    (fits,) = heard(1, seed=60, task="count")
    held_out = next(row.image_sha256 for row in made_up_rows(500) if row.split == "test")
    others: list[dict[str, Any]] = [
        {"model": "another"},
        {"ladder": (*LADDER, 1000)},
        {"feature_version": "image-0"},
        {"image_features": (1.0,)},
        {"image_sha256": held_out},
        {"second_look": True},
        {"why": "unfamiliar"},
    ]
    unfit = [
        replace(fits, answered=replace(fits.answered, decision_id=f"m3-{i}", **other)) for i, other in enumerate(others)
    ]
    journal = write_journal(tmp_path / "a.jsonl", [*unfit, replace(unfit[0], at=9.0)])
    journal.write_bytes(journal.read_bytes() + b'{"torn": ')
    trees = []
    for name, more in (("without", []), ("with", ["--feedback", str(journal)])):
        status, out, err = run(str(without_reading), "--out", str(tmp_path / name), *more, capsys=capsys)
        assert status == 0, err
        trees.append((tmp_path / name / TREES_FILE).read_bytes())
    told = json.loads(out.splitlines()[-1])["feedback"]
    left_out = {"held_out_picture": 1, "other_features": 2, "other_ladder": 1, "other_model": 1, "second_look": 1}
    left_out["unfamiliar"] = 1
    assert told["left_out"] == {**left_out, "superseded": 1} and told["torn"] == 1
    assert told["rows"] == 8 and told["used"] == 0 and trees[0] == trees[1]
    assert "feedback: 0 of 8 rows (left out: 1 held out picture, 2 other features," in err


def test_users_mistakes_get_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No table, other features, pictures in two splits, a bad loss, a folder with other things: said plainly."""
    out = str(tmp_path / "artifact")
    narrow = LabelMeta(LADDER, "image-0", META.model, "s")
    write_shard(tmp_path / "old" / "0.parquet", made_up_rows(5), narrow)
    parts = [made_up_rows(5, split=part) for part in ("train", "calibration", "test")]  # of the same pictures
    write_shard(tmp_path / "mixed" / "0.parquet", sum(parts, []), META)
    write_shard(tmp_path / "good" / "0.parquet", made_up_rows(5), META)
    lone = [
        row
        for i, part in enumerate(("train", "calibration", "test"))
        for row in made_up_rows(1 + 29 * (part == "train"), seed=i, split=part)
    ]
    write_shard(tmp_path / "few" / "0.parquet", lone, META)
    write_world(tmp_path / "some", pictures=60)
    journal = str(write_journal(tmp_path / "j.jsonl", [verdict()]))
    (tmp_path / "broken.jsonl").write_text("{}\n")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only-copy.txt").write_text("...")
    for arguments, says in [
        ((str(tmp_path / "none"), "--out", out), "no label table here"),
        ((str(tmp_path / "old"), "--out", out), "of version image-0; this code computes"),
        ((str(tmp_path / "mixed"), "--out", out), "5 pictures are in both train and calibration"),
        ((str(tmp_path / "good"), "--out", out, "--max-loss", "1.5"), "--max-loss 1.5"),
        ((str(tmp_path / "good"), "--out", str(tmp_path / "thesis")), "not a router artifact"),
        ((str(tmp_path / "few"), "--out", out), "calibration pictures are too few"),
        ((str(tmp_path / "some"), "--out", out, "--again", str(tmp_path / "few")), "test samples are missing"),
        ((str(tmp_path / "some"), "--out", out, "--costs", str(tmp_path / "none.json")), "not a table of costs"),
        ((str(tmp_path / "some"), "--out", out, "--feedback", str(tmp_path / "none")), "no feedback here"),
        ((str(tmp_path / "some"), "--out", out, "--feedback", str(tmp_path / "broken.jsonl")), "broken.jsonl, line 1"),
        ((str(tmp_path / "some"), "--out", out, "--feedback", journal, "--place", "tower"), "with --place tower"),
    ]:
        status, stdout, stderr = run(*arguments, capsys=capsys)
        assert status == 2 and stdout == "" and says in stderr.splitlines()[-1] and "Traceback" not in stderr


def test_help_names_units_and_defaults(capsys: pytest.CaptureFixture[str]):
    """--help says what a loss is measured in and what is taken when nothing is said."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "default 0.01 = 1 point" in shown and "default 0" in shown


def test_a_table_made_as_the_documentation_says_trains_a_router(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """docs/labels.md as it stands: its code writes a table of three rungs, and train-router takes it."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/labels.md").read_text(), re.DOTALL)
    assert code is not None
    made: dict[str, Any] = {}
    exec(code.group(1), made)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        dots = int(rng.integers(1, 30))
        picture = Image.new("L", (96, 96), 255)
        for x, y in rng.integers(0, 95, (dots, 2)):
            picture.putpixel((int(x), int(y)), 0)
        data = io.BytesIO()
        picture.convert("RGB").save(data, "PNG")
        told = {70: "few", 280: str(dots) if dots < 10 else "few", 1120: str(dots)}
        rows += made["label_rows"](f"s{i}", data.getvalue(), "How many dots are there?", str(dots), "count", told)
    made["write"](rows, tmp_path / "labels")
    status, out, err = run(str(tmp_path / "labels"), "--out", str(tmp_path / "a"), capsys=capsys)
    assert status == 0, err
    assert load_artifact(tmp_path / "a", model="my-model@1", ladder=(70, 280, 1120)).place == "light"
