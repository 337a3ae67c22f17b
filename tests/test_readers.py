"""All readers of benchmarks in text formats: each row comes out as its authors mean it, or is told as a problem."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_files import PNG, World, pictures
from benchmark_world import WORLDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from complexity.errors import InvalidInput
from training_data.readers.by_name import READERS, read
from training_data.readers.records import Problem, Record

DOCUMENT = Path(__file__).parent.parent / "docs" / "data.md"
BINARY = {"datasets", "mmmu"}  # see test_readers_dataset.py


def split(name: str, world: World) -> tuple[list[Record], list[Problem]]:
    found = list(read(name, world.path, **{"images": None, **world.options}))
    return [each for each in found if isinstance(each, Record)], [each for each in found if isinstance(each, Problem)]


def named(record: Record, folder: Path) -> tuple[str, ...]:
    """A record's pictures by their names in the folder, or what stands in the file itself."""
    return tuple(
        str(each.path.relative_to(folder)) if each.path else each.read().decode("latin-1") for each in record.pictures
    )


def test_every_reader_of_text_has_a_benchmark_here():
    """The cases below leave out none but those of binary files."""
    assert set(READERS) == {*WORLDS, *BINARY}


def test_every_reader_is_documented():
    """The table in docs/data.md has a row for each reader, in the order of the code."""
    assert re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.M)[: len(READERS)] == list(READERS)


def test_the_documented_data_is_read(tmp_path):
    """Both examples in docs/data.md are the same two questions."""
    pictures(tmp_path, "img/receipt1.png")
    found = []
    for kind, content in re.findall(r"```(csv|jsonl)\n(.*?)```", DOCUMENT.read_text(), re.S):
        (tmp_path / f"mine.{kind}").write_text(content)
        found.append([replace(each, record_id="") for each in read("own", tmp_path / f"mine.{kind}")])
    assert found[0] == found[1]
    assert [(each.references, each.scorer) for each in found[0]] == [(("15.30", "$15.30"), "exact"), (("A",), "choice")]


@pytest.mark.parametrize("name", WORLDS)
def test_good_rows_become_records(name, tmp_path):
    """Ids, tasks, pictures, prompts, references, scorers and options are the benchmark's."""
    world = WORLDS[name](tmp_path)
    records, _ = split(name, world)
    found = [
        (each.record_id, each.task, named(each, tmp_path), each.question, each.references, each.scorer, each.options)
        for each in records
    ]
    expected = [
        (each.record_id, each.task, each.pictures, each.question, each.references, each.scorer, each.options)
        for each in world.expected
    ]
    assert found == expected
    assert {each.dataset for each in records} == {"mine" if name == "own" else name}


@pytest.mark.parametrize("name", WORLDS)
def test_other_rows_become_problems(name, tmp_path):
    """Missing pictures and bad rows are told with file, line and reason, each once, and the others still come."""
    world = WORLDS[name](tmp_path)
    _, problems = split(name, world)
    found = [(each.file.name, each.line, each.reason) for each in problems]
    assert len(found) == len(world.problems)
    for (file, line, reason), (wanted_file, wanted_line, part) in zip(
        sorted(found), sorted(world.problems), strict=True
    ):
        assert (file, line) == (wanted_file, wanted_line)
        assert part in reason


@pytest.mark.parametrize("name", WORLDS)
def test_pictures_are_not_opened(name, tmp_path):
    """A picture that may not be read is as good as any to a reader; only its bytes are missed later."""
    world = WORLDS[name](tmp_path)
    before = split(name, world)
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.read_bytes() == PNG:
            file.write_bytes(b"")
    assert split(name, world) == before


@pytest.mark.parametrize("name", WORLDS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_text_is_refused_or_read(name, tmp_path, data):
    """Whatever becomes of a benchmark's files, the only error is InvalidInput, and every problem says where."""
    folder = tmp_path / "world"
    world = WORLDS[name](folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.read_bytes() != PNG)
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    put = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from(WRONG)))
    file.write_bytes(content[:start] + put + content[end:])
    try:
        records, problems = split(name, world)
    except InvalidInput as error:
        assert len(str(error)) < 1000
        return
    assert all(each.record_id and each.question and each.references and each.pictures for each in records)
    assert all(each.reason and len(each.reason) < 1000 and each.file.is_relative_to(folder) for each in problems)
    for each in records:
        json.dumps(each.question).encode()
        each.question.encode()


