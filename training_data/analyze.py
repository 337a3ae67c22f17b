"""The command `analyze-m3`: what a model's scales are worth, from a label table or from published scores."""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from complexity.errors import InvalidInput, M3Error
from complexity.labels import read_labels, table_sha256
from router.report import POINT
from training_data.analysis.analysis import analyse
from training_data.analysis.figures import draw_complexity, draw_needed, draw_scales, draw_scored
from training_data.analysis.gallery import make_gallery
from training_data.analysis.page import page, scores_page
from training_data.analysis.sample_complexity import picture_complexity
from training_data.analysis.score_table import analyse_scores, means, read_scores
from training_data.analysis.text import as_json, as_text, scores_as_text, scores_verdict, verdict

TWICE = 2  # published scores are also told at twice the allowed loss


def analyse_labels(
    labels: Path, again: Path | None, out: Path, max_loss: float, per_scale: int, seed: int
) -> tuple[str, dict[str, Any]]:
    """Analyse a label table into a folder: its tables for people, and what analysis.json holds.

    Raises:
        M3Error: a table can't be read or used.
    """
    with tqdm(total=4, file=sys.stderr, bar_format="{desc:24}{bar:30} {n_fmt}/{total_fmt} [{elapsed}]") as bar:
        bar.set_description_str("reading labels")
        table = read_labels(labels)
        redone = None if again is None else read_labels(again)
        bar.update()
        bar.set_description_str("analysing")
        found = analyse(table, redone, max_loss, seed)
        bar.update()
        bar.set_description_str("drawing")
        complexities, galleries, figures = {}, {}, {}
        for data in found:
            name = data.whole.dataset
            rows = table.select(table.dataset == name)
            complexities[name] = picture_complexity(rows, seed)
            galleries[name] = make_gallery(labels, rows, complexities[name].pictures, per_scale, seed)
            figures[name] = {"scales": draw_scales(data), "needed": draw_needed(data)}
            if complexities[name].correlations:
                figures[name]["complexity"] = draw_complexity(complexities[name].correlations)
        bar.update()
        bar.set_description_str("writing")
        command = f"analyze-m3 {labels.name}" + (f" --again {again.name}" if again is not None else "")
        command += f" --max-loss {max_loss:g} --seed {seed}"
        written = page(found, complexities, galleries, figures, table.meta, command)
        pngs = {
            f"analysis-{slug}-{kind}.png": png
            for slug, name in slugs(list(figures)).items()
            for kind, png in figures[name].items()
        }
        told = {
            "model": table.meta.model,
            "ladder": list(table.ladder),
            "labels_sha256": table_sha256(labels),
            "max_loss": max_loss,
            "seed": seed,
            "datasets": [
                {"name": data.whole.dataset, "verdict": verdict(data), **as_json(data)}
                | {"correlations": as_json(complexities[data.whole.dataset].correlations)}
                for data in found
            ],
        }
        write(out, written, pngs, told)
        bar.update()
    return as_text(found), told


def analyse_published(scores: Path, out: Path, max_loss: float) -> tuple[str, dict[str, Any]]:
    """Analyse a table of scores into a folder: its tables for people, and what analysis.json holds.

    Raises:
        M3Error: the table can't be read or used.
    """
    sets = analyse_scores(read_scores(scores), max_loss)
    over_all = means(sets, (max_loss, TWICE * max_loss))
    command = f"analyze-m3 --scores {scores.name} --max-loss {max_loss:g}"
    figure = draw_scored(sets)
    told = {
        "scores": scores.name,
        "max_loss": max_loss,
        "datasets": [
            {"verdict": scores_verdict(own), "take": own.tokens[own.recommended], **as_json(own)} for own in sets
        ],
        "means": as_json(over_all),
    }
    written = scores_page(sets, over_all, figure, max_loss, scores.stem, command)
    write(out, written, {"analysis-scores.png": figure}, told)
    return scores_as_text(sets, over_all, max_loss), told


def slugs(names: list[str]) -> dict[str, str]:
    """File names' parts for data sets, none twice: slug -> name."""
    found: dict[str, str] = {}
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"
        while slug in found:
            slug += "-"
        found[slug] = name
    return found


def write(out: Path, written: str, pngs: dict[str, bytes], told: dict[str, Any]) -> None:
    """Write analysis.html, analysis.json and the figures.

    Raises:
        InvalidInput: the folder can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, png in pngs.items():
            (out / name).write_bytes(png)
        (out / "analysis.html").write_text(written, "utf-8")
        (out / "analysis.json").write_text(json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise InvalidInput(f"--out {out} can't be written: {error.strerror}") from None


def main(argv: list[str] | None = None) -> int:
    """Entry point of `analyze-m3`."""
    parser = argparse.ArgumentParser(
        "analyze-m3",
        description="Tell what a model's scales are worth on each data set and task: scores, the oracle and its luck, "
        "who needs how much, which fixed scale to take and whether a router is needed; as a page with figures and "
        "examples.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("labels", type=Path, nargs="?", help="label table: a .parquet file or a folder of them")
    source.add_argument(
        "--scores",
        type=Path,
        metavar="CSV",
        help="mean scores instead of labels: columns dataset, policy (fixed or oracle), tokens, score in percent; an "
        "oracle's mean tokens charge unsolved samples the coarsest scale",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the page, the figures and analysis.json")
    parser.add_argument(
        "--again",
        type=Path,
        metavar="TABLE",
        help="label table of another rendering of the same samples (sweep-m3 --again 1): tells luck; without it a "
        "model of guesses and slips does",
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        default=POINT,
        metavar="SHARE",
        help="what a fixed scale may lose against the finest, as a share (default 0.01 = 1 point)",
    )
    parser.add_argument("--examples", type=int, default=3, help="samples shown of each granularity (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of intervals, folds and examples (default 0)")
    args = parser.parse_args(argv)
    start = time.monotonic()
    try:
        if not 0 <= args.max_loss < 1:
            raise InvalidInput(f"--max-loss {args.max_loss} must be a share of at least 0 and below 1")
        if args.examples < 0 or args.seed < 0:
            raise InvalidInput(f"--examples {args.examples} and --seed {args.seed} must be at least 0")
        if args.scores is not None:
            if args.again is not None:
                raise InvalidInput("--again needs labels; scores alone can't tell luck")
            text, told = analyse_published(args.scores, args.out, args.max_loss)
        else:
            options = (args.max_loss, args.examples, args.seed)
            text, told = analyse_labels(args.labels, args.again, args.out, *options)
    except M3Error as error:
        print(f"analyze-m3: {error}", file=sys.stderr)
        return 2
    print(text + "\n")
    page_path = str(args.out / "analysis.html")
    print(json.dumps({**told, "page": page_path, "seconds": round(time.monotonic() - start, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
