"""Damaged label tables, artifacts, remembered decisions and texts: read as they were written, or refused by name."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile_files import TALK, FileWorld, same_table
from label_world import META, made_up_rows

from complexity.errors import ArtifactError, InvalidInput, LabelTableError
from complexity.labels import read_labels, write_shard
from complexity.predictor import TREES_FILE
from complexity.trees import checked_trees
from router.artifact import ARTIFACT_FILE, FAMILIARITY_FILE, MANIFEST_FILE, load_artifact
from router.cache import decode, encode
from serving.settings import ROOT
from training_data.readers.llava_json import read_conversations


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FileWorld:
    return FileWorld(tmp_path_factory.mktemp("files"))


@pytest.fixture
def artifact(world: FileWorld, tmp_path: Path) -> Path:
    """A copy of an artifact, to be spoilt."""
    return Path(shutil.copytree(world.folder / "artifact", tmp_path / "artifact"))


def vouched(folder: Path, name: str, text: str) -> Path:
    """Write a file of an artifact, and the manifest with it."""
    (folder / name).write_text(text)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest[name] = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "kind", ["label table", "artifact", "remembered decision", "conversations", "feedback", "costs"]
)
def test_a_damaged_file_is_read_as_it_was_or_refused_by_name(world: FileWorld, kind: str):
    """The cases themselves say what is wrong; some are read, most refused."""
    rng = random.Random(kind)
    assert not all([world.cases[kind](rng) for _ in range(300)])


def test_a_damaged_artifact_with_its_manifest_never_ends_the_process():
    """LightGBM aborts, crashes or hangs on such files; this runs in processes of its own, as any crash counts."""
    command = [sys.executable, str(ROOT / "benchmarks/fuzz.py"), "--cases", "300", "--seed", "11", "--part", "files"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told = json.loads(ended.stdout.splitlines()[-1])
    assert (told["other"], told["accepted"] + told["refused"]) == (0, 300), ended.stderr


@pytest.mark.parametrize("name", ["m3-tiny", "m3-tiny-tower"])
def test_the_shipped_trees_are_lightgbms_own(name: str):
    text = (ROOT / "router/artifacts" / name / TREES_FILE).read_text()
    features = int(text.split("max_feature_idx=")[1].split("\n")[0]) + 1
    assert text.startswith(checked_trees(text, features))


@pytest.mark.parametrize(
    ("line", "number", "wrong", "says"),
    [
        ("split_feature", 0, "205", "whole one from 0 to"),
        ("left_child", 1, "0", "leads back"),
        ("right_child", 0, "-9", "whole one from"),
        ("right_child", 0, "-1", "form a tree|leads back"),
        ("threshold", 0, "nan", "not finite"),
        ("threshold", 0, "-inf", "not finite"),
        ("threshold", 0, "inf1", "not finite"),
        ("leaf_value", 0, "inf", "not finite"),
        ("leaf_value", 0, "1e400", "not finite"),
        ("leaf_value", 0, "", "not finite"),
        ("leaf_value", 0, "1 1", "numbers where"),
        ("decision_type", 0, "1", "decision_type"),
        ("num_leaves", 0, "99999999", "whole one from"),
        ("num_cat", 0, "1", "categories"),
        ("tree_sizes", 0, "9", "aren't LightGBM's|don't fill"),
        ("max_feature_idx", 0, "3", "features in LightGBM's format"),
        ("internal_count", 0, "0", "whole one from 1"),
    ],
)
def test_trees_that_would_crash_lightgbm_are_refused(artifact: Path, line: str, number: int, wrong: str, says: str):
    """One number is exchanged, the size of its tree's text put right, and the manifest written anew."""
    lines = (artifact / TREES_FILE).read_text().split("\n")
    at = next(i for i, each in enumerate(lines) if each.startswith(f"{line}="))
    name, numbers = lines[at].split("=")
    words = numbers.split(" ")
    grown = len(wrong) - len(words[number])
    words[number] = wrong
    lines[at] = f"{name}={' '.join(words)}"
    sizes = next(i for i, each in enumerate(lines) if each.startswith("tree_sizes="))
    if at > sizes:
        first, rest = lines[sizes].removeprefix("tree_sizes=").split(" ", 1)
        lines[sizes] = f"tree_sizes={int(first) + grown} {rest}"
    vouched(artifact, TREES_FILE, "\n".join(lines))
    with pytest.raises(ArtifactError, match=f"{TREES_FILE}.*({says})"):
        load_artifact(artifact)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (ARTIFACT_FILE, {"price": 10**400}),
        (ARTIFACT_FILE, {"price": True}),
        (ARTIFACT_FILE, {"costs": [1, 2, 3, 4, float("nan")]}),
        (ARTIFACT_FILE, {"costs": [5, 4, 3, 2, 1]}),
        (ARTIFACT_FILE, {"model": ["m3"]}),
        (ARTIFACT_FILE, {"seed": "0"}),
        (ARTIFACT_FILE, {"curve": [{"price": "0"}]}),
        (ARTIFACT_FILE, {"certificate": None}),
        (ARTIFACT_FILE, {"second_look": [[1.0]]}),
        (ARTIFACT_FILE, {"scale_shares": [2, 0, 0, 0, 0]}),
        (ARTIFACT_FILE, {"metrics": []}),
        (FAMILIARITY_FILE, {"mean": [0.0]}),
        (FAMILIARITY_FILE, {"picture_limit": float("nan")}),
        (FAMILIARITY_FILE, {"words": "abc"}),
        (FAMILIARITY_FILE, {"scale": None}),
        ("predictor.json", {"calibration": [[float("inf"), 0]] * 5}),
        ("predictor.json", {"calibration": [[-1, 0]] * 5}),
        ("predictor.json", {"ladder": [1, 9, 36, 144, True]}),
        ("predictor.json", {"place": "tower"}),
        ("predictor.json", {"place": []}),
    ],
)
def test_values_of_the_wrong_kind_are_refused(artifact: Path, name: str, changes: dict[str, object]):
    """Well-formed JSON that no code here writes: the folder is named, and nothing else is raised."""
    vouched(artifact, name, json.dumps(json.loads((artifact / name).read_text()) | changes))
    with pytest.raises(ArtifactError, match="artifact"):
        load_artifact(artifact)


