"""Readers of benchmarks about videos: NExT-QA, EgoSchema and MSVD-QA.

A video is looked for in the pictures' folder: a folder of its name with its frames as pictures, in the order of their
numbers, or a video file. A video file is given as the record's single picture, and nothing of it is decoded here:
whoever asks the model makes a grid of its frames (`serving.m3.video`), as M3 was measured (arXiv 2405.17430, table 3,
after IG-VLM, arXiv 2403.18406).
"""

import re
from collections.abc import Iterable, Iterator

from complexity.errors import InvalidInput
from serving.m3.formats import multiple_choice, short_answer
from training_data.readers.records import Picture, Problem, Record
from training_data.readers.row_files import json_list, load_json, table, text_lines
from training_data.readers.source import (
    LETTERS,
    Row,
    Source,
    files_in,
    find_picture,
    is_file,
    looked_up,
    records,
    shown,
)
from training_data.readers.store import Folder

VIDEO_ENDINGS = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".MP4")
FRAME_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
VIDEO_MAP = "map_vid_vidorID.json"  # NExT-QA's: a video's id -> its place in the folders of VidOR
MSVD_NAMES = "youtube_mapping.txt"  # MSVD's: a video's name, a blank, "vid" and its number
NEXTQA_OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def nextqa(source: Source) -> Iterator[Record | Problem]:
    """NExT-QA's multiple choice: a table with video, question, answer (0 to 4), qid, type and a0 to a4.

    Videos are named by id, or by place where map_vid_vidorID.json lies beside the table. Task: the question's type,
    such as TN, a temporal one about what comes next. Format: dataset/nextqa/val.csv of doc-doc/NExT-QA.
    """
    beside = source.path.parent / VIDEO_MAP
    places = load_json(beside) if is_file(beside) else {}
    by_video = Row(beside, 0, places if isinstance(places, dict) else {})

    def make(row: Row) -> Record:
        video = row.text("video")
        pictures = find_video(source.images, [by_video.optional(video), video])
        options = tuple(row.text(name) for name in NEXTQA_OPTIONS)
        right = LETTERS[row.place("answer", len(options))]
        name, task = f"{video}-{row.text('qid')}", row.optional("type") or source.dataset
        put = multiple_choice(f"{row.text('question').rstrip(' ?')}?", options)
        return Record(name, source.dataset, task, pictures, put, (right,), "choice", options)

    yield from records(source, table(source.path, ("video", "question", "answer", "qid", *NEXTQA_OPTIONS)), make)


def egoschema(source: Source) -> Iterator[Record | Problem]:
    """EgoSchema: questions.json, a list of {"q_uid", "question", "option 0".."option 4"}, and subset_answers.json.

    The answers' file is an object of numbers by "q_uid"; only those of a subset are public, and each question
    without one is a problem. Format: egoschema/EgoSchema, whose first questions.json lacks the questions themselves.
    """
    answers = load_json(source.need_answers("subset_answers.json"))
    if not isinstance(answers, dict):
        raise InvalidInput(f"{source.answers} holds no object")

    def make(row: Row) -> Record:
        name = row.text("q_uid")
        options = tuple(row.text(f"option {k}") for k in range(5))
        answer = Row(row.file, row.line, {"answer": looked_up(answers, name, "answer")})
        right = LETTERS[answer.place("answer", len(options))]
        put = multiple_choice(row.text("question"), options)
        pictures = find_video(source.images, [name])
        return Record(name, source.dataset, source.dataset, pictures, put, (right,), "choice", options)

    yield from records(source, json_list(source.path), make)


def msvdqa(source: Source) -> Iterator[Record | Problem]:
    """MSVD-QA: a list of {"id", "video_id", "question", "answer"}; task: the question's first word.

    Videos are vid1 and so on, or have MSVD's own names where youtube_mapping.txt lies beside the questions. Scored
    exactly, as its authors do (Xu et al. 2017); Video-ChatGPT's way, which M3's table follows, has a language model
    judge. Format: util/dataset.py of xudejing/video-question-answering.
    """
    listed = source.path.parent / MSVD_NAMES
    names: dict[str, str] = {}
    if is_file(listed):
        for line in text_lines(listed):
            parts = [] if isinstance(line, Problem) else line[1].split()
            if len(parts) == 2:
                names[parts[1]] = parts[0]
            else:
                yield line if isinstance(line, Problem) else Problem(listed, line[0], "expected a name and a number")

    def make(row: Row) -> Record:
        video = f"vid{row.text('video_id')}"
        pictures = find_video(source.images, [video, names.get(video, "")])
        question = row.text("question")
        task = question.split()[0].lower()
        put = short_answer(f"{question.rstrip(' ?')}?")
        return Record(row.text("id"), source.dataset, task, pictures, put, (row.text("answer"),), "exact")

    yield from records(source, json_list(source.path), make)


def find_video(folder: Folder, names: Iterable[str]) -> tuple[Picture, ...]:
    """The frames of the video that has the first of these names that is in the folder, or its file.

    Raises:
        InvalidInput: there is none of them.
    """
    wanted = [name for name in names if name]
    for name in wanted:
        frames = _frames(folder, name)
        if frames:
            return frames
        try:
            return find_picture(folder, *(f"{name}{ending}" for ending in VIDEO_ENDINGS))
        except InvalidInput:
            continue
    raise InvalidInput(f"there is no video {shown(wanted[-1])} in {folder}")


def _frames(folder: Folder, name: str) -> tuple[Picture, ...]:
    frames = [(each.path, each) for each in files_in(folder, name) if each.path is not None]
    pictures = [(path.name, each) for path, each in frames if path.suffix.lower() in FRAME_ENDINGS]
    return tuple(each for _, each in sorted(pictures, key=lambda named: _frame_order(named[0])))


def _frame_order(name: str) -> list[tuple[int, str]]:
    """Frame 10 comes behind frame 9."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdigit() and part.isascii() else (0, part) for part in parts]
