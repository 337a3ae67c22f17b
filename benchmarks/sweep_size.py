"""How sweeps of records grow: with actors, with the data's size, and to a 7B model's benchmarks on GPUs.

    python benchmarks/sweep_size.py

Sweeps drawn pictures with m3-tiny in one process of a thread and on Ray Data actors; streams made-up records, without
pictures and without the model, through what parts and batches them, and reads the process's largest memory; and
estimates GPU hours for the sets of the paper's table 2 from FLOPs and stated rates. Prints tables and one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from training_data.drawn.corpus import draw_item

QUESTIONS = 5  # of a picture
STREAM = """
import re, sys
from pathlib import Path
from training_data.sweeping.by_picture import batches, by_picture, distinct, part_of
from training_data.readers.records import Picture, Record

def told(count):
    for i in range(count):
        picture = Picture(path=Path(f"/pictures/{i // 5}.png"))
        yield Record(str(i), "made-up", "task", (picture,), f"What is {i}?", (str(i),), "exact")

root = Path("/pictures")
records = part_of(distinct(told(int(sys.argv[1])), root), None, (1, 1), root)
print(sum(len(group) for batch in batches(by_picture(records, root)) for group in batch))
# getrusage would tell the parent's
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""

# Questions of the sets in the paper's table 2, by the cards of datasets on the Hugging Face hub.
SETS = {
    "TextVQA (val)": 5000,  # lmms-lab/textvqa
    "AI2D (test)": 3088,  # lmms-lab/ai2d
    "ChartQA (test)": 2500,  # ahmed-masry/ChartQA
    "DocVQA (val)": 5349,  # lmms-lab/DocVQA; about 1,286 pages, by the set's paper (arXiv 2007.00398)
    "MMBench (dev)": 4329,  # lmms-lab/MMBench_CN: 1,164 questions with their options rotated
    "POPE": 9000,  # lmms-lab/POPE, about 500 pictures; 8,910 in LLaVA's scripts (haotian-liu/LLaVA, issue 626)
    "ScienceQA (test, with pictures)": 2017,  # lmms-lab/ScienceQA, ScienceQA-IMG
    "MMMU (val)": 900,  # lmms-lab/MMMU
}
PARAMETERS = 6.74e9  # of the language model, LLaMA 7B
TOWER_FLOPS = 2 * 304e6 * 577  # CLIP ViT-L/14 at 336 pixels, a tile
TILES, SCALES = 5, (1, 9, 36, 144, 576)  # LLaVA-NeXT: up to five tiles of each scale
TEXT, ANSWER, ROWS = 60, 10, 64  # tokens of question and answer; answers written together
MATRIX_RATE, MEMORY_RATE, SHARE = 989e12, 3.35e12, 0.4  # H100 SXM, bfloat16 dense and HBM3 by its data sheet; reached


def write_data(folder: Path, records: int) -> Path:
    """So many questions about drawn pictures, as own data."""
    folder.mkdir()
    lines: list[str] = []
    index = 0
    while len(lines) < records:
        item = draw_item("test", 5, index, QUESTIONS)
        (folder / f"{index}.png").write_bytes(item.png)
        lines += [
            json.dumps({"picture": f"{index}.png", "question": each.text, "answer": each.answer, "scorer": "contains"})
            for each in item.questions
        ]
        index += 1
    data = folder / "questions.jsonl"
    data.write_text("\n".join(lines[:records]) + "\n")
    return data


def swept_s(data: Path, out: Path, records: int, *options: str) -> float:
    """Seconds of a whole `sweep-m3`, its start included."""
    command = [sys.executable, "-c", "import sys; from training_data.sweep import main; sys.exit(main())"]
    start = perf_counter()
    done = subprocess.run(
        [*command, "--read", "own", "--data", str(data), "--out", str(out), *options],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout.splitlines()[-1])["new"] == records
    return perf_counter() - start


def streamed_mb(records: int) -> float:
    """Largest memory of a process that parts and batches so many records, MiB."""
    done = subprocess.run([sys.executable, "-c", STREAM, str(records)], check=True, capture_output=True, text=True)
    passed, peak_mb = done.stdout.split()
    assert int(passed) == records
    return float(peak_mb)


def gpu_hours(questions: int) -> float:
    """Hours of one GPU to answer at all scales in one prompt; each question with a picture of its own."""
    flops = 2 * PARAMETERS * (TILES * sum(SCALES) + len(SCALES) * TEXT) + TILES * TOWER_FLOPS  # a question
    write_s = ANSWER * len(SCALES) * 2 * PARAMETERS / MEMORY_RATE / ROWS  # the weights are read once for all rows
    return questions * (flops / (MATRIX_RATE * SHARE) + write_s) / 3600


def timed(records: int, actors: Sequence[int]) -> dict[str, float]:
    """Records a second, in one process and by actors."""
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data", records)
        tries = {"one process": (), **{f"{count} actors": ("--actors", str(count)) for count in actors}}
        print(f"{'':14}{'records/s':>10}{'s':>8}   {records} records, Ray's start included")
        for i, (name, options) in enumerate(tries.items()):
            took_s = swept_s(data, Path(folder) / f"labels-{i}", records, *options)
            rates[name] = round(records / took_s, 2)
            print(f"{name:14}{rates[name]:10.1f}{took_s:8.1f}", flush=True)
    return rates


def streamed(rows: Sequence[int]) -> dict[str, int]:
    """Largest memory by records that are streamed, MiB."""
    memory_mb = {str(each): round(streamed_mb(each)) for each in rows}
    print(f"\n{'records':>8}{'largest memory, MiB':>22}")
    for each, peak_mb in memory_mb.items():
        print(f"{each:>8}{peak_mb:22}")
    return memory_mb


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how sweeps of records grow.")
    parser.add_argument("--records", type=int, default=1000, help="questions of a timed sweep (1000)")
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2], help="numbers of actors (1 2)")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[1000, 20_000, 200_000], help="records that are streamed"
    )
    parser.add_argument("--estimate", action="store_true", help="the estimate alone; nothing is measured")
    args = parser.parse_args()
    rates = {} if args.estimate else timed(args.records, args.actors)
    memory_mb = {} if args.estimate else streamed(args.rows)
    hours = {name: round(gpu_hours(count), 2) for name, count in SETS.items()}
    print(
        f"\nH100 hours for a 7B LLaVA-NeXT-M3 at all scales, {SHARE:.0%} of the data sheet's rate (estimated, not run)"
    )
    for name, value in hours.items():
        print(f"{name:34}{value:6.2f}")
    print(f"{'all':34}{sum(hours.values()):6.2f}")
    print(json.dumps({"records_per_s": rates, "memory_mb": memory_mb, "gpu_hours": hours}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
