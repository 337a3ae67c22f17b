"""The command `train-router`: from a label table whose truth is known to an artifact that routes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from label_world import LADDER, META, made_up_rows, write_world
from PIL import Image

from complexity.labels import LabelMeta, write_shard
from complexity.predictor import TREES_FILE
from router.artifact import load_artifact
from router.policy import choose
from router.train import main


def run(*args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["--threads", "1", *args])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The command run once, as a user runs it, on 700 made-up pictures and some of another dataset."""
    folder = tmp_path_factory.mktemp("train")
    labels = write_world(folder / "labels", pictures=700)
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


def test_users_mistakes_get_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No table, other features, pictures in two splits, a bad loss, a folder with other things: said plainly."""
    out = str(tmp_path / "artifact")
    narrow = LabelMeta(LADDER, "image-0", META.model, "s")
    write_shard(tmp_path / "old" / "0.parquet", made_up_rows(5), narrow)
    parts = [made_up_rows(5, split=part) for part in ("train", "calibration", "test")]  # of the same pictures
    write_shard(tmp_path / "mixed" / "0.parquet", sum(parts, []), META)
    write_shard(tmp_path / "good" / "0.parquet", made_up_rows(5), META)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only-copy.txt").write_text("...")
    for arguments, says in [
        ((str(tmp_path / "none"), "--out", out), "no label table here"),
        ((str(tmp_path / "old"), "--out", out), "of version image-0; this code computes"),
        ((str(tmp_path / "mixed"), "--out", out), "5 pictures are in both train and calibration"),
        ((str(tmp_path / "good"), "--out", out, "--max-loss", "1.5"), "--max-loss 1.5"),
        ((str(tmp_path / "good"), "--out", str(tmp_path / "thesis")), "not a router artifact"),
    ]:
        status, stdout, stderr = run(*arguments, capsys=capsys)
        assert status == 2 and stdout == "" and says in stderr.splitlines()[-1] and "Traceback" not in stderr


def test_help_names_units_and_defaults(capsys: pytest.CaptureFixture[str]):
    """--help says what a loss is measured in and what is taken when nothing is said."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "default 0.01 = 1 point" in shown and "default 0" in shown
