"""Does the router know what it doesn't know? Shares of samples called unfamiliar.

    python benchmarks/strangers.py LABELS [--pictures DIR] [--artifact DIR]

Of the table's calibration, test and shifted rows, by picture and by question; and of the pictures in a folder, each
asked questions as the training data words them. Prints a table and, as its last line, one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from complexity.errors import InvalidInput, M3Error
from complexity.image_features import image_features
from complexity.labels import LabelTable, read_labels
from complexity.sample import Sample
from router.artifact import Artifact, load_artifact
from router.choosers import looks
from router.split import split_table
from serving.m3 import load
from serving.m3.tower_features import tower_features

ARTIFACT = Path(__file__).parents[1] / "router/artifacts/m3-tiny"
SIDE_PX = 192  # of the pictures as m3-tiny needs them
FOREIGN = ("¿De qué color es el fondo?", "Welche Farbe hat der Hintergrund?", "Quelle heure est-il ?", "Quanti sono?")


def shares(artifact: Artifact, rows: LabelTable) -> dict[str, float]:
    usual = artifact.familiarity
    pictures = usual.distance(looks(rows, artifact.place)) > usual.picture_limit
    questions = np.array([usual.new_words(question) > usual.question_limit for question in rows.question])
    told = {"by picture": pictures, "by question": questions, "unfamiliar": pictures | questions}
    return {name: round(float(each.mean()), 4) for name, each in told.items()}


def folder_share(artifact: Artifact, folder: Path, question: str) -> tuple[int, float]:
    """How many of a folder's files are pictures, and which share of them is unfamiliar by itself."""
    m3 = load() if artifact.place == "tower" else None
    known = []
    for path in tqdm(sorted(each for each in folder.rglob("*") if each.is_file()), file=sys.stderr, leave=False):
        try:
            sample = Sample(path.read_bytes(), question, SIDE_PX)
            if m3 is None:
                features = image_features(sample.picture, sample.decoded.size)
            else:
                features = tower_features(m3.encode([sample.picture])[0].tiles, m3.ladder)
        except InvalidInput:
            continue
        known.append(bool(artifact.familiarity.knows(features[None], [question])[0]))
    return len(known), 1 - float(np.mean(known)) if known else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Rates of samples called unfamiliar.")
    parser.add_argument("labels", type=Path, help="label table: a .parquet file or a folder of them")
    parser.add_argument("--pictures", type=Path, help="folder of other pictures")
    parser.add_argument("--artifact", type=Path, default=ARTIFACT, help="router trained on the table (the shipped one)")
    args = parser.parse_args()
    try:
        artifact = load_artifact(args.artifact)
        splits = split_table(read_labels(args.labels))
    except M3Error as error:
        print(f"strangers.py: {error}", file=sys.stderr)
        return 2
    told: dict[str, object] = {}
    for name in ("calibration", "test", "shifted"):
        rows = getattr(splits, name)
        if rows is not None:
            told[name] = shares(artifact, rows)
            print(f"{name:12}{len(rows):6} pairs  " + "  ".join(f"{k} {v:.2%}" for k, v in told[name].items()))  # type: ignore[attr-defined]
    familiar = splits.test.question[0]
    usual = np.tile(looks(splits.test, artifact.place)[0], (len(FOREIGN), 1))
    told["foreign questions"] = float(1 - artifact.familiarity.knows(usual, list(FOREIGN)).mean())
    print(f"{len(FOREIGN)} questions in other languages: {told['foreign questions']:.0%} unfamiliar")
    if args.pictures is not None:
        count, share = folder_share(artifact, args.pictures, familiar)
        told["pictures"] = {"count": count, "unfamiliar": round(share, 4)}
        print(f"{count} pictures of {args.pictures.name}: {share:.1%} unfamiliar")
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
