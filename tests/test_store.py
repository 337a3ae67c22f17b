"""Pictures in a store: an S3 that the tests own, and a folder by its URI."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmark_files import PNG, World, pictures
from benchmark_world import WORLDS
from doubles import png
from m3_toys import toy_config, toy_m3
from s3_double import S3, s3_of

from complexity.errors import InvalidInput
from complexity.labels import read_labels
from serving.m3.checkpoint import save_tiny
from training_data.import_m3 import main as import_main
from training_data.readers.by_name import read
from training_data.readers.records import Picture, Problem, Record
from training_data.readers.source import files_in
from training_data.readers.store import Store, folder_at
from training_data.sweep import main
from training_data.sweeping.cluster import Labeller
from training_data.sweeping.labelling import Manner
from training_data.sweeping.recorded import READ_AT_ONCE, Showing, load_batch
from training_data.sweeping.showing import item_of
from training_data.sweeping.table import read_failures


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A bucket of the test's own, and what a client needs to sign with."""
    for name, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "secret"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    (tmp_path / "bucket").mkdir()
    with s3_of(tmp_path / "bucket") as running:
        yield running


@pytest.fixture
def model(tmp_path):
    """A model that answers quickly, and nonsense."""
    m3 = toy_m3()
    save_tiny(tmp_path / "toy", m3.model, toy_config(len(m3.prompt.tokenizer)), m3.prompt.tokenizer, torch.float32)
    return tmp_path / "toy"


def write_own(tmp_path: Path, count: int, s3: S3) -> Path:
    """Pictures in the bucket's folder img, and two questions about each in a table elsewhere."""
    (s3.folder / "img").mkdir()
    rows = []
    for k in range(count):
        (s3.folder / f"img/{k}.png").write_bytes(png(40 + k, 30, "red"))
        rows += [{"picture": f"{k}.png", "question": f"What is this? {q}", "answer": "red"} for q in range(2)]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return data


def sweep(capsys, model: Path, data: Path, images: str, out: Path, *more: str):
    command = ["--read", "own", "--data", str(data), "--images", images, "--out", str(out), "--model", str(model)]
    status = main([*command, "--max-new-tokens", "2", *more])
    said = capsys.readouterr()
    return status, json.loads(said.out.splitlines()[-1]) if status == 0 else said.err


def test_a_sweep_over_a_store_gives_what_one_over_a_disk_gives(tmp_path, capsys, s3, model):
    """The same rows; the store is listed once, and no picture is fetched twice."""
    data = write_own(tmp_path, 4, s3)
    status, report = sweep(capsys, model, data, s3.uri("img"), tmp_path / "far")
    assert status == 0 and report["failures"] == 0 and s3.asked[0] == "list"
    assert sorted(s3.asked[1:]) == [f"img/{k}.png" for k in range(4)]
    assert sweep(capsys, model, data, str(s3.folder / "img"), tmp_path / "near")[0] == 0
    far, near = read_labels(tmp_path / "far"), read_labels(tmp_path / "near")
    for name in ("sample_id", "image_sha256", "question", "score", "mean_logprob"):
        np.testing.assert_array_equal(getattr(far, name), getattr(near, name))


def test_pictures_of_a_batch_are_read_at_once(tmp_path, s3):
    """A store's delay isn't paid for each picture; no more than so many are asked for at a time."""
    data = write_own(tmp_path, 16, s3)
    groups = [[each] for each in read("own", data, Store(s3.uri("img"))) if each.record_id in map(str, range(1, 33, 2))]
    s3.delay_s = 0.2
    reads = SimpleNamespace(image_px=336, prompt=SimpleNamespace(reads=SimpleNamespace(pictures=1)))
    batch = load_batch(groups, reads, "grid")
    assert 2 <= s3.at_once[1] <= READ_AT_ONCE
    assert [item.asked[0].sample_id for item in batch.items] == [each.sample_id for (each,) in groups]


