"""Readers of benchmarks that come as lines of text: DAQUAR and MME."""

import re
from collections.abc import Iterator
from pathlib import Path

from complexity.errors import InvalidInput
from serving.m3.formats import short_answer
from training_data.readers.records import Problem, Record
from training_data.readers.row_files import text_lines
from training_data.readers.source import Row, Source, find_picture, records, shown

_PICTURE = re.compile(r"\s*(?:\b(?:in|on|of)\s+)?(?:\b(?:the|this)\s+)?\b(image\d+)\s*\??\s*$")  # ends a question
_YES_NO = "Please answer yes or no."
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".JPG", ".PNG")


def daquar(source: Source) -> Iterator[Record | Problem]:
    """DAQUAR: a line "what is ... in the image3 ?", the next its answer; tasks: "number" and "thing".

    The picture's name is taken out of the question. Several things that are asked for stand in one answer, with
    commas between them, and are one reference. Rows have no id; theirs is the question's line. Format:
    qa.37.raw.test.txt and the like of the Visual Turing Challenge (Malinowski and Fritz 2014, arXiv 1410.0210).
    """

    def make(row: Row) -> Record:
        asked, answer = row.text("question"), row.text("answer")
        named = _PICTURE.search(asked)
        if named is None or not asked[: named.start()].strip():
            raise InvalidInput(f"the question {shown(asked)} doesn't end in the picture's name, such as image3")
        pictures = find_picture(source.images, *(named[1] + ending for ending in ENDINGS))
        put = short_answer(f"{asked[: named.start()].strip()}?")
        task = "number" if answer.isdigit() else "thing"
        return Record(str(row.line), source.dataset, task, pictures, put, (answer,), "exact")

    yield from records(source, _pairs(source.path), make)


def _pairs(file: Path) -> Iterator[Row | Problem]:
    """Questions with the lines behind them; a line that can't be an answer begins the next pair."""
    asked: tuple[int, str] | None = None
    for each in text_lines(file):
        if isinstance(each, Problem):
            yield each
            asked = None
            continue
        line, text = each
        if _PICTURE.search(text):
            if asked is not None:
                yield Problem(file, asked[0], "there is no answer to the question")
            asked = each
        elif asked is None:
            yield Problem(file, line, f"there is no question to the answer {shown(text)}")
        else:
            yield Row(file, asked[0], {"question": asked[1], "answer": text})
            asked = None
    if asked is not None:
        yield Problem(file, asked[0], "there is no answer to the question")


def mme(source: Source) -> Iterator[Record | Problem]:
    """MME's folder: a folder for each task, with NAME.txt beside the picture NAME.png or .jpg.

    A line of NAME.txt is a question, a tab, and Yes or No. Some tasks have the pictures in images/ and the texts in
    questions_answers_YN/. LLaVA's instruction takes the place of the "Please answer yes or no." that questions end
    in, as in lmms-eval (`lmms_eval/tasks/mme`). Format: MME_Benchmark_release_version of
    BradyFU/Awesome-Multimodal-Large-Language-Models.
    """
    if not source.path.is_dir():
        raise InvalidInput(f"{source.path} is no folder with a folder for each task")
    texts = sorted([*source.path.glob("*/*.txt"), *source.path.glob("*/questions_answers_YN/*.txt")])

    def make(row: Row) -> Record:
        folder = row.file.parent
        split = folder.name == "questions_answers_YN"
        task = (folder.parent if split else folder).name
        label = row.text("answer").lower().rstrip(".")
        if label not in ("yes", "no"):
            raise InvalidInput(f"the answer is {shown(label)}; expected Yes or No")
        beside = f"{task}/images" if split else task
        pictures = find_picture(source.images, *(f"{beside}/{row.file.stem}{ending}" for ending in ENDINGS))
        put = short_answer(row.text("question").removesuffix(_YES_NO).strip())
        name = f"{task}/{row.file.stem}-{row.line}"
        return Record(name, source.dataset, task, pictures, put, (label,), "yes_no")

    yield from records(source, (row for file in texts for row in _questions(file)), make)


def _questions(file: Path) -> Iterator[Row | Problem]:
    """The questions about one picture; a file that can't be read is one problem among many files."""
    try:
        for each in text_lines(file):
            if isinstance(each, Problem):
                yield each
                continue
            question, tab, answer = each[1].rpartition("\t")
            if tab:
                yield Row(file, each[0], {"question": question, "answer": answer})
            else:
                yield Problem(file, each[0], "there is no tab between a question and its answer")
    except InvalidInput as error:
        yield Problem(file, 0, str(error))
