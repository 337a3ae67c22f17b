"""What docs/install.md and the cards say of extras and versions is what the code has."""

import re
import tomllib

import pytest
import yaml

from complexity import feedback
from complexity.features import TOWER_FEATURE_VERSION
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.labels import SCHEMA_VERSION
from complexity.question_features import QUESTION_FEATURE_VERSION
from router.artifact import ARTIFACT_SCHEMA, load_artifact
from router.cache import VALUE_VERSION, cache_key
from serving import wire
from serving.m3 import load
from serving.m3.tiny import MODEL_TYPE
from serving.rates import redis_key as rate_key
from serving.settings import ROOT, Settings
from training_data import sweep
from training_data.importing import results
from training_data.sweeping import recorded

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROWS = {
    cells[0].strip("`"): cells
    for line in (ROOT / "docs/install.md").read_text().splitlines()
    if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("| ").split(" | ")])
}
ARTIFACTS = [ROOT / "router/artifacts" / name for name in ("m3-tiny", "m3-tiny-tower")]


def test_every_extra_is_told_and_no_other():
    extras = set(PROJECT["optional-dependencies"])
    assert extras == {name for name in ROWS if f"| `{name}` |" in (ROOT / "docs/install.md").read_text()}


@pytest.mark.parametrize(
    ("what", "version"),
    [
        ("package", PROJECT["version"]),
        ("label table", SCHEMA_VERSION),
        ("picture features", IMAGE_FEATURE_VERSION),
        ("question features", QUESTION_FEATURE_VERSION),
        ("tower features", TOWER_FEATURE_VERSION),
        ("sweep", ", ".join((sweep.SWEEP_VERSION, recorded.SWEEP_VERSION, results.IMPORT_VERSION))),
        ("artifact", ARTIFACT_SCHEMA),
        ("model", load_artifact(Settings().artifact).model),
        ("model folder", MODEL_TYPE),
        ("cached decisions", str(VALUE_VERSION)),
        ("feedback", str(feedback.VERSION)),
        ("interface", wire.VERSION),
    ],
)
def test_the_versions_that_are_told_are_the_codes(what: str, version: str):
    assert ROWS[what][1] == version


@pytest.mark.parametrize(
    ("what", "key"),
    [("cached decisions", cache_key("", "", "")), ("limits", rate_key(""))],
)
def test_the_redis_keys_that_are_told_are_the_codes(what: str, key: str):
    assert f"`{key.rstrip(':')}:`" in ROWS[what][2]


def test_the_models_card_names_the_weights_that_lie_beside_it():
    assert load(Settings().model).model_id in (Settings().model / "README.md").read_text()


@pytest.mark.parametrize("folder", ARTIFACTS, ids=lambda folder: folder.name)
def test_an_artifacts_card_names_what_it_was_made_of(folder):
    artifact = load_artifact(folder)
    assert artifact.model == load(Settings().model).model_id
    for said in (artifact.model, artifact.sweep_version, artifact.labels_sha256, artifact.feature_version):
        assert said in artifact.card


def test_pre_commit_runs_what_make_lint_runs():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (recipe,) = re.findall(r"^lint: install\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [hook["entry"] for hook in repository["hooks"]] == [line.strip() for line in recipe.splitlines()]