def test_what_is_missing_is_told_with_its_line_and_what_goes_wrong_later_with_the_picture(tmp_path, capsys, s3, model):
    """A picture that was never there, one that may not be read, and a name that leads out; the rest is swept."""
    data = write_own(tmp_path, 2, s3)
    pictures(s3.folder, "secret.png")
    names = ("gone.png", "../secret.png", "/etc/passwd", "s3://elsewhere/a.png")
    rows = [json.dumps({"picture": name, "question": "?", "answer": "x"}) for name in names]
    data.write_text(data.read_text() + "\n".join(rows))
    s3.refused = {"img/1.png"}
    status, report = sweep(capsys, model, data, s3.uri("img"), tmp_path / "labels")
    assert status == 0 and (report["new"], report["failures"]) == (2, 6)
    failures = {each.sample_id or each.line: each for each in read_failures(tmp_path / "labels")}
    for refused in (failures["questions/3"], failures["questions/4"]):
        assert refused.file == "s3://pictures/img/1.png" and "ACCESS_DENIED" in refused.reason
    assert failures[5].reason == "there is no picture 'gone.png' in s3://pictures/img"
    assert all("leads out of s3://pictures/img" in failures[line].reason for line in (6, 7))
    assert failures[8].reason == "there is no picture 's3://elsewhere/a.png' in s3://pictures/img"


def test_a_store_that_refuses_everything_stops_the_sweep_and_it_goes_on_later(tmp_path, capsys, s3, model):
    """Keys that run out must not set aside all that is left."""
    data = write_own(tmp_path, 4, s3)
    given = (capsys, model, data, s3.uri("img"), tmp_path / "labels")
    assert sweep(*given, "--limit", "3")[1]["new"] == 3
    s3.refused = {""}
    status, said = sweep(*given)
    assert status == 2 and "sweep-m3: s3://pictures/img can't be reached: " in said and "Traceback" not in said
    assert read_failures(tmp_path / "labels") == [] and len(read_labels(tmp_path / "labels")) == 3
    s3.refused = set()
    assert sweep(*given)[1]["new"] == 5


def test_an_actor_tells_that_its_store_refuses_it(tmp_path, s3):
    """Ray would wrap the error; what the records' reader ran into is passed on alike."""
    data = write_own(tmp_path, 1, s3)
    groups = [[each] for each in read("own", data, Store(s3.uri("img")))]
    labeller = Labeller(toy_m3, Showing(Manner(max_new_tokens=2)))
    row = {"records": np.array([7]), "problems": np.array([1]), "batches": np.array([3])}
    asked = {**row, "batch": np.array([pickle.dumps(groups)], object), "error": np.array([""])}
    told = labeller(asked)
    rows, failures = pickle.loads(told["kept"][0])
    assert (told["error"], told["records"], told["problems"], told["batches"]) == ([""], [7], [1], [3])
    assert (len(rows), failures) == (2 * 5, [])
    s3.refused = {""}
    told = labeller(asked)
    assert told["kept"] == [b""] and told["error"][0].startswith("s3://pictures/img can't be reached: ")
    told = labeller({**asked, "error": np.array(["the reader's"])})
    assert (told["kept"], told["error"]) == ([b""], ["the reader's"])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://example.com/pictures", "https://example.com/pictures is on the web"),
        ("xyz://key:secret@bucket/x", "xyz://bucket/x can't be opened"),
        ("file:///nowhere", "there is no folder file:///nowhere"),
    ],
)
def test_a_store_that_is_none_is_refused_at_once(tmp_path, uri, message):
    """Before anything is read, and without the keys that stand in its name."""
    (tmp_path / "mine.csv").write_text("picture,question,answer\n")
    with pytest.raises(InvalidInput, match=message) as caught:
        read("own", tmp_path / "mine.csv", Store(uri))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["--out", "--data", "--answers"])
def test_only_pictures_may_lie_in_a_store(capsys, option):
    """A table or questions in one are refused, not looked for on the disk."""
    with pytest.raises(SystemExit):
        main(["--out", "labels", "--read", "own", option, "s3://bucket/x"])
    assert "is in a store, where only --images may be" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in WORLDS if name != "mmbench"])  # whose pictures are in the table
