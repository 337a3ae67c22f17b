"""Records of one's own, swept: two readers that the tests own give them, from a folder of drawn pictures."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from doubles import png
from PIL import Image

from complexity.errors import InvalidInput, LabelTableError
from complexity.labels import read_labels
from complexity.sample import Sample
from serving.m3 import GenerateRequest, load
from training_data.drawn.corpus import draw_item
from training_data.readers.records import Picture, Problem, Record
from training_data.sweep import main
from training_data.sweeping.by_picture import WINDOW_RECORDS, batches, by_picture, distinct, part_of
from training_data.sweeping.showing import item_of
from training_data.sweeping.table import FAILURES, read_failures


def record(number, path, question="What color is the background?", references=("red",), scorer="exact", **more):
    pictures = more.pop("pictures", (Picture(path=path),))
    return Record(str(number), "mine", more.pop("task", "colour"), pictures, question, references, scorer, **more)


def write_pictures(folder: Path, count: int) -> list[list[Record]]:
    """Drawn pictures, each with its questions as records."""
    folder.mkdir()
    groups = []
    for index in range(count):
        item = draw_item("test", 3, index, 3)
        path = folder / f"{index}.png"
        path.write_bytes(item.png)
        asked = enumerate(item.questions)
        groups.append([record(f"{index}-{k}", path, q.text, (q.answer,), task=q.family) for k, q in asked])
    return groups


def reading(told):
    """A reader that gives these, whatever it is asked to read."""
    return lambda name, path, images: iter(told)


def sweep(capsys, told, out, *more):
    """Exit status, and the last line's report."""
    status = main(["--read", "mine", "--data", str(out.parent / "data"), "--out", str(out), *more], reading(told))
    said = capsys.readouterr()
    return status, json.loads(said.out.splitlines()[-1]) if status == 0 else said.err


def test_rows_are_what_the_model_says_and_how_the_record_scores_it(tmp_path, capsys):
    """Each answer is m3-tiny's own about that picture, judged by the record's scorer; parting is left to training."""
    groups = write_pictures(tmp_path / "pictures", 3)
    told = [each for group in groups for each in group]
    choose = record("choice", told[0].pictures[0].path, "What color is the background?", ("A",), "choice")
    told.append(Record(**{**vars(choose), "options": ("red", "blue", "green", "yellow")}))
    status, report = sweep(capsys, told, tmp_path / "labels")
    assert status == 0 and report["new"] == report["records"] == len(told) and report["failures"] == 0
    table = read_labels(tmp_path / "labels")
    assert set(table.sample_id) == {each.sample_id for each in told} and set(table.split) == {""}
    m3 = load()
    for each in (told[1], told[-1]):
        row = list(table.sample_id).index(each.sample_id)
        sample = Sample(each.pictures[0].read(), each.question, m3.image_px)
        assert table.image_sha256[row] == sample.image_sha256 and table.task[row] == each.task
        np.testing.assert_array_equal(table.image_features[row], sample.image_features)
        (picture,) = m3.encode([sample.picture])
        for rung, tokens in enumerate(m3.ladder):
            (said,) = m3.generate([GenerateRequest(each.question, (picture,), tokens, 32)])
            assert table.mean_logprob[row, rung] == pytest.approx(said.mean_logprob, abs=1e-3)
            right = said.text == each.references[0] if each.scorer == "exact" else said.text == each.options[0]
            assert table.score[row, rung] == float(right)
    assert (table.score == 1).any()


def test_what_cannot_be_asked_is_set_aside_once_and_the_rest_is_swept(tmp_path, capsys):
    """Each failure says which sample or row and why; another run neither repeats nor loses them."""
    (good, *_), *_ = write_pictures(tmp_path / "pictures", 1)
    (tmp_path / "text.png").write_text("not a picture")
    path = good.pictures[0].path
    told = [
        Problem(tmp_path / "data", 7, "no question in it"),
        good,
        record("gone", tmp_path / "gone.png"),
        record("broken", tmp_path / "text.png"),
        record("long", path, "Is it red? " * 2000),
        record("marked", path, "What is <image>?"),
        record("empty", path, " "),
        record("unjudged", path, references=()),
        record("bleu", path, scorer="bleu"),
        good,
    ]
    out = tmp_path / "labels"
    status, report = sweep(capsys, told, out)
    assert status == 0 and (report["records"], report["new"], report["failed"]) == (8, 1, 9)
    failures = {each.sample_id or each.line: each for each in read_failures(out)}
    assert list(read_labels(out).sample_id) == [good.sample_id]
    expected = {
        7: "no question in it",
        0: f"{good.sample_id} came before",
        "mine/gone": "gone.png can't be read: No such file",
        "mine/broken": "not a picture",
        "mine/long": "the model's context holds",
        "mine/marked": "<image>",
        "mine/empty": "the question is empty",
        "mine/unjudged": "no right answer",
        "mine/bleu": "no scorer 'bleu'",
    }
    assert set(failures) == set(expected)
    for key, reason in expected.items():
        assert reason in failures[key].reason
    assert failures["mine/broken"].file == str(tmp_path / "text.png") and failures[7].file == str(tmp_path / "data")
    kept = {file: file.read_bytes() for file in [*out.glob("*.parquet"), *(out / FAILURES).iterdir()]}
    status, report = sweep(capsys, told, out)
    assert (report["new"], report["failed"], report["failures"]) == (0, 0, 9)
    assert kept == {file: file.read_bytes() for file in [*out.glob("*.parquet"), *(out / FAILURES).iterdir()]}


