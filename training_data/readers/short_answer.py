"""Readers of benchmarks with short answers that come as JSON: each file's format is the one its authors publish.

Prompts are LLaVA-1.5's (its docs/Evaluation.md): the question, then the instruction to answer in a word or phrase.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from complexity.errors import InvalidInput
from serving.m3.formats import PLACE, short_answer
from training_data.readers.records import Problem, Record
from training_data.readers.row_files import json_entries, json_lines, json_list, listed, load_json
from training_data.readers.source import Row, Source, by_id, find_picture, first, looked_up, records, shown

VIZWIZ_HINT = "When the provided information is insufficient, respond with 'Unanswerable'."
ANSWER_COLUMNS = ("answers", "answer", "label", "text")  # of LLaVA's answer files and those made like them
OCRVQA_SPLITS = {"train": 1, "val": 2, "test": 3}


def llava(source: Source) -> Iterator[Record | Problem]:
    """LLaVA's question files: JSON lines of {"question_id", "image", "text", "category"}.

    "text" is the whole prompt and is put as it stands. The answer comes from a file of JSON lines with "question_id"
    and "answer", "answers", "label" or "text", or from the row's own "answer", "answers" or "label". Scored is
    exactly, a letter as a choice where LLaVA's instruction for that ends the prompt. Format: `model_vqa_loader.py`
    in haotian-liu/LLaVA.
    """
    known: dict[str, Row] = {}
    if source.answers is not None:
        known, problems = by_id(json_lines(source.answers), "question_id")
        yield from problems

    def make(row: Row) -> Record:
        name = row.text("question_id")
        asked = row.text("text").replace(f"{PLACE}\n", "").replace(PLACE, "").strip()
        answer = looked_up(known, name, "answer") if source.answers is not None else row
        columns = ANSWER_COLUMNS if source.answers is not None else ANSWER_COLUMNS[:3]
        column = next((each for each in columns if answer.values.get(each) not in (None, "")), "answer")
        listed = isinstance(answer.values.get(column), list)
        references = answer.texts(column) if listed else (answer.text(column),)
        scorer = "choice" if asked.endswith("from the given choices directly.") else "exact"
        pictures = find_picture(source.images, row.text("image"))
        task = row.optional("category") or source.dataset
        return Record(name, source.dataset, task, pictures, asked, references, scorer)

    yield from records(source, json_lines(source.path), make)


def vqav2(source: Source) -> Iterator[Record | Problem]:
    """VQAv2 and others of its form: {"questions"} in one file, {"annotations"} in another; task: the answer's type.

    Pictures are COCO's, COCO_val2014_000000262148.jpg or 000000262148.jpg. Format: visualqa.org/download.html; also in
    PythonHelperTools/vqaTools/vqa.py of GT-Vision-Lab/VQA.
    """
    answers = source.need_answers("v2_mscoco_val2014_annotations.json")
    known, problems = by_id(json_list(answers, "annotations"), "question_id")
    yield from problems
    whole = load_json(source.path)
    subset = Row(source.path, 0, whole if isinstance(whole, dict) else {}).optional("data_subtype")
    subset = "test2015" if subset.startswith("test") else subset

    def make(row: Row) -> Record:
        name = row.text("question_id")
        answer = looked_up(known, name, "annotation")
        image = f"{row.text('image_id'):0>12}.jpg"
        names = (f"COCO_{subset}_{image}", f"{subset}/COCO_{subset}_{image}", image)
        pictures = find_picture(source.images, *names)
        asked = short_answer(row.text("question"))
        task = answer.optional("answer_type") or source.dataset
        return Record(name, source.dataset, task, pictures, asked, answer.people(), "vqa")

    yield from records(source, listed(source.path, whole, "questions"), make)


def gqa(source: Source) -> Iterator[Record | Problem]:
    """GQA: an object of questions by id, {"imageId", "question", "answer", "types"}; task: the structural type.

    Format: cs.stanford.edu/people/dorarad/gqa/download.html; also in GQA/README.md of leaderj1001/Vision-Language.
    """

    def make(row: Row) -> Record:
        types = Row(row.file, row.line, row.mapping("types"))
        task = types.optional("structural") or source.dataset
        pictures = find_picture(source.images, f"{row.text('imageId')}.jpg")
        asked = short_answer(row.text("question"))
        return Record(row.text("id"), source.dataset, task, pictures, asked, (row.text("answer"),), "exact")

    yield from records(source, json_entries(source.path, "id"), make)


def vizwiz(source: Source) -> Iterator[Record | Problem]:
    """VizWiz-VQA: a list of {"image", "question", "answers": [{"answer"}], "answer_type"}; task: the answer's type.

    Before the usual instruction stands LLaVA-1.5's for questions that can't be answered, as lmms-eval puts it
    (`lmms_eval/tasks/vizwiz_vqa`). Format: vizwiz.org/tasks-and-datasets/vqa; also in mmpretrain/datasets/vizwiz.py of
    open-mmlab/mmpretrain.
    """

    def make(row: Row) -> Record:
        image = row.text("image")
        asked = short_answer(f"{row.text('question')}\n{VIZWIZ_HINT}")
        task = row.optional("answer_type") or source.dataset
        pictures = find_picture(source.images, image)
        return Record(Path(image).stem, source.dataset, task, pictures, asked, row.people(), "vqa")

    yield from records(source, json_list(source.path), make)


def textvqa(source: Source) -> Iterator[Record | Problem]:
    """TextVQA: {"data": [{"question_id", "image_id", "question", "answers"}]}, ten answers each.

    LLaVA's own question file also gives the model what an OCR engine read; this asks about the picture alone.
    Format: textvqa.org/dataset; also in mmpretrain/datasets/textvqa.py of open-mmlab/mmpretrain.
    """

    def make(row: Row) -> Record:
        pictures = find_picture(source.images, f"{row.text('image_id')}.jpg")
        asked = short_answer(row.text("question"))
        name = row.text("question_id")
        return Record(name, source.dataset, source.dataset, pictures, asked, row.people(), "vqa")

    yield from records(source, json_list(source.path, "data"), make)


def ocrvqa(source: Source) -> Iterator[Record | Problem]:
    """OCR-VQA's dataset.json: an object of books, {"imageURL", "questions", "answers", "split"}; "split" is a number.

    A question's id is its book's with the question's place. Pictures are named by the book, with the ending of the
    URL. Format: ocr-vqa.github.io; also in mmpretrain/datasets/ocr_vqa.py of open-mmlab/mmpretrain.
    """
    if source.split is not None and source.split not in OCRVQA_SPLITS:
        raise InvalidInput(f"ocrvqa has no split {source.split!r}; choose one of {', '.join(OCRVQA_SPLITS)}", "split")

    def make(row: Row) -> Record:
        book = row.text("book")
        ending = Path(row.text("imageURL")).suffix or ".jpg"
        pictures = find_picture(source.images, f"{book}{ending}", f"{book}.jpg")
        asked = short_answer(row.text("question"))
        name = f"{book}-{row.text('number')}"
        return Record(name, source.dataset, source.dataset, pictures, asked, (row.text("answer"),), "exact")

    yield from records(source, _questions_of_books(source), make)


def _questions_of_books(source: Source) -> Iterator[Row | Problem]:
    wanted = OCRVQA_SPLITS.get(source.split or "")
    for row in json_entries(source.path, "book"):
        if isinstance(row, Problem):
            yield row
            continue
        if wanted is not None and row.values.get("split") != wanted:
            continue
        questions, answers = row.values.get("questions"), row.values.get("answers")
        if not isinstance(questions, list) or not isinstance(answers, list) or len(questions) != len(answers):
            yield Problem(row.file, row.line, "'questions' and 'answers' are not two lists of the same length")
            continue
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            yield replace(row, values={**row.values, "question": question, "answer": answer, "number": number})


def docvqa(source: Source) -> Iterator[Record | Problem]:
    """DocVQA and InfographicVQA: {"data": [{"questionId", "question", "image" or "image_local_name", "answers"}]}.

    Task: the first of "question_types" or "answer_type", which the files "withQT" have. Format: the single page task
    and InfographicVQA at rrc.cvc.uab.es (ch=17); also src/datasets/vqa/doc_vqa.py of chu0802/MLLM-playground and the
    card of the dataset lmms-lab/DocVQA.
    """

    def make(row: Row) -> Record:
        image = row.optional("image_local_name") or row.text("image")
        pictures = find_picture(source.images, image, Path(image).name)
        task = first(row, "question_types", first(row, "answer_type", source.dataset))
        asked = short_answer(row.text("question"))
        return Record(row.text("questionId"), source.dataset, task, pictures, asked, row.texts("answers"), "anls")

    yield from records(source, json_list(source.path, "data"), make)


def chartqa(source: Source) -> Iterator[Record | Problem]:
    """ChartQA: lists of {"imgname", "query", "label"}; tasks: "human" and "augmented", from the files' names.

    Takes such a file or the folder of a split, with test_human.json, test_augmented.json and the charts in png/.
    Rows have no id; theirs is the task with the place in the file. Format: "ChartQA Dataset/test" of vis-nlp/ChartQA.
    """
    files = _files(source.path, "*_human.json", "*_augmented.json")
    if not files:
        raise InvalidInput(f"{source.path} holds neither *_human.json nor *_augmented.json")

    def make(row: Row) -> Record:
        task = "human" if row.file.stem.endswith("human") else "augmented"
        image = row.text("imgname")
        pictures = find_picture(source.images, f"png/{image}", image)
        asked = short_answer(row.text("query"))
        name = f"{task}-{row.line}"
        return Record(name, source.dataset, task, pictures, asked, (row.text("label"),), "relaxed")

    yield from records(source, (row for file in files for row in json_list(file)), make)


def pope(source: Source) -> Iterator[Record | Problem]:
    """POPE: JSON lines of {"question_id", "image", "text", "label"}; tasks: random, popular and adversarial.

    Takes one file or the folder of the three, coco_pope_random.json and so on; the task is the end of the name and
    part of the id, as each file counts from 1. Format: README.md of AoiDragon/POPE. LLaVA's scripts take an older
    version, whose random file has 2,910 lines instead of 3,000.
    """
    files = _files(source.path, "*_pope_*.json", "*_pope_*.jsonl")
    if not files:
        raise InvalidInput(f"{source.path} holds no files like coco_pope_random.json")

    def make(row: Row) -> Record:
        task = row.file.stem.rsplit("_", 1)[-1]
        return _yes_no(source, row, f"{task}-{row.text('question_id')}", task)

    yield from records(source, (row for file in files for row in json_lines(file)), make)


def _yes_no(source: Source, row: Row, name: str, task: str) -> Record:
    label = row.text("label").lower()
    if label not in ("yes", "no"):
        raise InvalidInput(f"'label' is {shown(label)}; expected yes or no")
    pictures = find_picture(source.images, row.text("image"))
    return Record(name, source.dataset, task, pictures, short_answer(row.text("text")), (label,), "yes_no")


def _files(path: Path, *patterns: str) -> list[Path]:
    """The file itself, or those of a folder that fit."""
    if not path.is_dir():
        return [path]
    return sorted({file for pattern in patterns for file in path.glob(pattern)})