def test_every_reader_finds_its_pictures_in_a_store(name, tmp_path):
    """The same records and problems as from a folder, but for where the pictures are."""
    world: World = WORLDS[name](tmp_path)
    options = {"images": tmp_path, **world.options}
    near = list(read(name, world.path, **options))
    store = Store(f"file://{options['images']}")
    far = list(read(name, world.path, **{**options, "images": store}))
    told = [each.reason.replace("file://", "") if isinstance(each, Problem) else each.sample_id for each in far]
    assert told == [each.reason if isinstance(each, Problem) else each.sample_id for each in near]
    for one, other in zip(near, far, strict=True):
        if isinstance(one, Record):
            assert [each.read() for each in one.pictures] == [each.read() for each in other.pictures]
            assert all(each.data is not None or each.store == store for each in other.pictures)


def test_a_folder_of_a_store_and_a_picture_in_it(tmp_path):
    """Names are taken without detours; a picture that went away since is told, and a video is read like any."""
    pictures(tmp_path, "a/1.png", "a/b/2.png", "top.png")
    store = folder_at(f"file://{tmp_path}/")
    assert isinstance(store, Store) and str(store) == f"file://{tmp_path}" and folder_at("a/b") == Path("a/b")
    assert store.holds("a/b/2.png") and store.holds("top.png") and not store.holds("a") and not store.holds("2.png")
    assert [each.place for each in files_in(store, "a/../a")] == [f"{store}/a/1.png"]
    picture = files_in(store, "a")[0]
    assert pickle.loads(pickle.dumps(picture)) == picture and picture.read() == PNG
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(InvalidInput, match=r"a/1.png can't be read: No such file"):
        picture.read()


def test_a_video_in_a_store_is_shown_as_a_collage(tmp_path):
    """What breaks is told by its name in the store."""
    pytest.importorskip("av", reason="PyAV isn't installed")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (video,) = files_in(Store(f"file://{tmp_path}"), "")
    record = Record("1", "mine", "t", (video,), "What?", ("x",), "exact")
    with pytest.raises(InvalidInput, match=rf"file://{tmp_path}/broken.mp4 can't be read as a video"):
        item_of([record], 336, "grid", 1)


def test_of_many_frames_only_those_that_are_shown_are_read(tmp_path, s3):
    """A video of 60 frames costs six pictures."""
    (s3.folder / "film").mkdir()
    for k in range(60):
        (s3.folder / f"film/{k}.png").write_bytes(png(40, 30, "red"))
    frames = sorted(files_in(Store(s3.uri()), "film"), key=lambda each: int(each.path.stem))
    record = Record("1", "mine", "t", tuple(frames), "What?", ("x",), "exact")
    item_of([record], 336, "grid", 1)
    assert s3.asked[1:] == [f"film/{k}.png" for k in (5, 15, 25, 35, 45, 55)]


def test_a_picture_that_lies_outside_of_its_folder_is_refused_on_a_disk_too(tmp_path):
    """A benchmark's file doesn't say what else is read; a whole path within the folder is a name in it."""
    pictures(tmp_path, "img/in.png", "out.png")
    names = [str(tmp_path / "img/in.png"), "../out.png", str(tmp_path / "out.png"), "x/../in.png"]
    rows = [{"image": name, "question_id": str(k), "text": "?", "answer": "x"} for k, name in enumerate(names)]
    (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    first, second, third, fourth = read("llava", tmp_path / "q.jsonl", tmp_path / "img")
    assert first.pictures == fourth.pictures == (Picture(tmp_path / "img/in.png"),)
    assert all("leads out of" in each.reason for each in (second, third))


def test_results_of_other_tools_are_imported_with_pictures_in_a_store(tmp_path, capsys, s3):
    """`import-m3 --images` takes the same places."""
    data = write_own(tmp_path, 2, s3)
    told = list(read("own", data, s3.folder / "img"))
    for tokens in (1, 576):
        rows = [{"doc_id": k, "target": each.references[0], "input": each.question, "filtered_resps": ["x"],
                 "exact_match": 1.0} for k, each in enumerate(told)]  # fmt: skip
        (tmp_path / f"{tokens}_samples_own.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    runs = [f"--run={tokens}={tmp_path / f'{tokens}_samples_own.jsonl'}" for tokens in (1, 576)]
    command = ["--from", "lmms-eval", *runs, "--read", "own", "--data", str(data), "--images", s3.uri("img")]
    assert import_main([*command, "--model", "m@1", "--out", str(tmp_path / "labels")]) == 0, capsys.readouterr().err
    assert len(read_labels(tmp_path / "labels")) == len(told)
