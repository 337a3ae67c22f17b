"""Readers of Hugging Face datasets and Parquet files: MMMU, MathVista, own ones."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_files import LETTER, PNG, SHORT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from complexity.errors import InvalidInput
from training_data.readers.by_name import read
from training_data.readers.records import Picture, Problem, Record

PICTURE = {"bytes": PNG, "path": None}
ENCODED = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MMMU = [
    {
        "id": "validation_Basic_Medical_Science_1",
        "question": "Compare <image 2> with <image 1>.",
        "options": "['larger', 'see <image 3>']",
        "answer": "B",
        "question_type": "multiple-choice",
        "image_1": {"bytes": PNG + b"1", "path": "1.png"},
        "image_2": {"bytes": PNG + b"2", "path": "2.png"},
        "image_3": {"bytes": PNG + b"3", "path": "3.png"},
    },
    {"id": "validation_Math_2", "question": "<image 1> How many?", "answer": "1,024", "question_type": "open"},
    {"id": "validation_Art_3", "question": "Who?", "answer": "['Monet', 'Claude Monet']", "question_type": "open"},
    {"id": "validation_Art_4", "question": "<image 2> Who?", "answer": "Monet", "question_type": "open"},
    {
        "id": "validation_Art_5",
        "question": "<image 1> Who?",
        "options": "[",
        "answer": "A",
        "question_type": "multiple-choice",
    },
]


def mmmu_rows() -> list[dict]:
    blank = {"options": "[]", "image_1": PICTURE, "image_2": None, "image_3": None}
    return [{**blank, **row} for row in MMMU]


def columns(rows, encoded=()) -> pa.Table:
    names = list(rows[0])
    arrays = [pa.array([row[name] for row in rows], ENCODED if name in encoded else None) for name in names]
    return pa.table(arrays, names)


@pytest.fixture
def mmmu(tmp_path):
    """Two subjects' files, as the hub has them, and one of another split."""
    table = columns(mmmu_rows(), ("image_1", "image_2", "image_3"))
    for subject, rows in (("Art", table.slice(2)), ("Math", table.slice(0, 2))):
        (tmp_path / subject).mkdir()
        pq.write_table(rows, tmp_path / subject / "validation-00000-of-00001.parquet")
        pq.write_table(rows, tmp_path / subject / "dev-00000-of-00001.parquet")
    return tmp_path


def test_mmmu_has_its_pictures_in_order(mmmu):
    """A question's pictures come by number wherever they are named; subjects are tasks; the default is validation."""
    found = list(read("mmmu", mmmu))
    records = {each.record_id: each for each in found if isinstance(each, Record)}
    assert len(records) == 3
    several = records["validation_Basic_Medical_Science_1"]
    assert several.pictures == tuple(Picture(data=PNG + bytes([digit])) for digit in b"123")
    asked = f"Compare <image 2> with <image 1>.\nA. larger\nB. see <image 3>{LETTER}"
    assert (several.question, several.references, several.scorer) == (asked, ("B",), "choice")
    assert several.task == "Basic_Medical_Science"
    number, text = records["validation_Math_2"], records["validation_Art_3"]
    assert (number.question, number.references, number.scorer) == (f"<image 1> How many?{SHORT}", ("1,024",), "exact")
    assert (text.references, text.scorer) == (("Monet", "Claude Monet"), "contains")
    assert text.pictures == (Picture(data=PNG),)  # the first, where the question names none


def test_rows_of_mmmu_that_can_not_be_used_are_told(mmmu):
    """A picture that is named and isn't there, and options that are no list."""
    problems = [each for each in read("mmmu", mmmu) if isinstance(each, Problem)]
    assert [(each.file.parent.name, each.line, each.reason) for each in problems] == [
        ("Art", 2, "'image_2' holds no picture"),
        ("Art", 3, "'options' is '['; expected a list"),
    ]


def test_mmmu_is_read_from_one_file_and_from_saved_datasets(mmmu, tmp_path):
    """The same records, however the library or the hub laid them out."""
    expected = [each for each in read("mmmu", mmmu) if isinstance(each, Record)]
    table = columns(mmmu_rows(), ("image_1", "image_2", "image_3"))
    pq.write_table(table, tmp_path / "all.parquet")
    features = datasets.Dataset(table).features | {f"image_{k}": datasets.Image() for k in (1, 2, 3)}
    saved = datasets.Dataset(table).cast(datasets.Features(features))
    datasets.DatasetDict({"validation": saved, "dev": saved}).save_to_disk(tmp_path / "saved")
    saved.save_to_disk(tmp_path / "one")
    for path in (tmp_path / "all.parquet", tmp_path / "saved", tmp_path / "one"):
        found = [each for each in read("mmmu", path) if isinstance(each, Record)]
        assert sorted(found, key=lambda each: each.record_id) == sorted(expected, key=lambda each: each.record_id)