WRONG = [b"null", b"[]", b"{}", b"-1", b"1e400", b"NaN", b"true", b'"', b"\n", b"\x00", b"\xff\xfe", b"[" * 2000]
WRONG += [b'"\\ud800"', b"9" * 5000, b"a" * 300, b"\t", b",", b"../..", b'""']


@pytest.mark.parametrize("name", WORLDS)
def test_an_empty_file_can_not_be_used(name, tmp_path):
    """A file without a question is an error that names it, not a dataset of nothing."""
    world = WORLDS[name](tmp_path)
    path = world.path
    if path.is_dir():
        for file in path.rglob("*"):
            if file.is_file() and file.read_bytes() != PNG:
                file.unlink()
    else:
        path.write_text("")
    with pytest.raises(InvalidInput, match=re.escape(str(path))):
        split(name, world)


@pytest.mark.parametrize("name", ["vqav2", "egoschema"])
def test_answers_apart_are_asked_for(name, tmp_path):
    """A reader that needs an answers' file says what it is called."""
    world = WORLDS[name](tmp_path)
    with pytest.raises(InvalidInput, match=r"answers have a file of their own, such as .*\.json"):
        next(read(name, world.path, tmp_path))


def test_what_is_not_there_is_refused_at_once(tmp_path):
    """Readers, files, folders and columns are checked before anything is read."""
    (tmp_path / "a.csv").write_text("picture,question\n")
    with pytest.raises(InvalidInput, match="no reader 'vqa'; choose one of own, datasets"):
        read("vqa", tmp_path)
    with pytest.raises(InvalidInput, match=r"there is no .*b\.csv"):
        read("own", tmp_path / "b.csv")
    with pytest.raises(InvalidInput, match="there is no folder"):
        read("own", tmp_path / "a.csv", tmp_path / "a.csv")
    with pytest.raises(InvalidInput, match="only datasets takes some"):
        read("own", tmp_path / "a.csv", columns={"picture": "image"})
    with pytest.raises(InvalidInput, match="no column 'image'"):
        read("datasets", tmp_path, columns={"image": "picture"})
    with pytest.raises(InvalidInput, match="can't be|no such|there is no"):
        read("own", Path("/" + "x" * 5000))


def test_splits_that_a_benchmark_has_not_are_refused(tmp_path):
    """A split's name is checked against the benchmark's."""
    for name in ("ocrvqa", "ai2d", "scienceqa"):
        world = WORLDS[name](tmp_path / name)
        with pytest.raises(InvalidInput, match="no split 'tests'"):
            next(read(name, world.path, split="tests"))


def test_a_dataset_can_be_named(tmp_path):
    """Records carry the name that is given, and so do their names in the label table."""
    world = WORLDS["gqa"](tmp_path)
    record = next(read("gqa", world.path, dataset="gqa-balanced"))
    assert isinstance(record, Record) and record.sample_id == "gqa-balanced/201"


@pytest.mark.parametrize("answers", [["", ""], [None], "net", [{"answer": 1.5}, []]])
def test_people_who_all_said_nothing_answered_nothing(tmp_path, answers):
    """One of ten may be silent; where all are, or one said no text, the question can't be scored."""
    world = WORLDS["textvqa"](tmp_path)
    whole = json.loads(world.path.read_text())
    whole["data"] = [{**whole["data"][0], "answers": answers}]
    world.path.write_text(json.dumps(whole))
    (found,) = read("textvqa", world.path)
    assert isinstance(found, Problem) and "'answer" in found.reason


def test_one_file_of_several_can_be_read(tmp_path):
    """POPE and ChartQA take a single file in the folder's place."""
    world = WORLDS["pope"](tmp_path / "pope")
    alone = list(read("pope", world.path / "coco_pope_adversarial.json"))
    assert [each.record_id for each in alone if isinstance(each, Record)] == ["adversarial-1"]
    world = WORLDS["chartqa"](tmp_path / "chartqa")
    alone = list(read("chartqa", world.path / "test_augmented.json"))
    assert [each.record_id for each in alone if isinstance(each, Record)] == ["augmented-1"]


def test_a_frame_that_is_no_picture_is_left_out(tmp_path):
    """A video's folder may hold other files than its frames."""
    world = WORLDS["nextqa"](tmp_path)
    pictures(tmp_path, "2440175990/notes.txt")
    records, _ = split("nextqa", world)
    assert len(records[1].pictures) == 3
