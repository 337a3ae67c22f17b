"""Results of other evaluation tools become a label table; whatever doesn't fit together is named."""

import base64
import csv
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from complexity.errors import InvalidInput
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.labels import LabelMeta, read_labels
from complexity.sample import Sample
from router.train import main as train_router
from training_data.import_m3 import judge, main
from training_data.importing.join import bare, join, same_question
from training_data.importing.logs import read_llava, read_lmms_eval, read_vlmevalkit
from training_data.importing.results import IMAGE_PX, IMPORT_VERSION, Wish, import_results, write_table
from training_data.readers.by_name import read
from training_data.readers.records import Picture, Problem, Record

LADDER = (1, 9, 36)
SHORT = "\nAnswer the question using a single word or phrase."


@dataclass(frozen=True)
class Asked:
    """A sample of the world: what is asked, right, and said at each scale."""

    name: str
    question: str
    answer: str
    said: tuple[str, ...]  # one a scale


def picture(folder: Path, name: str, blobs: int = 3, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    pixels = np.full((64, 64, 3), 255, np.uint8)
    for row, column in rng.integers(0, 56, (blobs, 2)):
        pixels[row : row + 8, column : column + 8] = rng.integers(0, 200, 3)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def asked(count: int = 6) -> list[Asked]:
    """Sample k is answered right from scale k % 3 on; questions differ, and two pictures have two each."""
    colours = ("red", "green", "blue", "brown", "black", "white")
    return [
        Asked(
            str(100 + k),
            f"Which colour is the object at {k}?",
            colours[k % 6],
            tuple(colours[k % 6] if scale >= k % 3 else "grey" for scale in range(len(LADDER))),
        )
        for k in range(count)
    ]


def write_own(folder: Path, samples: Sequence[Asked]) -> Path:
    """The benchmark, as the reader `own` takes it."""
    rows = []
    for k, sample in enumerate(samples):
        file = picture(folder / "pictures", f"{k // 2}", seed=k // 2)
        rows.append({"picture": file.name, "question": sample.question, "answer": sample.answer, "id": sample.name})
    (folder / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "bench.jsonl"


def lmms_row(k: int, sample: Asked, scale: int, **changes: Any) -> dict[str, Any]:
    """A line as save_results_samples of lmms-eval writes it for TextVQA."""
    return {
        "doc_id": k,
        "target": sample.answer,
        "filtered_resps": [sample.said[scale]],
        "doc_hash": f"hash-{sample.name}",
        "prompt_hash": "p",
        "target_hash": "t",
        "exact_match": float(sample.said[scale] == sample.answer),
        "submission": {"question_id": int(sample.name), "answer": sample.said[scale]},
        "input": f"{sample.question.capitalize()}{SHORT}",
        **changes,
    }


def write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_lmms(folder: Path, samples: Sequence[Asked]) -> list[str]:
    """A run's folder for each scale; what to give to --run."""
    told = []
    for scale, tokens in enumerate(LADDER):
        rows = [lmms_row(k, sample, scale) for k, sample in enumerate(samples)]
        write_lines(folder / f"{tokens}" / "mucai__m3" / "20261101_120000_samples_textvqa_val.jsonl", rows)
        (folder / f"{tokens}" / "mucai__m3" / "20261101_120000_results.json").write_text("{}")
        told += ["--run", f"{tokens}={folder / str(tokens)}"]
    return told


def write_llava(folder: Path, samples: Sequence[Asked]) -> list[str]:
    """Answers as model_vqa_loader.py writes them, a file a scale."""
    told = []
    for scale, tokens in enumerate(LADDER):
        rows = [
            {
                "question_id": sample.name,
                "prompt": sample.question + SHORT,
                "text": sample.said[scale],
                "answer_id": f"a{k}",
                "model_id": "llava-v1.5-7b-m3",
                "metadata": {},
            }
            for k, sample in enumerate(samples)
        ]
        file = write_lines(folder / f"llava-v1.5-7b-m3-{tokens}.jsonl", rows)
        told += ["--run", f"{tokens}={file}"]
    return told


VLM_COLUMNS = ("index", "question", "answer", "category", "prediction")


def vlm_rows(samples: Sequence[Asked], scale: int) -> list[dict[str, Any]]:
    """Rows as VLMEvalKit dumps them, before they are judged."""
    cells = ((int(each.name), each.question, each.answer, "colour", each.said[scale]) for each in samples)
    return [dict(zip(VLM_COLUMNS, each, strict=True)) for each in cells]


def write_xlsx(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    book = Workbook()
    for line in (list(rows[0]), *(list(row.values()) for row in rows)):
        book.worksheets[0].append(line)
    file.parent.mkdir(parents=True, exist_ok=True)
    book.save(file)
    return file


def write_csv(file: Path, rows: Sequence[dict[str, Any]], separator: str = ",") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_json(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text(json.dumps(rows))
    return file


def run(*args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    status = main(["--model", "llava-v1.5-7b-m3@1", *args])
    out, err = capsys.readouterr()
    return status, json.loads(out.splitlines()[-1]) if out else {}, err


def complaint(err: str) -> str:
    """The one line that a mistake ends in, after the bars of progress."""
    return re.split(r"[\r\n]", err.strip())[-1]


def right(samples: Sequence[Asked]) -> list[list[float]]:
    return [[float(said == sample.answer) for said in sample.said] for sample in samples]


def record(sample: Asked, file: Path) -> Record:
    return Record(sample.name, "bench", "colour", (Picture(file),), sample.question + SHORT, (sample.answer,), "exact")


def test_lmms_evals_logs_become_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Each sample stands with the log's scores, the benchmark's question and its own picture's features."""
    samples = asked()
    data = write_own(tmp_path, samples)
    runs = write_lmms(tmp_path / "logs", samples)
    images = str(tmp_path / "pictures")
    args = ["--from", "lmms-eval", *runs, "--read", "own", "--data", str(data), "--images", images]
    status, told, err = run(*args, "--out", str(tmp_path / "labels"), capsys=capsys)
    assert status == 0, err
    table = read_labels(tmp_path / "labels")
    assert table.meta == LabelMeta(LADDER, IMAGE_FEATURE_VERSION, "llava-v1.5-7b-m3@1", IMPORT_VERSION)
    assert list(table.sample_id) == [f"bench/{sample.name}" for sample in samples]
    np.testing.assert_array_equal(table.score, right(samples))
    assert list(table.question) == [sample.question for sample in samples]
    for k in range(len(samples)):
        shown = Sample((tmp_path / "pictures" / f"{k // 2}.png").read_bytes(), "-", IMAGE_PX)
        assert table.image_sha256[k] == shown.image_sha256
        np.testing.assert_array_equal(table.image_features[k], shown.image_features)
    assert np.isnan(table.mean_logprob).all() and (table.visual_tokens == LADDER).all()
    mean = np.mean(right(samples), axis=0).round(4).tolist()
    assert told["mean_score"] == dict(zip(map(str, LADDER), mean, strict=True))
    assert told | {"seconds": 0, "out": ""} == {
        "out": "",
        "samples": 6,
        "pictures": 3,
        "scales": list(LADDER),
        "mean_score": told["mean_score"],
        "scored_by": "log",
        "matched_by": "question_id",
        "left_out": {},
        "seconds": 0,
    }


@pytest.mark.parametrize(
    ("logged", "score"),
    [
        ({"exact_match": 0.3}, 0.3),
        ({"relaxed_overall": 1.0, "relaxed_human_split": 1.0}, 1.0),
        ({"anls": 0}, 0.0),
        ({"mme_cognition_score": {"question_id": "OCR/1.png", "category": "OCR", "score": 1.0}}, 1.0),
        ({f"pope_{name}": {"question_id": 1, "score": 0.0} for name in ("accuracy", "f1_score")}, 0.0),
        ({"seed_all": {"pred": "B", "answer": "B", "question_id": 1}, "seed_image": {"pred": "B", "answer": "B"}}, 1.0),
        ({"mmmu_acc": {"id": "x", "question_type": "multiple-choice", "answer": "A", "parsed_pred": ["B"]}}, 0.0),
        ({"mmmu_acc": {"id": "x", "question_type": "open", "answer": "3", "parsed_pred": [["3"]]}}, None),
        ({"mmmu_judge_acc": {"id": "x", "answer": "A", "score": ["1"]}}, 1.0),
        ({"gpt_eval_score": {"index": 3, "answer": "A", "prediction": "A. red"}}, None),
        ({}, None),
    ],
)
def test_scores_are_found_in_the_shapes_of_lmms_evals_tasks(
    tmp_path: Path, logged: dict[str, Any], score: float | None
):
    """Numbers, objects with a score, and choices beside their answers; other shapes are no scores."""
    row = {
        name: value for name, value in lmms_row(0, asked()[0], 0).items() if name not in ("exact_match", "submission")
    }
    (result,) = read_lmms_eval(write_lines(tmp_path / "samples_x.jsonl", [row | logged]))
    assert result.score == score


@pytest.mark.parametrize("said", [["red"], "red", [["red"]]])
def test_predictions_are_found_in_lmms_evals_old_and_new_shapes(tmp_path: Path, said: object):
    """One text, whether it stands alone, in a list, or in the list of a list."""
    rows = [lmms_row(0, asked()[0], 0, filtered_resps=said), lmms_row(1, asked()[0], 0, resps=said)]
    del rows[1]["filtered_resps"]
    results = read_lmms_eval(write_lines(tmp_path / "samples_x.jsonl", rows))
    assert [result.prediction for result in results] == ["red", "red"]


def test_half_a_character_in_an_answer_is_no_obstacle(tmp_path: Path):
    """JSON can spell what no table holds, where an answer was cut in the middle of a character."""
    samples = asked()
    records = [record(each, picture(tmp_path, "0")) for each in samples]
    files = lmms_files(tmp_path, samples, filtered_resps=["red \ud83d"])
    runs = {tokens: read_lmms_eval(file) for tokens, file in files.items()}
    write_table(import_results(runs, records, judge, Wish("m")), "m", tmp_path / "labels")
    assert len(read_labels(tmp_path / "labels")) == 6


def test_metrics_that_differ_are_chosen_from(tmp_path: Path):
    """Two measures of one answer are no one score: the message names both, and --metric takes one."""
    file = write_lines(tmp_path / "samples_x.jsonl", [lmms_row(0, asked()[0], 0, exact_match=0.0, anls=0.75)])
    with pytest.raises(InvalidInput, match=r"samples_x.jsonl:1: exact_match = 0, anls = 0.75; choose by --metric"):
        read_lmms_eval(file)
    assert read_lmms_eval(file, "anls")[0].score == 0.75
    with pytest.raises(InvalidInput, match="has no metric 'cider', only 'exact_match, anls'"):
        read_lmms_eval(file, "cider")
    write_lines(file, [lmms_row(0, asked()[0], 0, gpt_eval_score={"answer": "A", "prediction": "A. red"})])
    with pytest.raises(InvalidInput, match="there is no score in gpt_eval_score = {'answer': 'A'"):
        read_lmms_eval(file, "gpt_eval_score")


@pytest.mark.parametrize(
    ("ending", "write", "column", "value"),
    [
        ("_exact_matching_result.xlsx", write_xlsx, "hit", int),
        ("_auxmatch.xlsx", write_xlsx, "score", bool),
        ("_openai_result.csv", write_csv, "hit", int),
        ("_result.tsv", lambda file, rows: write_csv(file, rows, "\t"), "hit", float),
        ("_auxmatch.json", write_json, "score", bool),
    ],
)
def test_vlmevalkits_judged_tables_are_read(
    tmp_path: Path, ending: str, write: Callable[..., Path], column: str, value: Callable[[bool], object]
):
    """Of a model's folder the judged table is taken, not the predictions and not the means beside it."""
    samples = asked()
    rows = vlm_rows(samples, 1)
    write_xlsx(tmp_path / "m3_Bench.xlsx", rows)
    write_csv(tmp_path / "m3_Bench_acc.csv", [{"Overall": 50.0}])
    write(tmp_path / f"m3_Bench{ending}", [{**row, column: value(row["prediction"] == row["answer"])} for row in rows])
    results = read_vlmevalkit(tmp_path)
    assert [result.score for result in results] == [each[1] for each in right(samples)]
    assert [result.key for result in results] == [sample.name for sample in samples]
    assert [result.prediction for result in results] == [sample.said[1] for sample in samples]


def test_vlmevalkits_distances_are_no_scores(tmp_path: Path):
    """eval_score is the distance from the answer for DocVQA, so it isn't taken unless it is asked for."""
    rows = [{**row, "eval_gt": "['red']", "eval_match": "[0.0]", "eval_score": 0.0} for row in vlm_rows(asked(), 2)]
    file = write_xlsx(tmp_path / "m3_DocVQA_VAL_results.xlsx", rows)
    assert {result.score for result in read_vlmevalkit(file)} == {None}
    assert {result.score for result in read_vlmevalkit(file, "eval_score")} == {0.0}


def test_predictions_alone_are_judged_by_the_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """VLMEvalKit's tables of predictions, and LLaVA's answers, hold no scores; the record's scorer gives them."""
    samples = [replace(each, said=tuple(f"{said.upper()} " for said in each.said)) for each in asked()]
    data = write_own(tmp_path, samples)
    tables = []
    for scale, tokens in enumerate(LADDER):
        file = write_xlsx(tmp_path / f"{tokens}" / "m3_Bench.xlsx", vlm_rows(samples, scale))
        tables += ["--run", f"{tokens}={file.parent}"]
    common = ["--read", "own", "--data", str(data), "--images", str(tmp_path / "pictures")]
    for tool, runs in (("vlmevalkit", tables), ("llava", write_llava(tmp_path / "answers", samples))):
        out = tmp_path / f"labels-{tool}"
        status, told, err = run("--from", tool, *runs, *common, "--out", str(out), capsys=capsys)
        assert status == 0 and told["scored_by"] == "benchmark", err
        np.testing.assert_array_equal(read_labels(out).score, right(asked()))


def test_llavas_chunks_are_one_run_and_rounds_after_the_first_are_none(tmp_path: Path):
    """A folder's merge.jsonl stands for its chunks; without one, they are read. MMBench's rounds rotate options."""
    rows = [{"question_id": k, "round_id": r, "prompt": f"q{k}", "text": f"{r}"} for k in (1, 2) for r in (0, 1)]
    write_lines(tmp_path / "2_0.jsonl", rows[:2])
    write_lines(tmp_path / "2_1.jsonl", rows[2:])
    chunks = read_llava(tmp_path)
    write_lines(tmp_path / "merge.jsonl", rows)
    assert read_llava(tmp_path) == chunks
    assert [(each.key, each.prediction) for each in chunks] == [("1", "0"), ("2", "0")]


def test_two_questions_under_one_id_are_told_apart_by_what_they_ask(tmp_path: Path):
    """MME's logs name the picture, its reader the picture and the line; each finds its own."""
    file = picture(tmp_path, "0001")
    rows = [{"question_id": "OCR/0001.png", "prompt": f"{q}{SHORT}", "text": q} for q in ("Is it so?", "Is it not?")]
    results = read_llava(write_lines(tmp_path / "1.jsonl", rows))
    records = [
        Record(f"OCR/0001-{line}", "mme", "OCR", (Picture(file),), question + SHORT, (answer,), "yes_no")
        for line, question, answer in ((1, "Is it not?", "no"), (2, "Is it so?", "yes"))
    ]
    joined = join({1: results, 9: results}, records)
    assert [(each.record.record_id, each.results[0].prediction) for each in joined.samples] == [
        ("OCR/0001-2", "Is it so?"),
        ("OCR/0001-1", "Is it not?"),
    ]


def test_llavas_textvqa_answers_are_found_by_picture_and_question(tmp_path: Path):
    """Its ids are the pictures', and its prompts hold what an OCR engine read."""
    files = [picture(tmp_path, name) for name in ("003a8ae2ef43b901", "00685bc495504d61")]
    records, rows = [], []
    for file in files:
        for question in ("What does it say?", "Who made this?"):
            name = f"{len(records)}"
            records.append(Record(name, "textvqa", "textvqa", (Picture(file),), question + SHORT, ("x",), "vqa"))
            prompt = f"{question}\nReference OCR token: {file.stem}, DAKOTA{SHORT}"
            rows.append({"question_id": file.stem, "prompt": prompt, "text": name})
    results = read_llava(write_lines(tmp_path / "1.jsonl", list(reversed(rows))))
    joined = join({1: results, 9: results}, records)
    assert joined.by == "question_id" and len(joined.samples) == 4
    assert all(each.record.record_id == each.results[0].prediction for each in joined.samples)


def changed(rows: dict[int, list[dict[str, Any]]], what: str) -> None:
    """One mismatch, made in the logs of a whole world."""
    if what == "missing":
        del rows[9][2]
    elif what == "hash":
        rows[9][2]["doc_hash"] = "other"
    elif what == "question":
        rows[36][2]["input"] = "Something else?"
    elif what == "stranger":
        for each in rows.values():
            each.append({**each[0], "doc_id": 77, "submission": {"question_id": 77}, "input": "Who?", "target": "me"})
    elif what == "unasked":
        for each in rows.values():
            del each[2]
    elif what == "disputed":
        for each in rows.values():
            each[2]["input"] = f"Something else?{SHORT}"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "import-m3: 1 samples missing at some scale: 2 (at 9); --partial"),
        ("hash", "1 samples whose row, question or right answer differs between scales: 2; --partial"),
        ("question", "1 samples whose row, question or right answer differs between scales: 2; --partial"),
        ("stranger", "1 results without a record: 77"),
        ("unasked", "1 records without a result: 102"),
        ("disputed", "1 results that ask something else than their record: 2 'Something else?"),
    ],
)
def test_what_does_not_fit_is_named_and_refused_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, message: str
):
    """In one line, with how many and which; with --partial the rest becomes a table, and the counts are told."""
    samples = asked(12)
    data = write_own(tmp_path, samples)
    rows = {
        tokens: [lmms_row(k, sample, scale) for k, sample in enumerate(samples)] for scale, tokens in enumerate(LADDER)
    }
    changed(rows, what)
    args = ["--from", "lmms-eval", "--read", "own", "--data", str(data), "--images", str(tmp_path / "pictures")]
    for tokens, lines in rows.items():
        args += ["--run", f"{tokens}={write_lines(tmp_path / f'{tokens}' / 'samples_x.jsonl', lines)}"]
    out = tmp_path / "labels"
    status, _, err = run(*args, "--out", str(out), capsys=capsys)
    assert status == 2 and message in complaint(err) and "--partial leaves them out" in complaint(err)
    assert not out.exists()
    status, told, err = run(*args, "--out", str(out), "--partial", capsys=capsys)
    assert status == 0 and told["left_out"] and "left out: 1 " in err
    kept = [sample for sample in samples if what == "stranger" or sample.name != "102"]
    assert list(read_labels(out).sample_id) == [f"bench/{sample.name}" for sample in kept]
    np.testing.assert_array_equal(read_labels(out).score, right(kept))


def test_failed_answers_unusable_rows_and_broken_pictures_are_left_out(tmp_path: Path):
    """An API's failure is no wrong answer, and a picture that can't be decoded has no features."""
    samples = asked(12)
    files = [picture(tmp_path, str(k), seed=k) for k in range(12)]
    files[3].write_bytes(b"no picture")
    rows = [vlm_rows(samples, scale) for scale in range(len(LADDER))]
    rows[1][5]["prediction"] = "Failed to obtain answer via API."
    runs = {
        tokens: read_vlmevalkit(write_csv(tmp_path / f"{tokens}.csv", rows[scale]))
        for scale, tokens in enumerate(LADDER)
    }
    records: list[Record | Problem] = [record(each, file) for each, file in zip(samples, files, strict=True)]
    records[7] = replace(record(samples[7], files[7]), pictures=())
    records.append(Problem(tmp_path / "bench.json", 13, "there is no picture 12.png"))
    failed = (
        r"^1 samples without an answer at some scale: 105; 1 rows that .*bench.json:13: there is no picture 12.png; "
    )
    with pytest.raises(InvalidInput, match=failed):
        import_results(runs, records, judge, Wish("m"))
    blind = r"^2 records whose picture can't be used: 103 \(10 bytes .*\), 107 \(there is no picture\); --partial"
    del rows[1][5]["prediction"]
    sound = [{**row, "prediction": row.get("prediction", "x")} for row in rows[1]]
    whole = {**runs, 9: read_vlmevalkit(write_csv(tmp_path / "9.csv", sound))}
    with pytest.raises(InvalidInput, match=blind):
        import_results(whole, records[:-1], judge, Wish("m"))
    imported = import_results(runs, records, judge, Wish("m", partial=True))
    left = {row.sample_id.removeprefix("bench/") for row in imported.rows}
    assert left == {sample.name for sample in samples} - {"103", "105", "107"}


def test_a_sample_twice_in_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """lmms-eval appends to its logs: two runs in one file can't be told apart, not even with --partial."""
    samples = asked()
    data = write_own(tmp_path, samples)
    runs = write_lmms(tmp_path / "logs", samples)
    file = next((tmp_path / "logs" / "9").rglob("*samples*"))
    file.write_text(file.read_text() + file.read_text())
    args = ["--from", "lmms-eval", *runs, "--read", "own", "--data", str(data), "--images", str(tmp_path / "pictures")]
    status, _, err = run(*args, "--out", str(tmp_path / "labels"), "--partial", capsys=capsys)
    assert status == 2
    assert complaint(err) == "import-m3: the run of 9 tokens holds 6 samples more than once: 0, 1, 2, ..."


def test_scores_outside_0_to_1_are_refused_or_scaled(tmp_path: Path):
    """Percentages and sums look like scores; the message names the value, and the scale has to be said."""
    samples = asked()
    files = [picture(tmp_path, str(k), seed=k) for k in range(6)]
    records = [record(each, file) for each, file in zip(samples, files, strict=True)]
    runs = {}
    for scale, tokens in enumerate(LADDER):
        rows = [{**row, "score": 87.5} for row in vlm_rows(samples, scale)]
        runs[tokens] = read_vlmevalkit(write_csv(tmp_path / f"{tokens}_auxmatch.csv", rows))
    with pytest.raises(InvalidInput, match=r"sample 100 has score 87.5 at 1 tokens; scores lie in \[0, 1\]"):
        import_results(runs, records, judge, Wish("m"))
    imported = import_results(runs, records, judge, Wish("m", score_scale=100))
    assert {row.score for row in imported.rows} == {0.875}
    with pytest.raises(InvalidInput, match=r"scores lie in \[0, 50\]"):
        import_results(runs, records, judge, Wish("m", score_scale=50))
    anew = import_results(runs, records, judge, Wish("m", rescore=True))
    assert anew.scored_by == "benchmark" and {row.score for row in anew.rows} == {0.0, 1.0}


def test_two_judges_are_not_mixed(tmp_path: Path):
    """Where some results have a score and others none, nothing is judged unless it is all judged anew."""
    samples = asked()
    records = [record(each, picture(tmp_path, "0")) for each in samples]
    runs = {tokens: read_lmms_eval(lines) for tokens, lines in lmms_files(tmp_path, samples).items()}
    runs[9][3] = replace(runs[9][3], score=None)
    with pytest.raises(InvalidInput, match=r"1 results have no score: 3 \(at 9\); --rescore judges all of them anew"):
        import_results(runs, records, judge, Wish("m"))
    assert import_results(runs, records, judge, Wish("m", rescore=True)).scored_by == "benchmark"


def lmms_files(folder: Path, samples: Sequence[Asked], **changes: Any) -> dict[int, Path]:
    return {
        tokens: write_lines(
            folder / f"{tokens}" / "samples_x.jsonl",
            [lmms_row(k, sample, scale, **changes) for k, sample in enumerate(samples)],
        )
        for scale, tokens in enumerate(LADDER)
    }


@pytest.mark.parametrize(("order", "by"), [(range(12), "place"), (range(11, -1, -1), "question")])
def test_samples_without_a_common_id_are_found_by_place_or_question(tmp_path: Path, order: Sequence[int], by: str):
    """ChartQA's logs have only the row's place; where the benchmark's order is another one, the question tells."""
    samples = asked(12)
    file = picture(tmp_path, "0")
    runs = {tokens: read_lmms_eval(each) for tokens, each in lmms_files(tmp_path, samples, submission=None).items()}
    records = [replace(record(samples[k], file), record_id=f"human-{k}") for k in order]
    joined = join(runs, records)
    assert joined.by == by and not joined.left_out
    assert [each.record.question for each in joined.samples] == [sample.question + SHORT for sample in samples]


def test_where_all_questions_are_alike_the_right_answers_tell_the_ids(tmp_path: Path):
    """Ids that count from 1 and places that count from 0 both find records that ask the same."""
    samples = [replace(each, question="Which colour is it?") for each in asked(12)]
    file = picture(tmp_path, "0")
    runs = {tokens: read_lmms_eval(each) for tokens, each in lmms_files(tmp_path, samples, submission=None).items()}
    records = [replace(record(each, file), record_id=f"{k}") for k, each in enumerate(samples, 1)]
    first = replace(record(replace(samples[0], answer="x"), file), record_id="0")  # so that doc_id 0 finds one too
    joined = join(runs, [*records, first])
    assert joined.by == "place"
    assert all(each.record.references == (each.results[0].target,) for each in joined.samples)


def test_questions_asked_of_several_pictures_do_not_tell_them_apart(tmp_path: Path):
    """The same question with the same answer, about two pictures: neither result is given to either record."""
    samples = asked(12)
    samples[5] = replace(samples[5], question=samples[4].question, answer=samples[4].answer)
    file = picture(tmp_path, "0")
    runs = {tokens: read_lmms_eval(each) for tokens, each in lmms_files(tmp_path, samples, submission=None).items()}
    records = [replace(record(each, file), record_id=f"human-{each.name}") for each in reversed(samples)]
    joined = join(runs, records)
    assert joined.by == "question" and len(joined.samples) == 10
    assert [(each.what, each.names) for each in joined.left_out] == [
        ("results without a record", ("4", "5")),
        ("records without a result", ("human-105", "human-104")),
    ]


def test_logs_of_other_data_are_refused_whatever_is_allowed(tmp_path: Path):
    """Ids that exist in both but name other questions are no few mismatches to leave out."""
    samples = asked(12)
    file = picture(tmp_path, "0")
    runs = {tokens: read_lmms_eval(each) for tokens, each in lmms_files(tmp_path, samples).items()}
    records = [replace(record(each, file), question=f"How many {each.name} are there?") for each in samples]
    with pytest.raises(InvalidInput, match="the logs are of other data: 12 questions differ: 0 'Which colour"):
        import_results(runs, records, judge, Wish("m", partial=True))


def test_hashes_of_pictures_in_memory_are_not_held_against_the_runs(tmp_path: Path):
    """A row that holds its picture is hashed with the picture's address, which differs in every run."""
    samples = asked()
    runs = {
        tokens: [replace(each, doc_hash=f"{tokens}-{each.key}") for each in read_lmms_eval(file)]
        for tokens, file in lmms_files(tmp_path, samples).items()
    }
    joined = join(runs, [record(each, picture(tmp_path, "0")) for each in samples])
    assert len(joined.samples) == 6 and not joined.left_out


def test_questions_compare_without_what_all_of_them_share():
    """Instructions, capitals and punctuation aren't the question; options and read text may be added to it."""
    tool = [f"What is {k}? \nReference OCR token: {k}{k}, b\nAnswer the question using one word." for k in "abcd"]
    benchmark = [f"what is {k}\nAnswer briefly." for k in "abcd"]
    assert bare(benchmark) == [(f"what is {k}",) for k in "abcd"]
    assert all(map(same_question, bare(tool), bare(benchmark)))
    assert not any(map(same_question, bare(tool), reversed(bare(benchmark))))
    assert bare(["Same?"] * 5) == [("same",)] * 5


OPTIONS = "\nAnswer with the option's letter from the given choices directly."


def mme_world(folder: Path) -> tuple[Path, list[str], list[str]]:
    """MME's folder; what lmms-eval logs for it, doc by doc, in another order."""
    keys, asked = [], []
    for name in ("0002", "0001"):
        file = picture(folder / "OCR", name)
        questions = [f"Is the word {word}{name}?" for word in ("HALL", "HELL")]
        (folder / "OCR" / f"{name}.txt").write_text(
            "".join(f"{q} Please answer yes or no.\t{a}\n" for q, a in zip(questions, ("Yes", "No"), strict=True))
        )
        keys += [f"OCR/{file.name}"] * 2
        asked += [question + SHORT for question in questions]
    return folder, keys, asked


def mmbench_world(folder: Path) -> tuple[Path, list[str], list[str]]:
    """MMBench's table; what lmms-eval asks has the options on the question's own line."""
    data = base64.b64encode(picture(folder, "0").read_bytes()).decode()
    rows, asked = [], []
    for k, hint in enumerate(("", "It is noon.", "", "It is dark.")):
        rows.append(
            {"index": k + 7, "question": f"Who is it, {k}?", "hint": hint or "nan", "A": f"a {k}", "B": "a dog"}
        )
        rows[k] |= {"C": "nan", "D": "nan", "answer": "B", "category": "who", "image": data}
        asked.append(f"{hint} Who is it, {k}? There are several options:\nA. a {k}\nB. a dog{OPTIONS}".lstrip())
    return write_csv(folder / "mmbench_dev_20230712.tsv", rows, "\t"), [str(row["index"]) for row in rows], asked


@pytest.mark.parametrize(
    ("reader", "world", "metric"),
    [
        ("mme", mme_world, lambda key: {"mme_percetion_score": {"question_id": key, "score": 1.0}}),
        ("mmbench", mmbench_world, lambda key: {"gpt_eval_score": {"index": int(key), "prediction": "B. a dog"}}),
    ],
)
def test_benchmarks_and_tools_word_and_name_questions_differently(
    tmp_path: Path, reader: str, world: Callable[[Path], tuple[Path, list[str], list[str]]], metric: Any
):
    """Each result finds its own record among the reader's, by what lmms-eval logs for that benchmark."""
    data, keys, questions = world(tmp_path / reader)
    rows = [
        {"doc_id": k, "filtered_resps": ["B. a dog"], "target": "B", "input": question, **metric(key)}
        for k, (key, question) in enumerate(zip(keys, questions, strict=True))
    ]
    results = read_lmms_eval(write_lines(tmp_path / "samples_x.jsonl", rows))
    joined = join({1: results, 9: results}, read(reader, data))
    assert not joined.left_out and len(joined.samples) == 4
    for sample, question in zip(joined.samples, questions, strict=True):
        assert sample.record.question.splitlines()[0].split("?")[0] in question
    if reader == "mmbench":
        imported = import_results({1: results, 9: results}, read(reader, data), judge, Wish("m"))
        assert imported.scored_by == "benchmark" and {row.score for row in imported.rows} == {1.0}


def test_a_picture_is_looked_at_once(tmp_path: Path):
    """However many questions it has: its bytes are read once."""
    reads = []

    @dataclass(frozen=True)
    class Counted(Picture):
        def read(self) -> bytes:
            reads.append(self.path)
            return super().read()

    samples = asked()
    file = picture(tmp_path, "0")
    runs = {tokens: read_lmms_eval(each) for tokens, each in lmms_files(tmp_path, samples).items()}
    records = [replace(record(each, file), pictures=(Counted(file),)) for each in samples]
    imported = import_results(runs, records, judge, Wish("m"))
    assert reads == [file] and len(imported.rows) == 18


def test_datasets_share_a_table_but_samples_and_models_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A second dataset is added; the same samples again, or another model's, are refused."""
    out = str(tmp_path / "labels")

    def imports(name: str, model: str) -> tuple[int, str]:
        samples = asked()
        data = write_own(tmp_path / name, samples).rename(tmp_path / name / f"{name}.jsonl")
        runs = write_lmms(tmp_path / name / "logs", samples)
        args = ["--from", "lmms-eval", *runs, "--read", "own", "--data", str(data)]
        status = main([*args, "--images", str(tmp_path / name / "pictures"), "--model", model, "--out", out])
        return status, capsys.readouterr().err

    assert imports("one", "m@1")[0] == imports("two", "m@1")[0] == 0
    assert sorted(set(read_labels(Path(out)).dataset)) == ["one", "two"]
    status, err = imports("one", "m@1")
    assert status == 2 and "holds 6 of these samples: one/100, one/101" in complaint(err)
    status, err = imports("three", "m@2")
    assert status == 2 and "m@1" in complaint(err) and "m@2" in complaint(err)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--run", "1=nowhere", "--run", "9=nowhere"], "there is no file or folder nowhere"),
        (["--run", "1=nowhere"], "a router chooses among scales; give --run for two of them at least"),
        (["--run", "nine=x", "--run", "1=x"], "--run nine=x is not of the form 36=PATH"),
        (["--run", "9=x", "--run", "9=y"], "--run 9 is given twice"),
        (["--run", "1={empty}", "--run", "9={empty}"], "holds no log"),
        (["--run", "1={two}", "--run", "9={two}"], "holds 2 logs, such as samples_a.jsonl, samples_b.jsonl; name one"),
        (["--run", "1={torn}", "--run", "9={torn}"], "torn.jsonl:2: not JSON"),
        (["--run", "1={bench}", "--run", "9={bench}"], "bench.jsonl:1: has no 'doc_id', only "),
        (["--run", "1={torn}", "--run", "9={torn}", "--score-scale", "0"], "--score-scale 0.0 and"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
):
    """The line names the file or the option, and what would be right."""
    data = write_own(tmp_path, asked())
    paths = {name: str(tmp_path / name) for name in ("empty", "two", "torn")}
    (tmp_path / "empty").mkdir()
    write_lines(tmp_path / "two" / "samples_a.jsonl", [])
    write_lines(tmp_path / "two" / "samples_b.jsonl", [])
    paths["torn"] = str(write_lines(tmp_path / "torn.jsonl", [lmms_row(0, asked()[0], 0)]))
    Path(paths["torn"]).write_text(Path(paths["torn"]).read_text() + '{"doc_id": 1, "tar')
    given = [each.format(**paths, bench=data) for each in args]
    common = ["--from", "lmms-eval", "--read", "own", "--data", str(data), "--images", str(tmp_path / "pictures")]
    status, _, err = run(*common, *given, "--out", str(tmp_path / "labels"), capsys=capsys)
    assert status == 2 and complaint(err).startswith("import-m3: ") and message in complaint(err)


@pytest.mark.slow
def test_a_router_is_trained_on_an_imported_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where answers follow from how much is in the picture, the router spends fewer tokens than the finest scale."""
    rng = np.random.default_rng(0)
    files, samples = [], []
    for k in range(400):
        blobs = int(rng.integers(1, 40))
        files.append(picture(tmp_path / "pictures", f"{k}", blobs, seed=k))
        needed = int(np.digitize(blobs, [12, 26]))
        said = tuple("yes" if scale >= needed else "no" for scale in range(len(LADDER)))
        samples.append(Asked(str(k), f"Are there {k} objects?", "yes", said))
    rows = [
        {"picture": file.name, "question": sample.question, "answer": "yes", "id": sample.name}
        for file, sample in zip(files, samples, strict=True)
    ]
    data = write_lines(tmp_path / "bench.jsonl", rows)
    runs = write_llava(tmp_path / "answers", samples)
    args = ["--from", "llava", *runs, "--read", "own", "--data", str(data), "--images", str(tmp_path / "pictures")]
    status, _, err = run(*args, "--out", str(tmp_path / "labels"), capsys=capsys)
    assert status == 0, err
    status = train_router(["--threads", "1", str(tmp_path / "labels"), "--out", str(tmp_path / "router")])
    out, err = capsys.readouterr()
    assert status == 0, err
    policies = {each["name"]: each for each in json.loads(out.splitlines()[-1])["policies"]}
    assert policies["router"]["tokens"] < 0.8 * LADDER[-1]
    assert policies["router"]["accuracy"] > policies["fixed-9"]["accuracy"]


def test_the_documented_commands_are_taken(capsys: pytest.CaptureFixture[str]):
    """Each command of docs/import.md gets as far as its files, which aren't there."""
    page = (Path(__file__).parents[1] / "docs" / "import.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^import-m3 (.*)$", page, re.MULTILINE)
    for command in commands:
        assert main(shlex.split(command)) == 2
        assert "there is no" in complaint(capsys.readouterr().err)
    assert len(commands) == 3
