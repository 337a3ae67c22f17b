"""Readers of multiple-choice benchmarks: ScienceQA, AI2D, SEED-Bench, MathVista (which also asks for numbers), MMBench.

Prompts are LLaVA-1.5's (its docs/Evaluation.md): the question, the options with their letters, and the instruction to
name a letter. References are letters.
"""

from collections.abc import Iterator
from pathlib import Path

from complexity.errors import InvalidInput
from serving.m3.formats import multiple_choice, short_answer
from training_data.readers.records import Picture, Problem, Record
from training_data.readers.row_files import arrow_rows, json_entries, listed, load_json, table, text_lines
from training_data.readers.source import LETTERS, Row, Source, decoded_picture, find_picture, is_file, records, shown

NOTHING = ("", "nan", "none")  # how an MMBench table writes an empty field
ANSWER_TYPES = {"integer": "integer number", "list": "Python list"}  # MathVista's, and what its prompt calls them
DECIMALS = {1: "one decimal place", 2: "two decimal places"}


def scienceqa(source: Source) -> Iterator[Record | Problem]:
    """ScienceQA's folder, problems.json and pid_splits.json; only questions with a picture; task: the subject.

    The split is "test" unless given. The hint comes first as "Context: ...", as lmms-eval puts it to LLaVA
    (`lmms_eval/tasks/scienceqa`). Pictures are images/SPLIT/ID/image.png. Format: models/base_prompt.py of
    lupantech/ScienceQA and llava/eval/eval_science_qa.py of haotian-liu/LLaVA.
    """
    split = source.split or "test"
    splits = load_json(source.path / "pid_splits.json")
    wanted = splits.get(split) if isinstance(splits, dict) else None
    if not isinstance(wanted, list):
        raise InvalidInput(f"{source.path / 'pid_splits.json'} has no split {split!r}", "split")
    ids = {each for each in wanted if isinstance(each, str)}
    rows = json_entries(source.path / "problems.json", "pid")

    def make(row: Row) -> Record:
        name, image = row.text("pid"), row.text("image")
        places = (f"{split}/{name}/{image}", f"images/{split}/{name}/{image}", f"{name}/{image}")
        pictures = find_picture(source.images, *places)
        options = row.texts("choices")
        hint = row.optional("hint")
        asked = (f"Context: {hint}\n" if hint else "") + row.text("question")
        right = row.place("answer", len(options))
        return _choice(source, name, row.optional("subject"), pictures, asked, right, options)

    def of_split() -> Iterator[Row | Problem]:
        found = {row.values["pid"]: row for row in rows if isinstance(row, Row)}
        for name in wanted:
            if not isinstance(name, str) or name not in found:
                yield Problem(source.path / "problems.json", 0, f"there is no problem {shown(name)}")
            elif found[name].values.get("image"):
                yield found[name]

    if not ids:
        raise InvalidInput(f"{source.path / 'pid_splits.json'} holds no ids of the split {split!r}", "split")
    yield from records(source, of_split(), make)


def ai2d(source: Source) -> Iterator[Record | Problem]:
    """AI2D's folder: questions/*.json, pictures in images/, and in abc_images/ where a question asks for letters.

    A file is {"imageName", "questions": {text: {"answerTexts", "correctAnswer", "abcLabel", "questionId"}}}. The
    split "test" is the diagrams that ai2d_test_ids.csv lists; without a split, all are read. Task: the category that
    categories.json gives the diagram. Format: ai2d-all.zip of prior.allenai.org/projects/diagram-understanding, also in
    lmms_eval/tasks/ai2d/upload_ai2d.py of EvolvingLMMs-Lab/lmms-eval; abc_images as OpenGVLab/InternVL publishes them.
    """
    files = sorted((source.path / "questions").glob("*.json"))
    if not files:
        raise InvalidInput(f"{source.path / 'questions'} holds no questions")
    if source.split not in (None, "test"):
        raise InvalidInput(f"ai2d has no split {source.split!r}; choose test, or none for all", "split")
    if source.split:
        ids = source.path / "ai2d_test_ids.csv"
        test = {line[1] for line in text_lines(ids) if not isinstance(line, Problem)}
        files = [file for file in files if file.name.split(".")[0] in test]
    kinds = source.path / "categories.json"
    categories = load_json(kinds) if is_file(kinds) else {}
    categories = categories if isinstance(categories, dict) else {}

    def make(row: Row) -> Record:
        image = row.text("imageName")
        folder = "abc_images" if row.values.get("abcLabel") else "images"
        pictures = find_picture(source.images, f"{folder}/{image}")
        options = row.texts("answerTexts")
        right = row.place("correctAnswer", len(options))
        task = Row(kinds, 0, categories).optional(image)
        return _choice(source, row.text("questionId"), task, pictures, row.text("question"), right, options)

    yield from records(source, (row for file in files for row in _diagram(file)), make)


def _diagram(file: Path) -> Iterator[Row | Problem]:
    """The questions about one diagram; a broken file is one problem among many files."""
    try:
        whole = load_json(file)
    except InvalidInput as error:
        yield Problem(file, 0, str(error))
        return
    questions = whole.get("questions") if isinstance(whole, dict) else None
    if not isinstance(questions, dict):
        yield Problem(file, 0, "there are no questions in it")
        return
    for line, (text, each) in enumerate(questions.items(), 1):
        if isinstance(each, dict):
            yield Row(file, line, {**each, "question": text, "imageName": whole.get("imageName")})
        else:
            yield Problem(file, line, f"{shown(each)} is no object")


