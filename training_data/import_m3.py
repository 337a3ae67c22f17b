"""The command `import-m3`: results of other evaluation tools, one run a scale, as a label table for `train-router`.

Who evaluated an elastic model at its scales has the labels already. Pictures are in no log, so the benchmark is read
too, by the readers of `training_data/readers/by_name.py`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import numpy as np
from tqdm import tqdm

from complexity.errors import InvalidInput, M3Error
from complexity.label_checks import SPLITS
from training_data.importing.logs import FORMATS, Result
from training_data.importing.results import IMAGE_PX, Imported, Wish, import_results, write_table
from training_data.readers.by_name import READERS, read
from training_data.readers.records import Record
from training_data.readers.store import folder_at
from training_data.scoring import SCORERS
from training_data.sweeping.showing import LAYOUTS


def _runs(told: Sequence[str], read: Callable[[Path, str | None], list[Result]], metric: str | None) -> dict[int, list]:
    """Each scale's results, from arguments like 36=logs/36."""
    paths: dict[int, Path] = {}
    for each in told:
        tokens, equals, path = each.partition("=")
        if not equals or not tokens.isdecimal() or int(tokens) < 1:
            raise InvalidInput(f"--run {each} is not of the form 36=PATH, visual tokens = a run's log")
        if int(tokens) in paths:
            raise InvalidInput(f"--run {tokens} is given twice")
        paths[int(tokens)] = Path(path)
    if len(paths) < 2:
        raise InvalidInput("a router chooses among scales; give --run for two of them at least")
    runs = {}
    with tqdm(sorted(paths), "runs", unit="run") as bar:
        for tokens in bar:
            runs[tokens] = read(paths[tokens], metric)
    return runs


def main(argv: list[str] | None = None) -> int:
    """Entry point of `import-m3`."""
    parser = argparse.ArgumentParser(
        "import-m3",
        description="Make a label table for train-router of what another evaluation tool logged at each scale.",
    )
    parser.add_argument("--from", dest="tool", choices=FORMATS, required=True, help="the tool that wrote the logs")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="TOKENS=PATH",
        help="the run at that many visual tokens: its log, or the folder that holds it; once for each scale",
    )
    parser.add_argument(
        "--read", required=True, choices=READERS, metavar="READER", help=f"the benchmark: {', '.join(READERS)}"
    )
    parser.add_argument("--data", type=Path, required=True, help="its questions: a file or folder, as the reader takes")
    parser.add_argument(
        "--images",
        type=folder_at,
        help="folder of its pictures, or s3://, gs://, hdfs://, file:// (where the data are)",
    )
    parser.add_argument("--answers", type=Path, help="its answers, where they have a file of their own")
    parser.add_argument("--data-split", help="its split, where a file has several")
    parser.add_argument("--model", required=True, help="name of the model, as the service has it, with its version")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the label table; other datasets may be there"
    )
    parser.add_argument(
        "--metric", help="the tool's metric or column of scores to take (the only one, or if all agree)"
    )
    parser.add_argument(
        "--rescore", action="store_true", help="judge predictions by the benchmark's scorer, not the tool's scores"
    )
    parser.add_argument("--score-scale", type=float, default=1.0, help="what the tool gives a right answer (1)")
    parser.add_argument("--partial", action="store_true", help="leave out what doesn't fit together; otherwise refused")
    parser.add_argument(
        "--split", choices=[s for s in SPLITS if s], default="", help="of the table (parted by picture)"
    )
    parser.add_argument(
        "--image-px",
        type=int,
        default=IMAGE_PX,
        help=f"pixels of a picture's shorter side that the model makes use of ({IMAGE_PX}; LLaVA-NeXT 672)",
    )
    parser.add_argument(
        "--several",
        choices=LAYOUTS,
        default="grid",
        help="how several pictures of a record were shown: in one, as in M3's paper (grid), or each by itself (apart)",
    )
    args = parser.parse_args(argv)
    start = monotonic()
    wish = Wish(args.model, args.split, args.partial, args.rescore, args.score_scale, args.image_px, args.several)
    try:
        if not args.score_scale > 0 or args.image_px < 1:
            raise InvalidInput(f"--score-scale {args.score_scale} and --image-px {args.image_px} must be above 0")
        rows = read(args.read, args.data, args.images, answers=args.answers, split=args.data_split)
        runs = _runs(args.run, FORMATS[args.tool], args.metric)
        with tqdm(rows, "records", unit="record", mininterval=2.0) as bar:
            records = list(bar)
        imported = import_results(runs, records, judge, wish)
        write_table(imported, args.model, args.out)
    except M3Error as error:
        print(f"import-m3: {error}", file=sys.stderr)
        return 2
    for each in imported.left_out:
        print(f"left out: {each}", file=sys.stderr)
    print(json.dumps({"out": str(args.out), **_report(imported), "seconds": round(monotonic() - start, 1)}))
    return 0


def judge(prediction: str, record: Record) -> float:
    """The score by the benchmark's own measure."""
    return SCORERS[record.scorer](prediction, record.references, record.options)


def _report(imported: Imported) -> dict[str, object]:
    scores = np.array([row.score for row in imported.rows]).reshape(-1, len(imported.ladder))
    return {
        "samples": len(scores),
        "pictures": len({row.image_sha256 for row in imported.rows}),
        "scales": imported.ladder,
        "mean_score": dict(zip(map(str, imported.ladder), scores.mean(0).round(4).tolist(), strict=True)),
        "scored_by": imported.scored_by,
        "matched_by": imported.matched_by,
        "left_out": {each.what: len(each.names) for each in imported.left_out},
    }


if __name__ == "__main__":
    sys.exit(main())
