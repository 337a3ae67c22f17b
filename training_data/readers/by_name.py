"""The readers of benchmarks and of one's own data, by name; docs/data.md says what each takes and asks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from complexity.errors import InvalidInput
from training_data.readers.choice import ai2d, mathvista, mmbench, scienceqa, seedbench
from training_data.readers.lines import daquar, mme
from training_data.readers.own import COLUMNS, mmmu, own, saved_dataset
from training_data.readers.records import Problem, Record
from training_data.readers.short_answer import chartqa, docvqa, gqa, llava, ocrvqa, pope, textvqa, vizwiz, vqav2
from training_data.readers.source import Source, is_file
from training_data.readers.store import Folder, Store
from training_data.readers.video import egoschema, msvdqa, nextqa


@dataclass(frozen=True)
class Reader:
    """A reader, and which files it takes."""

    read: Callable[[Source], Iterator[Record | Problem]]
    takes: str


READERS: dict[str, Reader] = {
    "own": Reader(own, "own data: .csv, .tsv or .jsonl with picture, question and answer"),
    "datasets": Reader(saved_dataset, "a folder saved by Hugging Face datasets, or Parquet files; name its columns"),
    "llava": Reader(llava, "LLaVA's question file in JSON lines; --answers: JSON lines with question_id and answer"),
    "vqav2": Reader(vqav2, "v2_OpenEnded_mscoco_val2014_questions.json; --answers: v2_mscoco_val2014_annotations.json"),
    "gqa": Reader(gqa, "testdev_balanced_questions.json or another questions file"),
    "vizwiz": Reader(vizwiz, "VizWiz's train.json or val.json"),
    "textvqa": Reader(textvqa, "TextVQA_0.5.1_val.json or train.json"),
    "ocrvqa": Reader(ocrvqa, "OCR-VQA's dataset.json; splits train, val, test"),
    "docvqa": Reader(docvqa, "DocVQA's val_v1.0.json or train_v1.0.json"),
    "infographicvqa": Reader(docvqa, "InfographicVQA's infographicsVQA_val_v1.0_withQT.json or the train file"),
    "chartqa": Reader(chartqa, "ChartQA's folder of a split, or its test_human.json or test_augmented.json"),
    "ai2d": Reader(ai2d, "AI2D's folder with questions/ and images/; split test"),
    "scienceqa": Reader(
        scienceqa, "ScienceQA's folder with problems.json and pid_splits.json; splits train, val, test"
    ),
    "pope": Reader(pope, "POPE's folder of coco_pope_random.json and its like, or one of them"),
    "mme": Reader(mme, "MME's folder with a folder for each task"),
    "mmbench": Reader(mmbench, "MMBench's table, mmbench_dev_20230712.tsv"),
    "seedbench": Reader(seedbench, "SEED-Bench.json"),
    "mmmu": Reader(mmmu, "MMMU's Parquet files, or a folder saved by datasets; splits dev, validation"),
    "mathvista": Reader(mathvista, "MathVista's testmini.json or its Parquet files"),
    "daquar": Reader(daquar, "DAQUAR's qa.37.raw.test.txt or another list of questions and answers"),
    "nextqa": Reader(nextqa, "NExT-QA's val.csv or test.csv of the multiple choice; pictures: videos or their frames"),
    "egoschema": Reader(egoschema, "EgoSchema's questions.json; --answers: subset_answers.json; pictures: videos"),
    "msvdqa": Reader(msvdqa, "MSVD-QA's test_qa.json; pictures: videos or their frames"),
}


def read(
    name: str,
    path: Path,
    images: Folder | None = None,
    *,
    answers: Path | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    dataset: str | None = None,
) -> Iterator[Record | Problem]:
    """The records of a dataset, and what is wrong with the rows that give none, in the order of the files.

    Args:
        name: of the reader.
        path: the questions' file or the benchmark's folder.
        images: the folder of the pictures, or the store; where `path` lies, or `path` itself where that is a folder,
            unless given.
        answers: the answers' file of benchmarks that have them apart.
        split: of benchmarks that come with all their splits in one.
        columns: for "datasets", our names of columns -> the dataset's.
        dataset: the records' name of it; the reader's unless given, of own data and saved datasets the file's.

    Raises:
        InvalidInput: there is no such reader or file (at once), or the file can't be used at all (when it is read).
        M3Error: the pictures' store doesn't answer.
    """
    if name not in READERS:
        raise InvalidInput(f"there is no reader {name!r}; choose one of {', '.join(READERS)}", "name")
    for each in (path, answers):
        if each is not None and not is_file(each) and not _is_folder(each):
            raise InvalidInput(f"there is no {each}", "path")
    if isinstance(images, Store):
        images.check()
    elif images is not None and not _is_folder(images):
        raise InvalidInput(f"there is no folder {images}", "images")
    if columns and name != "datasets":
        raise InvalidInput(f"the reader {name} knows its columns; only datasets takes some", "columns")
    strange = [ours for ours in columns or {} if ours not in COLUMNS]
    if strange:
        raise InvalidInput(f"there is no column {strange[0]!r}; choose from {', '.join(COLUMNS)}", "columns")
    unnamed = path.resolve().stem if name in ("own", "datasets") else name
    folder = images or (path if _is_folder(path) else path.parent)
    return READERS[name].read(Source(path, dataset or unnamed, folder, answers, split, columns or {}))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
