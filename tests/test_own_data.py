"""The readers `own` and `datasets`: what one's own table may look like, and what is wrong with a row."""

import base64
import json
import tracemalloc

import pytest
from benchmark_files import FRUIT, LETTER, PNG, pictures

from complexity.errors import InvalidInput
from training_data.readers.by_name import read
from training_data.readers.records import Picture, Problem, Record
from training_data.readers.row_files import json_lines
from training_data.readers.source import Row

INSIDE = base64.b64encode(PNG).decode()


def csv_of(folder, *rows, head="picture,question,answer"):
    pictures(folder, "cup.png")
    (folder / "mine.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    return list(read("own", folder / "mine.csv"))


def row_of(folder, **row):
    pictures(folder, "cup.png")
    content = {"picture": "cup.png", "question": "Which?", "answer": "B", **row}
    (folder / "mine.jsonl").write_text(json.dumps(content))
    (found,) = read("own", folder / "mine.jsonl")
    return found


def test_the_documented_table_is_read(tmp_path):
    """Parts of answers and options are between bars in a table; the rest is the same as in JSON lines."""
    head = "picture,question,answers,options,task,id,scorer"
    found = csv_of(
        tmp_path,
        "cup.png,What is it?,cup|mug,,things,one,vqa",
        'cup.png,"Which, then?",pear,apple|pear,,,',
        head=head,
    )
    cup = (Picture(path=tmp_path / "cup.png"),)
    assert found == [
        Record("one", "mine", "things", cup, "What is it?", ("cup", "mug"), "vqa"),
        Record("3", "mine", "mine", cup, f"Which, then?{FRUIT}{LETTER}", ("B",), "choice", ("apple", "pear")),
    ]


def test_one_answer_may_hold_a_bar(tmp_path):
    """Only the columns for several texts are parted."""
    (found,) = csv_of(tmp_path, "cup.png,What does it say?,a|b")
    assert found.references == ("a|b",)


def test_a_table_in_another_spelling_is_the_same(tmp_path):
    """A byte order mark, Windows' line ends, tabs and blank rows change nothing."""
    expected = csv_of(tmp_path, "cup.png,What is it?,cup")
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbfpicture,question,answer\r\ncup.png,What is it?,cup\r\n\r\n")
    assert list(read("own", tmp_path / "mine.csv")) == expected
    (tmp_path / "mine.tsv").write_text("picture\tquestion\tanswer\ncup.png\tWhat is it?\tcup\n")
    assert list(read("own", tmp_path / "mine.tsv")) == expected
    (tmp_path / "mine.jsonl").write_bytes(
        b'\xef\xbb\xbf\r\n{"picture": "cup.png", "question": "What is it?", "answer": "cup"}\r\n'
    )
    assert list(read("own", tmp_path / "mine.jsonl")) == expected


def test_pictures_may_lie_elsewhere_or_in_the_row(tmp_path):
    """A name is looked for in the pictures' folder, then beside the table; base64 needs no file."""
    (tmp_path / "other").mkdir()
    pictures(tmp_path, "cup.png", "other/cup.png", "beside.png")
    rows = [{"picture": each, "question": "?", "answer": "x"} for each in ("cup.png", "beside.png", INSIDE)]
    rows.append({"picture": f"data:image/png;base64,{INSIDE}", "question": "?", "answer": "x"})
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [each.pictures[0] for each in read("own", tmp_path / "mine.jsonl", tmp_path / "other")]
    inside = Picture(data=PNG)
    assert found == [Picture(tmp_path / "other/cup.png"), Picture(tmp_path / "beside.png"), inside, inside]


def test_a_picture_in_a_table_may_be_large(tmp_path):
    """Fields are not held to the 128 KB of Python's csv; a picture of a megabyte is read."""
    picture = PNG + b"\0" * (1 << 20)
    (found,) = csv_of(tmp_path, f"{base64.b64encode(picture).decode()},What is it?,cup")
    assert found.pictures == (Picture(data=picture),)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("b", ["apple", "pear"], "B"),
        ("(a)", ["apple", "pear"], "A"),
        ("B.", ["apple", "pear"], "B"),
        ("PEAR", ["apple", "pear"], "B"),
        (2, [1, 2, 3], "B"),
        ("B", ["A", "B"], "B"),
        ("B", ["B", "A"], "names several of the options"),
        ("pear", ["pear", "Pear"], "names several of the options"),
        ("C", ["apple", "pear"], "is no letter and no text of an option"),
        ("plum", ["apple", "pear"], "is no letter and no text of an option"),
    ],
)
def test_a_choice_is_named_by_letter_or_text(tmp_path, answer, options, letter):
    """An answer that fits two options, or none, is a problem."""
    found = row_of(tmp_path, answer=answer, options=options)
    if isinstance(found, Record):
        assert (found.references, found.scorer) == ((letter,), "choice")
    else:
        assert letter in found.reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"options": ["apple"]}, "1 options to choose from"),
        ({"options": [str(k) for k in range(27)], "answer": "5"}, "27 options to choose from"),
        ({"scorer": "choice"}, "0 options"),
        ({"scorer": "exact", "options": ["apple", "pear"]}, "only a choice has some"),
        ({"question": "\ud800"}, "not UTF-8"),
        ({"question": " "}, "'question' is empty"),
        ({"picture": ""}, "'picture' is empty"),
        ({"picture": None}, "'picture' holds no picture"),
        ({"picture": ["cup.png", 7]}, "'picture' holds no picture"),
        ({"picture": "x" * 5000}, "no picture 'xxx"),
        ({"picture": "a\0b"}, "no picture"),
        ({"picture": "data:image/png;base64,"}, "'picture' is empty"),
        ({"picture": "iVBOR!"}, "not base64"),
        ({"answer": {"a": 1}}, "'answer' is {'a': 1}; expected a text"),
        ({"answer": [None]}, "'answer' is missing"),
        ({"answer": float("nan")}, "'answer' is nan"),
        ({"id": [1]}, "'id' is [1]"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(tmp_path, row, reason):
    """Each kind of bad row is one problem with its value."""
    found = row_of(tmp_path, **row)
    assert isinstance(found, Problem)
    assert reason in found.reason
    assert found.line == 1


def test_bad_lines_are_passed_over(tmp_path):
    """Lines that aren't JSON, UTF-8 or objects, and rows with too many fields, are told; the others are read."""
    pictures(tmp_path, "cup.png")
    good = b'{"picture": "cup.png", "question": "What is it?", "answer": "cup"}\n'
    (tmp_path / "mine.jsonl").write_bytes(
        good + b"{\n" + b'{"question": "\xff"}\n' + b"7\n" + b"[" * 9999 + b"\n" + good
    )
    found = list(read("own", tmp_path / "mine.jsonl"))
    assert [each.line if isinstance(each, Problem) else "good" for each in found] == ["good", 2, 3, 4, 5, "good"]
    (tmp_path / "mine.csv").write_bytes(
        b"picture,question,answer\ncup.png,\xff,cup\ncup.png,a,b,c\ncup.png,What?,cup\n"
    )
    found = list(read("own", tmp_path / "mine.csv"))
    assert [each.line if isinstance(each, Problem) else "good" for each in found] == [2, 3, "good"]


def test_lines_of_rows_are_where_they_begin(tmp_path):
    """A field over several lines counts by its first."""
    found = csv_of(tmp_path, 'cup.png,"two\nlines",cup', "gone.png,What?,cup")
    assert [each.line for each in found if isinstance(each, Problem)] == [4]


def test_an_unclosed_quote_ends_with_the_file(tmp_path):
    """It swallows the rows behind it, which is told as one row with too few fields."""
    found = csv_of(tmp_path, "cup.png,What?,cup", 'cup.png,"What?,cup', "cup.png,What?,cup")
    assert [type(each) for each in found] == [Record, Problem]
    assert found[1].line == 3


def test_columns_are_checked_before_rows(tmp_path):
    """A missing column is an error that lists the columns; one too many is told once; two of a name are an error."""
    with pytest.raises(InvalidInput, match="no column 'picture'; its columns are 'image, question'"):
        csv_of(tmp_path, "cup.png,What?", head="image,question")
    with pytest.raises(InvalidInput, match="two columns 'answer'"):
        csv_of(tmp_path, "cup.png,What?,a,b", head="picture,question,answer,answer")
    found = csv_of(tmp_path, "cup.png,What?,cup,me", "cup.png,Who?,cup,me", head="picture,question,answer,by")
    assert [each.reason[:19] for each in found if isinstance(each, Problem)] == ["'by' is no column o"]
    assert sum(isinstance(each, Record) for each in found) == 2
    with pytest.raises(InvalidInput, match=r"own data is a \.csv, \.tsv or \.jsonl file"):
        (tmp_path / "mine.xlsx").write_text("")
        next(read("own", tmp_path / "mine.xlsx"))


def test_ids_come_once(tmp_path):
    """Of two rows with an id the first is a record."""
    found = csv_of(tmp_path, "cup.png,What?,cup,a", "cup.png,Who?,cup,a", head="picture,question,answer,id")
    assert isinstance(found[0], Record)
    assert found[1] == Problem(tmp_path / "mine.csv", 3, "the id 'a' was there before")


def test_a_line_without_end_fits_the_memory(tmp_path):
    """A line beyond the limit is passed over in pieces, and the next one is read."""
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "' + b"x" * 1000 + b'"}\n{"a": 1}\n' + b"y" * 100)
    first, second, third = json_lines(tmp_path / "a.jsonl", 100)
    assert isinstance(first, Problem) and first.reason == "the line is longer than 100 bytes"
    assert second == Row(tmp_path / "a.jsonl", 2, {"a": 1})
    assert isinstance(third, Problem) and third.line == 3


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_tables_are_streamed(tmp_path, ending):
    """Reading a file takes a fraction of its size."""
    pictures(tmp_path, "cup.png")
    question = "What is it? " * 200
    with (tmp_path / f"mine{ending}").open("w") as file:
        file.write("picture,question,answer\n" if ending == ".csv" else "")
        for _ in range(5000):
            row = {"picture": "cup.png", "question": question, "answer": "cup"}
            file.write(f"cup.png,{question},cup\n" if ending == ".csv" else f"{json.dumps(row)}\n")
    tracemalloc.start()
    assert sum(isinstance(each, Record) for each in read("own", tmp_path / f"mine{ending}")) == 5000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000 < (tmp_path / f"mine{ending}").stat().st_size / 5
