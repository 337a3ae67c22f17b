"""Router artifacts: written whole, read back the same, and refused with both sides named when anything is off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from label_world import LADDER, write_world
from routers import rewritten

from complexity.errors import ArtifactError
from complexity.familiarity import Familiarity
from complexity.features import FEATURE_VERSIONS
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.labels import LabelTable, read_labels
from complexity.predictor import ComplexityPredictor, FitOptions
from router.artifact import MANIFEST_FILE, Artifact, load_artifact, save_artifact
from router.calibrate import CurvePoint
from router.cascade import SecondLook
from router.certify import Certificate


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LabelTable:
    return read_labels(write_world(tmp_path_factory.mktemp("labels"), pictures=60))


@pytest.fixture(scope="module")
def artifact(table: LabelTable) -> Artifact:
    predictor = ComplexityPredictor.fit(
        table.image_features, table.question, table.score, table.image_sha256, LADDER, FitOptions(rounds=3, threads=1)
    )
    return Artifact(
        predictor=predictor,
        ladder=LADDER,
        price=0.0005,
        costs=tuple(map(float, LADDER)),
        cost_unit="tokens",
        target="--max-loss 0.01",
        certificate=Certificate(0.05, 0.9, 0.0005, 100, 1, "0" * 64),
        familiarity=Familiarity.fit(table.image_features, table.question, table.image_features, table.question),
        second_look=SecondLook(np.ones((5, 5, 4))),
        place="light",
        feature_version=FEATURE_VERSIONS["light"],
        model="m3-made-up",
        sweep_version="made-up-1",
        labels_sha256="0" * 64,
        seed=0,
        created_at="2026-11-22T12:00:00+00:00",
        metrics={"test": {"pairs": 3}},
        curve=(CurvePoint(0.0, 0.9, 500.0, 500.0), CurvePoint(0.0005, 0.89, 50.0, 50.0)),
        card="# A card\n",
    )


def test_what_is_saved_is_loaded(tmp_path: Path, artifact: Artifact, table: LabelTable):
    """Everything comes back, the predictor predicts the same, and the digest is that of the files."""
    saved = save_artifact(tmp_path / "a", artifact, b"a figure")
    loaded = load_artifact(tmp_path / "a", model="m3-made-up", ladder=LADDER)
    parts = {name: getattr(artifact, name) for name in ("predictor", "familiarity", "second_look")}
    assert replace(loaded, **parts) == artifact
    assert (loaded.second_look.weights == 1).all()
    known = [f.knows(table.image_features, table.question) for f in (loaded.familiarity, artifact.familiarity)]
    assert np.array_equal(*known) and known[0].mean() > 0.9
    assert loaded.digest == saved.digest and len(loaded.digest) == 64
    both = [p.predict_proba(table.image_features, table.question) for p in (loaded.predictor, artifact.predictor)]
    assert np.array_equal(*both)
    assert {path.suffix for path in (tmp_path / "a").iterdir()} == {".json", ".txt", ".md", ".png"}


def test_the_digest_is_of_what_decides(tmp_path: Path, artifact: Artifact):
    """The same artifact has the same digest anywhere, also with another card; another price another one."""
    digests = [
        save_artifact(tmp_path / name, made).digest
        for name, made in (
            ("a", artifact),
            ("b", replace(artifact, card="# Another card\n")),
            ("c", replace(artifact, price=0.001)),
        )
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_newer_artifact_replaces_an_older_one(tmp_path: Path, artifact: Artifact):
    """Saving over an artifact leaves nothing of it, and no temporary folder."""
    save_artifact(tmp_path / "a", artifact, b"a figure")
    save_artifact(tmp_path / "a", replace(artifact, price=0.25))
    assert load_artifact(tmp_path / "a").price == 0.25 and not (tmp_path / "a" / "accuracy.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, artifact: Artifact):
    """A folder that isn't an artifact is not replaced."""
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(ArtifactError, match="not a router artifact"):
        save_artifact(tmp_path, artifact)
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"


@pytest.mark.parametrize("name", ["artifact.json", "predictor.json", "predictor.txt"])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_files_are_refused(tmp_path: Path, artifact: Artifact, name: str, damage: str):
    """Each file that is gone, cut short or changed in one byte is named."""
    save_artifact(tmp_path / "a", artifact)
    path = tmp_path / "a" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-10] if damage == "cut" else content[:-2] + b" " + content[-1:])
    with pytest.raises(ArtifactError, match=name):
        load_artifact(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"artifact.json": 3}', b"\xff\xfe"])
def test_a_broken_manifest_is_refused(tmp_path: Path, artifact: Artifact, content: bytes):
    """A manifest that isn't one is an ArtifactError."""
    save_artifact(tmp_path / "a", artifact)
    (tmp_path / "a" / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="manifest.json"):
        load_artifact(tmp_path / "a")


def test_a_manifest_must_name_all_files(tmp_path: Path, artifact: Artifact):
    """A file left out of the manifest, so that nobody vouches for it, is refused."""
    save_artifact(tmp_path / "a", artifact)
    manifest = json.loads((tmp_path / "a" / MANIFEST_FILE).read_text())
    del manifest["predictor.txt"]
    (tmp_path / "a" / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="predictor.txt"):
        load_artifact(tmp_path / "a")


def test_no_artifact_is_refused(tmp_path: Path):
    """A path where nothing is gets a plain message."""
    with pytest.raises(ArtifactError, match="nowhere.*No such file"):
        load_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": "0"}, "schema version of the artifact is '0', this code reads '2'"),
        (
            {"feature_version": "image-0"},
            f"feature version of the artifact is 'image-0'.*{IMAGE_FEATURE_VERSION}",
        ),
        ({"ladder": [1, 4]}, r"ladder of the artifact is \[1, 4\], its predictor has \[1, 9"),
        ({"place": "tower"}, "feature version of the artifact is 'image-.*this code computes 'tower-"),
        ({"place": "here"}, "feature version of the artifact is 'image-.*features of light or tower"),
        ({"price": -1.5}, "price"),
        ({"price": "cheap"}, "price"),
        ({"costs": [1, 2]}, "2 costs for 5 rungs"),
        ({"surprise": 1}, "not what this code writes"),
    ],
)
def test_other_versions_are_refused(tmp_path: Path, artifact: Artifact, changes: dict[str, object], says: str):
    """Another schema, other features, another ladder, a senseless price: both sides are named."""
    save_artifact(tmp_path / "a", artifact)
    rewritten(tmp_path / "a", **changes)
    with pytest.raises(ArtifactError, match=says):
        load_artifact(tmp_path / "a")


def test_an_artifact_for_another_model_is_refused(tmp_path: Path, artifact: Artifact):
    """Who asks for a model or a ladder gets it, or both names."""
    save_artifact(tmp_path / "a", artifact)
    with pytest.raises(ArtifactError, match="'m3-made-up'.*'llava-m3'"):
        load_artifact(tmp_path / "a", model="llava-m3")
    with pytest.raises(ArtifactError, match=r"\[1, 9, 36, 144, 576\].*\[1, 9\]"):
        load_artifact(tmp_path / "a", ladder=(1, 9))