@pytest.mark.long
def test_killed_and_started_again_nothing_is_lost_or_doubled(tmp_path):
    """Killed in mid-run, a sweep keeps its finished batches; started again it has every sample and failure once."""
    write_pictures(tmp_path / "pictures", 60)
    out = tmp_path / "labels"
    script = (
        "import sys; from pathlib import Path; from test_sweep_records import read_folder; "
        "from training_data.sweep import main; sys.exit(main(read=read_folder))"
    )
    command = [sys.executable, "-c", script, "--read", "folder", "--data", str(tmp_path / "pictures")]
    command += ["--out", str(out)]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parent)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.parquet")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    report = json.loads(ended.stdout.splitlines()[-1])
    table = read_labels(out)  # refuses duplicates and missing scales
    told = list(read_folder("folder", tmp_path / "pictures", None))
    gone = [each.sample_id for each in told if each.record_id.endswith("-gone")]
    assert set(table.sample_id) == {each.sample_id for each in told} - set(gone)
    assert sorted(failure.sample_id for failure in read_failures(out)) == sorted(gone) and report["new"] < len(table)
    assert all((out / name).stat().st_mtime_ns == written for name, written in kept.items())
    lines = [line for file in (out / FAILURES).glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == len(gone)


def read_folder(name, path, images):
    """Three questions about each of a folder's pictures, and every tenth picture that is gone."""
    for index, picture in enumerate(sorted(path.glob("*.png"))):
        for k in range(3):
            yield record(f"{index}-{k}", picture, f"What color is the background? {k}")
        if index % 10 == 0:
            yield record(f"{index}-gone", path / f"gone-{index}.png")


def test_limit_and_shards_part_the_records_exactly(tmp_path, capsys):
    """The parts of the first ten records are disjoint and make up the ten, and a picture is in one part."""
    groups = write_pictures(tmp_path / "pictures", 5)
    told = [group[k] for k in range(3) for group in groups if k < len(group)]
    parts = []
    for part in ("1/3", "2/3", "3/3"):
        out = tmp_path / part.replace("/", "of")
        status, report = sweep(capsys, told, out, "--limit", "10", "--shard", part)
        assert status == 0
        parts.append(list(read_labels(out).sample_id) if report["new"] else [])
    assert sorted(sum(parts, [])) == sorted(each.sample_id for each in told[:10])
    pictures = [{name.split("-")[0] for name in part} for part in parts]
    assert sum(len(each) for each in pictures) == len(set.union(*pictures))


def test_parts_do_not_depend_on_where_the_pictures_lie():
    """Machines that mount the pictures elsewhere agree in the parts."""

    def parts(root):
        told = [record(k, root / f"{k % 40}.png") for k in range(100)] + [Problem(root, k, "?") for k in range(9)]
        whole = [list(part_of(told, None, (i, 4), root)) for i in (1, 2, 3, 4)]
        return [[each.record_id if isinstance(each, Record) else each.line for each in part] for part in whole]

    first, second = parts(Path("/data/a")), parts(Path("/mnt/b"))
    assert first == second and all(first)
    assert sorted(map(str, sum(first, []))) == sorted(map(str, [*range(100), *range(9)]))


def test_questions_about_a_picture_come_together_and_memory_stays_bounded(tmp_path):
    """Of a long stream no more than a window is read before the first picture comes out."""
    read = []

    def stream():
        for k in range(20_000):
            read.append(k)
            yield record(k, tmp_path / f"{k % 100}.png")

    groups = by_picture(stream(), tmp_path)
    first = next(groups)
    assert len(read) == WINDOW_RECORDS and [each.record_id for each in first[:2]] == ["0", "100"]
    sizes = [(len(batch), sum(map(len, batch))) for batch in batches([first, *groups])]
    assert sum(asked for _, asked in sizes) == 20_000 and max(sizes, key=lambda size: size[1])[1] <= 64
    assert max(pictures for pictures, _ in sizes) <= 16


def test_a_sample_that_comes_twice_is_taken_once(tmp_path):
    """The second is a problem that names it."""
    first, second = distinct([record(1, tmp_path / "a"), record(1, tmp_path / "b")], tmp_path / "data")
    assert isinstance(first, Record) and "mine/1 came before" in second.reason


def test_frames_become_one_picture_and_other_pictures_may_stay_apart(tmp_path, capsys):
    """m3-tiny reads one picture: a grid of frames is one; two apart are set aside with the reason."""
    for name in ("red", "blue"):
        (tmp_path / f"{name}.png").write_bytes(png(60, 30, name))
    pictures = tuple(Picture(path=tmp_path / f"{name}.png") for name in ("red", "blue"))
    told = [record("both", None, pictures=pictures)]
    status, report = sweep(capsys, told, tmp_path / "grid")
    assert (status, report["new"]) == (0, 1)
    (shown,) = item_of(told, 336, "grid", 1).pictures
    assert shown.size == (120, 30) and shown.getpixel((5, 5)) == (255, 0, 0) and shown.getpixel((65, 5)) == (0, 0, 255)
    status, report = sweep(capsys, told, tmp_path / "apart", "--several", "apart")
    assert (report["new"], report["failed"]) == (0, 1)
    assert read_failures(tmp_path / "apart")[0].reason == "2 pictures; the model reads at most 1"
    assert len(item_of(told, 336, "apart", None).pictures) == 2


def test_a_video_is_shown_as_a_collage(tmp_path):
    """A record's single picture may be a video file."""
    av = pytest.importorskip("av", reason="PyAV isn't installed")
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "gray"
        for shade in range(0, 240, 20):
            frame = av.VideoFrame.from_ndarray(np.full((36, 64), shade, np.uint8), "gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    item = item_of([record("film", tmp_path / "film.mkv")], 336, "grid", 1)
    assert item.pictures[0].size == (128, 108) and item.pictures[0].getpixel((70, 5)) == (60, 60, 60)
    with pytest.raises(InvalidInput, match="can't be read as a video"):
        (tmp_path / "broken.mp4").write_bytes(b"no video")
        item_of([record("broken", tmp_path / "broken.mp4")], 336, "grid", 1)


def test_pictures_that_came_inside_another_file_are_swept(tmp_path, capsys):
    """Bytes in the place of a path; two records with the same bytes share the picture."""
    data = png(40, 40, "green")
    told = [record(k, None, f"What color is it? {k}", pictures=(Picture(data=data),)) for k in range(2)]
    assert [len(group) for group in by_picture(told, tmp_path)] == [2]
    status, report = sweep(capsys, told, tmp_path / "labels")
    assert (status, report["new"]) == (0, 2) and len(set(read_labels(tmp_path / "labels").image_sha256)) == 1


def test_answers_got_otherwise_do_not_mix(tmp_path, capsys):
    """A table of answers of another length is not added to."""
    told = write_pictures(tmp_path / "pictures", 1)[0]
    assert sweep(capsys, told[:1], tmp_path / "labels")[0] == 0
    status, said = sweep(capsys, told, tmp_path / "labels", "--max-new-tokens", "8")
    assert status == 2 and "records-2-8" in said
    (tmp_path / "labels" / FAILURES).mkdir()
    (tmp_path / "labels" / FAILURES / "x.jsonl").write_text("{}\n")
    with pytest.raises(LabelTableError, match="x.jsonl doesn't hold what a sweep set aside"):
        read_failures(tmp_path / "labels")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "3/2"], "--shard '3/2' is not a part such as 2/8"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["--max-new-tokens", "-1"], "--max-new-tokens -1 must be at least 1"),
        (["--actors", "0"], "--actors 0 must be at least 1"),
        (["--actors", "2", "--gpus-per-actor", "1"], "--gpus-per-actor 1 needs --device cuda"),
        (["--actors", "1", "--address", "ray://head:10001"], "--address ray://head:10001 is not HOST:PORT or auto"),
        ([], "data holds no record"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(tmp_path, capsys, more, message):
    """Wrong options, and data without a record."""
    status, said = sweep(capsys, [], tmp_path / "labels", *more)
    assert status == 2 and message in said and "Traceback" not in said


def test_a_picture_of_any_mode_is_read(tmp_path, capsys):
    """As the service reads it: upright and RGB."""
    Image.new("LA", (30, 20), (0, 0)).save(tmp_path / "grey.png")
    item = item_of([record("grey", tmp_path / "grey.png")], 336, "grid", 1)
    assert item.pictures[0].mode == "RGB" and item.pictures[0].getpixel((1, 1)) == (255, 255, 255)