def seedbench(source: Source) -> Iterator[Record | Problem]:
    """SEED-Bench's SEED-Bench.json: its questions about pictures; task: the question type's name.

    {"questions": [{"question_id", "data_type", "data_id", "question", "choice_a".., "answer", "question_type_id"}],
    "question_type": {name: number}}; questions about videos are left out. Pictures lie in SEED-Bench-image. Format:
    AILab-CVC/SEED-Bench, DATASET.md.
    """
    whole = load_json(source.path)
    types = whole.get("question_type") if isinstance(whole, dict) else None
    names = {str(number): name for name, number in types.items()} if isinstance(types, dict) else {}

    def make(row: Row) -> Record:
        options = tuple(row.text(f"choice_{letter}") for letter in "abcd")
        pictures = find_picture(source.images, row.text("data_id"))
        task = names.get(row.optional("question_type_id"), "")
        right = row.letter("answer", options)
        return _choice(source, row.text("question_id"), task, pictures, row.text("question"), right, options)

    rows = listed(source.path, whole, "questions")
    of_pictures = (row for row in rows if isinstance(row, Problem) or row.values.get("data_type") == "image")
    yield from records(source, of_pictures, make)


def mmbench(source: Source) -> Iterator[Record | Problem]:
    """MMBench's table: index, question, hint, A to D, answer, category and the picture in base64, between tabs.

    The hint stands before the question, and options end at the first empty one, as in LLaVA's
    `llava/eval/model_vqa_mmbench.py`. Task: the category. Tables hold each question several times, with the options
    rotated; some name in a picture's place the index of an earlier row that has it, as `localize_df` in
    `vlmeval/smp/file.py` of open-compass/VLMEvalKit reads them. Format: mmbench_dev_20230712.tsv of
    open-compass/MMBench.
    """
    shown_by: dict[str, tuple[Picture, ...]] = {}

    def make(row: Row) -> Record:
        name, image = row.text("index"), row.text("image")
        if not image.isdigit():
            shown_by[name] = decoded_picture(image, "image")
        elif image not in shown_by:
            raise InvalidInput(f"its picture should stand in the row with index {shown(image)}; none before has it")
        options: list[str] = []
        for letter in "ABCD":
            option = row.optional(letter)
            if option.lower() in NOTHING:
                break
            options.append(option)
        hint = row.optional("hint")
        asked = ("" if hint.lower() in NOTHING else f"{hint}\n") + row.text("question")
        task = row.optional("category")
        right = row.letter("answer", options) if options else 0
        pictures = shown_by[image if image.isdigit() else name]
        return _choice(source, name, task, pictures, asked, right, tuple(options))

    yield from records(source, table(source.path, ("index", "question", "A", "B", "answer", "image"), "\t"), make)


def mathvista(source: Source) -> Iterator[Record | Problem]:
    """MathVista: testmini.json, an object of problems by id, or the hub's Parquet files; task: metadata's "task".

    {"question", "image", "choices", "unit", "precision", "answer", "question_type", "answer_type", "metadata"}. A
    multiple choice's answer is its text; free answers are asked for in the words of lmms-eval's "format-prompt"
    (`lmms_eval/tasks/mathvista`) and scored exactly, where the original first has a language model extract them.
    Format: lupantech/MathVista.
    """
    in_json = source.path.suffix == ".json"
    rows = json_entries(source.path, "pid") if in_json else arrow_rows(source.path, source.split)

    def make(row: Row) -> Record:
        inside = row.mapping("decoded_image").get("bytes")
        found = isinstance(inside, bytes)
        pictures = (Picture(data=inside),) if found else find_picture(source.images, row.text("image"))
        task = Row(row.file, row.line, row.mapping("metadata")).optional("task") or source.dataset
        name, answer, unit = row.text("pid"), row.text("answer"), row.optional("unit")
        asked = row.text("question") + (f" (Unit: {unit})" if unit else "")
        if row.values.get("question_type") == "multi_choice":
            options = row.texts("choices")
            if options.count(answer) != 1:
                raise InvalidInput(f"'answer' is {shown(answer)}, which is not one of the choices")
            return _choice(source, name, task, pictures, asked, options.index(answer), options)
        return Record(name, source.dataset, task, pictures, _free(asked, row), (answer,), "exact")

    yield from records(source, rows, make)


def _free(asked: str, row: Row) -> str:
    kind, precision = row.values.get("answer_type"), row.values.get("precision")
    if isinstance(kind, str) and kind in ANSWER_TYPES:
        article = "a single" if kind == "integer" else "a"
        return f"{asked}\nAnswer the question using {article} {ANSWER_TYPES[kind]}."
    if kind == "float" and isinstance(precision, int | float) and precision in DECIMALS:
        return f"{asked}\nAnswer the question using a single floating-point number with {DECIMALS[int(precision)]}."
    return short_answer(asked)


def _choice(
    source: Source,
    name: str,
    task: str,
    pictures: tuple[Picture, ...],
    asked: str,
    right: int,
    options: tuple[str, ...],
) -> Record:
    put = multiple_choice(asked, options)
    task = task or source.dataset
    return Record(name, source.dataset, task, pictures, put, (LETTERS[right],), "choice", options)