@pytest.mark.parametrize("name", [MANIFEST_FILE, ARTIFACT_FILE, FAMILIARITY_FILE, "predictor.json"])
def test_json_nested_too_deep_is_refused(artifact: Path, name: str):
    vouched(artifact, name, "[" * 100_000) if name != MANIFEST_FILE else (artifact / name).write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="artifact"):
        load_artifact(artifact)


def test_a_manifest_may_not_name_other_paths(artifact: Path):
    """A path that leads out of the folder, to what never ends, isn't read."""
    vouched(artifact, "../../../../../../../../dev/null", "")
    with pytest.raises(ArtifactError, match="names other files"):
        load_artifact(artifact)


def test_a_table_without_checksums_is_read_and_metadata_that_was_changed_is_not(tmp_path: Path):
    """Tables of before had no checksums; a newer one says when its metadata isn't what was written."""
    path = tmp_path / "a.parquet"
    write_shard(path, made_up_rows(2), META)
    stored = pq.read_table(path)
    told = dict(stored.schema.metadata)
    changed = stored.replace_schema_metadata(told | {b"m3.sweep_version": b"another"})
    pq.write_table(changed, path)
    with pytest.raises(LabelTableError, match="a.parquet: its metadata was changed or damaged"):
        read_labels(path)
    del told[b"m3.sha256"]
    pq.write_table(stored.replace_schema_metadata(told), path)
    assert len(read_labels(path)) == 6


def test_a_table_with_one_bit_turned_is_not_read_as_another(tmp_path: Path):
    """Every third byte of a file in turn; only where it decides nothing, such as in statistics, the table is read."""
    path = tmp_path / "a.parquet"
    write_shard(path, made_up_rows(2), META)
    data, whole = path.read_bytes(), read_labels(path)
    refused = 0
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            assert same_table(read_labels(path), whole), at
        except LabelTableError as error:
            assert "a.parquet" in str(error)
            refused += 1
    assert refused > len(data) / 3 / 2


def test_a_remembered_decision_with_another_number_is_not_one():
    value = encode(np.array([0.25, 0.5, 1.0]))
    assert decode(value) is not None
    for at in range(len(value)):
        assert decode(value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]) is None


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"conversations": [{"from": "human", "value": 3}, TALK[1]]}, "two texts"),
        ({"conversations": [TALK[0], {"from": "gpt"}]}, "two texts"),
        ({"conversations": [TALK[0], "gpt"]}, "two texts"),
        ({"conversations": [TALK[0], {"from": "gpt", "value": "\ud800"}]}, "two texts"),
        ({"conversations": TALK, "image": [3]}, "neither a name nor a list"),
        ({"conversations": TALK, "image": {"a": 1}}, "neither a name nor a list"),
        ({"conversations": TALK, "image": "x" * 5000}, "there is no picture"),
        ({"conversations": TALK, "image": "cup.png\0"}, "there is no picture"),
        ({"conversations": {}, "id": "x" * 5000}, "expected an object"),
    ],
)
def test_a_conversation_of_the_wrong_kind_is_refused_by_its_row(world: FileWorld, tmp_path: Path, row, says: str):
    (tmp_path / "talks.json").write_text(json.dumps([{"conversations": TALK, "image": "cup.png"}, row]))
    with pytest.raises(InvalidInput, match=f"talks.json, row 1.*{says}") as refused:
        read_conversations(tmp_path / "talks.json", world.folder)
    assert len(str(refused.value)) < 1000


def test_conversations_nested_too_deep_are_refused(tmp_path: Path):
    (tmp_path / "talks.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="talks.json"):
        read_conversations(tmp_path / "talks.json", tmp_path)
