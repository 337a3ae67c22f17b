"""Small multiple-choice benchmarks in their public formats, and own data: good rows, and rows that can't be used."""

import base64
from pathlib import Path

from benchmark_files import FRUIT, LETTER, PNG, Expected, World, dump, lines, pictures, text


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


def mmbench(folder: Path) -> World:
    inside = base64.b64encode(PNG).decode()
    rows = [
        ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"],
        ["241", "Which?", "Two\nlines.", "apple", "pear", "", "plum", "B", "identity", inside],
        ["242", "Which?", "nan", "apple", "pear", "plum", "nan", "D", "identity", inside],
        ["1000241", "Which?", "nan", "apple", "pear", "plum", "nan", "A", "identity", "241"],
        ["243", "Which?", "nan", "apple", "pear", "plum", "nan", "A", "identity", "no base64!"],
        ["244", "short"],
        ["1000245", "Which?", "nan", "apple", "pear", "nan", "nan", "A", "identity", "245"],
    ]
    quoted = "\n".join("\t".join(f'"{each}"' if "\n" in each else each for each in row) for row in rows)
    asked = f"Two\nlines.\nWhich?{FRUIT}{LETTER}"
    rotated, shown = f"Which?{FRUIT}\nC. plum{LETTER}", (PNG.decode("latin-1"),)
    return World(
        text(folder / "mmbench.tsv", quoted),
        [
            Expected("241", "identity", shown, asked, ("B",), "choice", ("apple", "pear")),
            Expected("1000241", "identity", shown, rotated, ("A",), "choice", ("apple", "pear", "plum")),
        ],
        [
            ("mmbench.tsv", 4, "from A to C"),
            ("mmbench.tsv", 6, "not base64"),
            ("mmbench.tsv", 7, "2 fields; expected 10"),
            ("mmbench.tsv", 8, "the row with index '245'; none before has it"),
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
            Expected("1", "mine", ("img/cup.png",), "What is it?", ("cup",), "exact"),
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
