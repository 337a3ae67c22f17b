"""Small benchmarks in the formats that their authors publish, each with good rows and rows that can't be used."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n, as far as a reader looks"
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
FRUIT = "\nA. apple\nB. pear"


@dataclass(frozen=True)
class Expected:
    """What a row should become."""

    record_id: str
    task: str
    pictures: tuple[str, ...]  # names in the folder
    question: str
    references: tuple[str, ...]
    scorer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """A benchmark on disk and what reading it should give."""

    path: Path
    expected: list[Expected]
    problems: list[tuple[str, int, str]]  # name of the file, line, part of the reason
    options: dict[str, Any] = field(default_factory=dict)  # of `read`


def llava(folder: Path) -> World:
    rows = [
        {"question_id": 1, "image": "a.png", "text": f"What is it?{SHORT}", "category": "conv"},
        {"question_id": 2, "image": "b.png", "text": f"<image>\nWhich?{FRUIT}{LETTER}"},
        {"question_id": 3, "image": "gone.png", "text": "Where?"},
        {"question_id": 4, "image": "a.png"},
        {"question_id": 5, "image": "a.png", "text": "Who?"},
    ]
    answers = [
        {"question_id": k, "answer": answer} for k, answer in ((1, ["cup", "mug"]), (2, "B"), (3, "x"), (4, "x"))
    ]
    pictures(folder, "a.png", "b.png")
    lines(folder / "answers.jsonl", answers)
    return World(
        lines(folder / "questions.jsonl", rows),
        [
            Expected("1", "conv", ("a.png",), f"What is it?{SHORT}", ("cup", "mug"), "exact"),
            Expected("2", "llava", ("b.png",), f"Which?{FRUIT}{LETTER}", ("B",), "choice"),
        ],
        [
            ("questions.jsonl", 3, "no picture 'gone.png'"),
            ("questions.jsonl", 4, "'text' is missing"),
            ("questions.jsonl", 5, "no answer for '5'"),
        ],
        {"answers": folder / "answers.jsonl"},
    )


def vqav2(folder: Path) -> World:
    said = [
        {"answer": each, "answer_confidence": "yes", "answer_id": k} for k, each in enumerate(["net"] * 9 + ["bag"])
    ]
    questions = [
        {"image_id": image, "question": "What is this?", "question_id": k} for k, image in ((10, 42), (11, 43))
    ]
    questions += [{"image_id": 42, "question": None, "question_id": 12}]
    questions += [{"image_id": 42, "question": "Unanswered?", "question_id": 13}]
    annotations = [{"question_id": k, "answer_type": "other", "answers": said} for k in (10, 11, 12)]
    pictures(folder, "val2014/COCO_val2014_000000000042.jpg")
    whole = {"info": {}, "data_type": "mscoco", "data_subtype": "val2014"}
    dump(folder / "annotations.json", {**whole, "annotations": annotations})
    return World(
        dump(folder / "questions.json", {**whole, "questions": questions}),
        [
            Expected(
                "10",
                "other",
                ("val2014/COCO_val2014_000000000042.jpg",),
                f"What is this?{SHORT}",
                ("net",) * 9 + ("bag",),
                "vqa",
            )
        ],
        [
            ("questions.json", 2, "no picture 'COCO_val2014_000000000043.jpg'"),
            ("questions.json", 3, "'question' is missing"),
            ("questions.json", 4, "no annotation for '13'"),
        ],
        {"answers": folder / "annotations.json"},
    )


def gqa(folder: Path) -> World:
    row = {"imageId": "n161", "question": "Is it overcast?", "answer": "no", "types": {"structural": "verify"}}
    pictures(folder, "n161.jpg")
    return World(
        dump(
            folder / "gqa.json", {"201": row, "202": {**row, "imageId": "n0"}, "203": {**row, "answer": {}}, "204": 7}
        ),
        [Expected("201", "verify", ("n161.jpg",), f"Is it overcast?{SHORT}", ("no",), "exact")],
        [("gqa.json", 2, "no picture"), ("gqa.json", 3, "'answer' is {}"), ("gqa.json", 4, "7 is no object")],
    )


def vizwiz(folder: Path) -> World:
    row = {"answerable": 1, "image": "VizWiz_val_1.jpg", "question": "What's this?", "answer_type": "other"}
    row["answers"] = [{"answer_confidence": "yes", "answer": "soap"}, {"answer_confidence": "no", "answer": "a bar"}]
    pictures(folder, "VizWiz_val_1.jpg")
    hint = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    return World(
        dump(folder / "val.json", [row, {**row, "image": "VizWiz_val_2.jpg"}, {**row, "answers": "soap"}]),
        [
            Expected(
                "VizWiz_val_1", "other", ("VizWiz_val_1.jpg",), f"What's this?{hint}{SHORT}", ("soap", "a bar"), "vqa"
            )
        ],
        [("val.json", 2, "no picture"), ("val.json", 3, "'answers' is 'soap'")],
    )


def textvqa(folder: Path) -> World:
    row = {"question": "what brand?", "image_id": "0054c9", "answers": ["nous", "nous les"], "question_id": 34602}
    pictures(folder, "0054c9.jpg")
    rows = [row, {**row, "question_id": 34603, "image_id": "ff"}, {**row, "question_id": 34604, "answers": []}]
    rows += [{**row}]
    return World(
        dump(folder / "TextVQA.json", {"dataset_type": "val", "data": rows}),
        [Expected("34602", "textvqa", ("0054c9.jpg",), f"what brand?{SHORT}", ("nous", "nous les"), "vqa")],
        [("TextVQA.json", 2, "no picture"), ("TextVQA.json", 3, "'answers' is []"), ("TextVQA.json", 4, "before")],
    )


def ocrvqa(folder: Path) -> World:
    book = {"imageURL": "http://x/I/61Y5.jpg", "questions": ["Who wrote it?", "Genre?"], "answers": ["Ann", "Art"]}
    pictures(folder, "76118.jpg")
    books = {"76118": {**book, "split": 3}, "2": {**book, "split": 1}, "3": {**book, "split": 3}}
    books["4"] = {**book, "split": 3, "answers": ["Ann"]}
    return World(
        dump(folder / "dataset.json", books),
        [
            Expected("76118-0", "ocrvqa", ("76118.jpg",), f"Who wrote it?{SHORT}", ("Ann",), "exact"),
            Expected("76118-1", "ocrvqa", ("76118.jpg",), f"Genre?{SHORT}", ("Art",), "exact"),
        ],
        [("dataset.json", 3, "no picture"), ("dataset.json", 3, "no picture"), ("dataset.json", 4, "same length")],
        {"split": "test"},
    )


def docvqa(folder: Path) -> World:
    row = {"questionId": 49153, "question": "What year?", "image": "documents/p_1.png", "answers": ["1998", "'98"]}
    row |= {"question_types": ["layout", "form"], "data_split": "val"}
    pictures(folder, "documents/p_1.png")
    rows = [row, {**row, "questionId": 1, "image": "documents/no.png"}, {**row, "questionId": [], "answers": ["x"]}]
    return World(
        dump(folder / "val_v1.0.json", {"dataset_name": "docvqa", "data": rows}),
        [Expected("49153", "layout", ("documents/p_1.png",), f"What year?{SHORT}", ("1998", "'98"), "anls")],
        [("val_v1.0.json", 2, "no picture"), ("val_v1.0.json", 3, "'questionId' is []")],
    )


def infographicvqa(folder: Path) -> World:
    row = {"questionId": 65718, "question": "How many?", "image_local_name": "37313.jpeg", "answers": ["4"]}
    pictures(folder, "images/37313.jpeg")
    rows = [{**row, "answer_type": ["single span"]}, {**row, "questionId": 2, "image_local_name": "1.jpeg"}, row]
    return World(
        dump(folder / "infographics.json", {"data": rows}),
        [Expected("65718", "single span", ("images/37313.jpeg",), f"How many?{SHORT}", ("4",), "anls")],
        [("infographics.json", 2, "no picture"), ("infographics.json", 3, "was there before")],
        {"images": folder / "images"},
    )


def chartqa(folder: Path) -> World:
    row = {"imgname": "41699051.png", "query": "How many bars?", "label": "14"}
    pictures(folder, "png/41699051.png")
    dump(folder / "test_human.json", [row, {**row, "imgname": "no.png"}, {**row, "label": True}])
    dump(folder / "test_augmented.json", [row])
    return World(
        folder,
        [
            Expected("augmented-1", "augmented", ("png/41699051.png",), f"How many bars?{SHORT}", ("14",), "relaxed"),
            Expected("human-1", "human", ("png/41699051.png",), f"How many bars?{SHORT}", ("14",), "relaxed"),
        ],
        [("test_human.json", 2, "no picture 'png/no.png'"), ("test_human.json", 3, "'label' is True")],
    )


def ai2d(folder: Path) -> World:
    asked = {"abcLabel": False, "answerTexts": ["apple", "pear"], "correctAnswer": 1, "questionId": "7.png-0"}
    letters = {**asked, "abcLabel": True, "questionId": "7.png-1"}
    wrong = {**asked, "correctAnswer": 2, "questionId": "7.png-2"}
    pictures(folder, "images/7.png", "abc_images/7.png")
    dump(
        folder / "questions/7.png.json",
        {"imageName": "7.png", "questions": {"Which?": asked, "A?": letters, "B?": wrong}},
    )
    dump(folder / "questions/8.png.json", {"imageName": "8.png", "questions": {"Which?": asked}})
    dump(folder / "questions/9.png.json", {"imageName": "9.png", "questions": {"Which?": asked}})
    dump(folder / "categories.json", {"7.png": "foodChainsWebs"})
    (folder / "ai2d_test_ids.csv").write_text("7\n8\n")
    both = ("apple", "pear")
    return World(
        folder,
        [
            Expected("7.png-0", "foodChainsWebs", ("images/7.png",), f"Which?{FRUIT}{LETTER}", ("B",), "choice", both),
            Expected("7.png-1", "foodChainsWebs", ("abc_images/7.png",), f"A?{FRUIT}{LETTER}", ("B",), "choice", both),
        ],
        [("7.png.json", 3, "a number from 0 to 1"), ("8.png.json", 1, "no picture")],
        {"split": "test"},
    )


def scienceqa(folder: Path) -> World:
    row = {"question": "Which?", "choices": ["apple", "pear"], "answer": 0, "hint": "It is red.", "image": "image.png"}
    row |= {"subject": "natural science", "split": "test"}
    problems = {"1": row, "2": {**row, "image": None}, "3": row, "4": {**row, "answer": "0.5"}, "5": row}
    pictures(folder, "images/test/1/image.png", "images/test/4/image.png")
    dump(folder / "problems.json", problems)
    dump(folder / "pid_splits.json", {"train": ["5"], "test": ["1", "2", "3", "4", "6"]})
    asked = f"Context: It is red.\nWhich?{FRUIT}{LETTER}"
    shown = ("images/test/1/image.png",)
    return World(
        folder,
        [Expected("1", "natural science", shown, asked, ("A",), "choice", ("apple", "pear"))],
        [
            ("problems.json", 3, "no picture"),
            ("problems.json", 4, "'answer' is '0.5'"),
            ("problems.json", 0, "no problem '6'"),
        ],
    )


def pope(folder: Path) -> World:
    row = {
        "question_id": 1,
        "image": "COCO_val2014_16631.jpg",
        "text": "Is there a person in the image?",
        "label": "yes",
    }
    pictures(folder, "COCO_val2014_16631.jpg")
    lines(folder / "coco_pope_adversarial.json", [{**row, "label": "no"}])
    lines(folder / "coco_pope_random.json", [row, {**row, "question_id": 2, "image": "x"}, {**row, "label": "maybe"}])
    asked, shown = f"Is there a person in the image?{SHORT}", ("COCO_val2014_16631.jpg",)
    return World(
        folder,
        [
            Expected("adversarial-1", "adversarial", shown, asked, ("no",), "yes_no"),
            Expected("random-1", "random", shown, asked, ("yes",), "yes_no"),
        ],
        [("coco_pope_random.json", 2, "no picture"), ("coco_pope_random.json", 3, "expected yes or no")],
    )


def mme(folder: Path) -> World:
    pictures(folder, "OCR/0001.jpg", "artwork/images/10002.jpg")
    text(
        folder / "OCR/0001.txt",
        'Is it "angie"? Please answer yes or no.\tYes\nIs it "x"? Please answer yes or no. No\n\n',
    )
    text(folder / "OCR/0002.txt", "Is it red? Please answer yes or no.\tNo\n")
    text(folder / "artwork/questions_answers_YN/10002.txt", "Is it a painting? Please answer yes or no.\tNo")
    return World(
        folder,
        [
            Expected("OCR/0001-1", "OCR", ("OCR/0001.jpg",), f'Is it "angie"?{SHORT}', ("yes",), "yes_no"),
            Expected(
                "artwork/10002-1",
                "artwork",
                ("artwork/images/10002.jpg",),
                f"Is it a painting?{SHORT}",
                ("no",),
                "yes_no",
            ),
        ],
        [("0001.txt", 2, "no tab"), ("0002.txt", 1, "no picture")],
    )


def mmbench(folder: Path) -> World:
    inside = base64.b64encode(PNG).decode()
    rows = [
        ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"],
        ["241", "Which?", "Two\nlines.", "apple", "pear", "", "plum", "B", "identity", inside],
        ["242", "Which?", "nan", "apple", "pear", "plum", "nan", "D", "identity", inside],
        ["1000241", "Which?", "nan", "apple", "pear", "plum", "nan", "A", "identity", "241"],
        ["243", "Which?", "nan", "apple", "pear", "plum", "nan", "A", "identity", "no base64!"],
        ["244", "short"],
    ]
    quoted = "\n".join("\t".join(f'"{each}"' if "\n" in each else each for each in row) for row in rows)
    asked = f"Two\nlines.\nWhich?{FRUIT}{LETTER}"
    return World(
        text(folder / "mmbench.tsv", quoted),
        [Expected("241", "identity", (PNG.decode("latin-1"),), asked, ("B",), "choice", ("apple", "pear"))],
        [
            ("mmbench.tsv", 4, "from A to C"),
            ("mmbench.tsv", 5, "the row with index '241' only"),
            ("mmbench.tsv", 6, "not base64"),
            ("mmbench.tsv", 7, "2 fields; expected 10"),
        ],
    )


def seedbench(folder: Path) -> World:
    row = {
        "answer": "A",
        "data_id": "1454426_25",
        "data_type": "image",
        "question": "How many?",
        "question_id": "101669",
    }
    row |= {f"choice_{letter}": word for letter, word in zip("abcd", ["One", "Two", "Three", "Four"], strict=True)}
    row["question_type_id"] = 5
    pictures(folder, "1454426_25")
    rows = [row, {**row, "question_id": "2", "data_type": "video"}, {**row, "question_id": "3", "data_id": "no"}]
    rows += [{**row, "question_id": "4", "answer": "E"}]
    asked = f"How many?\nA. One\nB. Two\nC. Three\nD. Four{LETTER}"
    options = ("One", "Two", "Three", "Four")
    return World(
        dump(folder / "SEED-Bench.json", {"questions": rows, "question_type": {"Instances Counting": 5}}),
        [Expected("101669", "Instances Counting", ("1454426_25",), asked, ("A",), "choice", options)],
        [("SEED-Bench.json", 3, "no picture"), ("SEED-Bench.json", 4, "from A to D")],
    )


def mathvista(folder: Path) -> World:
    row = {"question": "How long?", "image": "images/1.jpg", "choices": None, "unit": "cm", "precision": 1}
    row |= {"answer": "1.2", "question_type": "free_form", "answer_type": "float", "pid": "1"}
    row["metadata"] = {"split": "testmini", "task": "textbook question answering"}
    multi = {**row, "question_type": "multi_choice", "choices": ["apple", "pear"], "answer": "pear", "unit": None}
    wrong = {**multi, "answer": "plum"}
    pictures(folder, "images/1.jpg")
    asked = "How long? (Unit: cm)\nAnswer the question using a single floating-point number with one decimal place."
    task, shown, both = "textbook question answering", ("images/1.jpg",), ("apple", "pear")
    return World(
        dump(folder / "testmini.json", {"1": row, "2": multi, "3": wrong, "4": {**row, "image": "images/4.jpg"}}),
        [
            Expected("1", task, shown, asked, ("1.2",), "exact"),
            Expected("2", task, shown, f"How long?{FRUIT}{LETTER}", ("B",), "choice", both),
        ],
        [("testmini.json", 3, "not one of the choices"), ("testmini.json", 4, "no picture")],
    )


def daquar(folder: Path) -> World:
    said = [
        "what is on the left of the red chair in the image3 ?",
        "knife, fork",
        "how many chairs are in image3 ?",
        "4",
    ]
    said += ["what is in the image9 ?", "bed", "what colour is it ?", "", "what is on the desk in this image3 ?"]
    pictures(folder, "image3.png")
    return World(
        text(folder / "qa.37.raw.test.txt", "\n".join(said)),
        [
            Expected(
                "1",
                "thing",
                ("image3.png",),
                f"what is on the left of the red chair?{SHORT}",
                ("knife, fork",),
                "exact",
            ),
            Expected("3", "number", ("image3.png",), f"how many chairs are?{SHORT}", ("4",), "exact"),
        ],
        [
            ("qa.37.raw.test.txt", 5, "no picture 'image9.png'"),
            ("qa.37.raw.test.txt", 7, "no question to the answer"),
            ("qa.37.raw.test.txt", 9, "no answer to the question"),
        ],
    )


def nextqa(folder: Path) -> World:
    head = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    good = "4010069381,369,640,480,how do the men play,0,6,CH,roll it,tap,strum,hit,pat\n"
    other = good.replace("4010069381", "2440175990").replace(",0,6,", ",4,1,")
    pictures(folder, "1164/4010069381.mp4", *(f"2440175990/{k}.jpg" for k in (10, 9, 1)))
    dump(folder / "map_vid_vidorID.json", {"4010069381": "1164/4010069381"})
    rows = head + good + other + good.replace("4010069381", "99") + good.replace(",0,6,", ",5,6,")
    options = ("roll it", "tap", "strum", "hit", "pat")
    asked = f"how do the men play?\nA. roll it\nB. tap\nC. strum\nD. hit\nE. pat{LETTER}"
    frames = ("2440175990/1.jpg", "2440175990/9.jpg", "2440175990/10.jpg")
    return World(
        text(folder / "val.csv", rows),
        [
            Expected("4010069381-6", "CH", ("1164/4010069381.mp4",), asked, ("A",), "choice", options),
            Expected("2440175990-1", "CH", frames, asked, ("E",), "choice", options),
        ],
        [("val.csv", 4, "no video '99'"), ("val.csv", 5, "'answer' is '5'")],
    )


def egoschema(folder: Path) -> World:
    row = {"q_uid": "0074f737", "google_drive_id": "1m", "question": "What is C doing?"}
    row |= {f"option {k}": word for k, word in enumerate(["cooking", "reading", "sewing", "running", "resting"])}
    pictures(folder, "videos/0074f737.mp4")
    dump(folder / "subset_answers.json", {"0074f737": 3, "1": 0, "2": 0})
    options = ("cooking", "reading", "sewing", "running", "resting")
    asked = f"What is C doing?\nA. cooking\nB. reading\nC. sewing\nD. running\nE. resting{LETTER}"
    rows = [row, {**row, "q_uid": "1"}, {**row, "q_uid": "2", "option 4": ""}, {**row, "q_uid": "3"}]
    return World(
        dump(folder / "questions.json", rows),
        [Expected("0074f737", "egoschema", ("videos/0074f737.mp4",), asked, ("D",), "choice", options)],
        [
            ("questions.json", 2, "no video '1'"),
            ("questions.json", 3, "'option 4' is empty"),
            ("questions.json", 4, "no answer for '3'"),
        ],
        {"answers": folder / "subset_answers.json", "images": folder / "videos"},
    )


def msvdqa(folder: Path) -> World:
    row = {"answer": "cat", "id": 43160, "question": "what is chewing?", "video_id": 1301}
    pictures(folder, "clip_1_9.avi")
    text(folder / "youtube_mapping.txt", "clip_1_9 vid1301\nbroken\n")
    return World(
        dump(folder / "test_qa.json", [row, {**row, "id": 2, "video_id": 7}, {**row, "id": 3, "answer": ""}]),
        [Expected("43160", "what", ("clip_1_9.avi",), f"what is chewing?{SHORT}", ("cat",), "exact")],
        [
            ("youtube_mapping.txt", 2, "expected a name and a number"),
            ("test_qa.json", 2, "no video 'vid7'"),
            ("test_qa.json", 3, "'answer' is empty"),
        ],
    )


def own(folder: Path) -> World:
    pictures(folder, "img/cup.png")
    inside = base64.b64encode(PNG).decode()
    rows = [
        {"picture": "img/cup.png", "question": "What is it?", "answer": "cup"},
        {
            "picture": inside,
            "question": "Which?",
            "options": ["apple", "pear"],
            "answer": "Pear",
            "id": "p",
            "task": "t",
        },
        {"picture": ["img/cup.png"], "question": "Tell.", "answers": ["cup", 2], "scorer": "contains", "by": "me"},
        {"picture": "img/no.png", "question": "What is it?", "answer": "cup"},
        {"picture": "img/cup.png", "question": "What is it?"},
        {"picture": "img/cup.png", "question": "What is it?", "answer": "cup", "scorer": "bleu"},
    ]
    return World(
        lines(folder / "mine.jsonl", rows),
        [
            Expected("1", "mine", ("img/cup.png",), f"What is it?{SHORT}", ("cup",), "exact"),
            Expected("p", "t", (PNG.decode("latin-1"),), f"Which?{FRUIT}{LETTER}", ("B",), "choice", ("apple", "pear")),
            Expected("3", "mine", ("img/cup.png",), "Tell.", ("cup", "2"), "contains"),
        ],
        [
            ("mine.jsonl", 3, "'by' is no column"),
            ("mine.jsonl", 4, "no picture 'img/no.png'"),
            ("mine.jsonl", 5, "neither an 'answer' nor 'answers'"),
            ("mine.jsonl", 6, "no scorer 'bleu'"),
        ],
    )


WORLDS: dict[str, Callable[[Path], World]] = {
    each.__name__: each
    for each in (
        *(llava, vqav2, gqa, vizwiz, textvqa, ocrvqa, docvqa, infographicvqa, chartqa, ai2d, scienceqa, pope, mme),
        *(mmbench, seedbench, mathvista, daquar, nextqa, egoschema, msvdqa, own),
    )
}


def pictures(folder: Path, *names: str) -> None:
    """Files that stand for pictures."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def dump(file: Path, content: object) -> Path:
    return text(file, json.dumps(content))


def lines(file: Path, rows: list[Any]) -> Path:
    return text(file, "".join(f"{json.dumps(row)}\n" for row in rows))
