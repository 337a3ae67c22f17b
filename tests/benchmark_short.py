"""Small benchmarks with short answers in their public formats: good rows, and rows that can't be used."""

from pathlib import Path

from benchmark_files import FRUIT, LETTER, SHORT, Expected, World, dump, lines, pictures, text


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
    said = [{"answer": each, "answer_confidence": "yes", "answer_id": k} for k, each in enumerate(["net"] * 9 + [""])]
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
                ("net",) * 9 + ("",),
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