def test_mathvista_is_read_from_parquet(tmp_path):
    """The hub's files hold the picture; the path in them is the original's and not needed."""
    row = {"pid": "7", "question": "How many?", "image": "images/7.jpg", "decoded_image": PICTURE, "choices": None}
    row |= {"unit": None, "precision": 0.0, "answer": "3", "question_type": "free_form", "answer_type": "integer"}
    row["metadata"] = {"task": "figure question answering"}
    pq.write_table(columns([row], ("decoded_image",)), tmp_path / "testmini-00000-of-00001.parquet")
    (record,) = read("mathvista", tmp_path, split="testmini")
    assert isinstance(record, Record)
    assert record.pictures == (Picture(data=PNG),)
    assert record.question == "How many?\nAnswer the question using a single integer number."
    assert (record.references, record.task) == (("3",), "figure question answering")


def test_columns_of_a_saved_dataset_are_named(tmp_path):
    """Any dataset with a picture, a question and an answer can be read once its columns are named."""
    rows = [
        {"image": PICTURE, "q": "What is it?", "a": ["cup", "mug"], "kind": "thing"},
        {"image": None, "q": "What is it?", "a": ["cup"], "kind": "thing"},
        {"image": PICTURE, "q": "What is it?", "a": [], "kind": "thing"},
    ]
    table = columns(rows, ("image",))
    features = datasets.Dataset(table).features | {"image": datasets.Image()}
    datasets.Dataset(table).cast(datasets.Features(features)).save_to_disk(tmp_path / "mine")
    named = {"picture": "image", "question": "q", "answers": "a", "task": "kind"}
    found = list(read("datasets", tmp_path / "mine", columns=named))
    assert found[0] == Record("1", "mine", "thing", (Picture(data=PNG),), "What is it?", ("cup", "mug"), "exact")
    assert [(each.line, each.reason) for each in found[1:] if isinstance(each, Problem)] == [
        (2, "'picture' holds no picture"),
        (3, "'answers' is []; expected a list of texts"),
    ]
    with pytest.raises(InvalidInput, match="no column 'text'; its columns are 'image, q, a, kind'"):
        next(read("datasets", tmp_path / "mine", columns={"question": "text"}))


def test_splits_and_files_that_are_not_there_are_named(mmmu, tmp_path):
    """Neither a split that nobody saved nor a folder without data is an empty dataset."""
    with pytest.raises(InvalidInput, match="no Parquet files of the split 'test'"):
        next(read("mmmu", mmmu, split="test"))
    datasets.DatasetDict({"dev": datasets.Dataset(pa.table({"id": ["1"]}))}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InvalidInput, match="no split 'validation'; choose one of dev"):
        next(read("mmmu", tmp_path / "saved"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_saved_dataset_is_refused_or_read(tmp_path, data):
    """Whatever becomes of the texts beside saved data, the only error is InvalidInput."""
    folder = tmp_path / "mine"
    if not folder.exists():
        table = columns([{"picture": PICTURE, "question": "What?", "answer": "cup"}], ("picture",))
        datasets.Dataset(table).save_to_disk(folder)
    file = folder / data.draw(st.sampled_from(["dataset_info.json", "state.json"]))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    put = data.draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"null", b"[]", b"{}", b'"', b"-1", b"[" * 2000]))
    )
    try:
        file.write_bytes(content[:start] + put + content[start + data.draw(st.integers(0, 40)) :])
        try:
            found = list(read("datasets", folder))
        except InvalidInput:
            return
        assert all(isinstance(each, Record | Problem) for each in found)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("cut", [0, 1, 4, 40, 200])
def test_a_parquet_file_that_breaks_off_is_refused(mmmu, cut):
    """A download that didn't end is one plain error."""
    file = mmmu / "Art" / "validation-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[: cut or None] if cut else b"")
    with pytest.raises(InvalidInput, match=r"validation-00000-of-00001\.parquet can't be read"):
        list(read("mmmu", mmmu))
