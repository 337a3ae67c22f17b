"""Is the router's certificate kept? Resampled calibration sets, and how many rows a certificate needs.

    python benchmarks/certify.py LABELS [--artifact DIR]

The calibration and test pictures, from which the predictor never learnt, stand for the traffic. Calibration sets of one
row a picture are drawn from them 200 times, with replacement; a price is certified on each (router/certify.py). The
promise is broken where the rate of harmful flips at that price exceeds alpha among all the traffic; at most
1 - confidence of the draws may do so. The same is told of the pictures that weren't drawn, whose own sampling error
comes on top. Every picture counts alike. Prints a table and, as its last line, one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from complexity.errors import M3Error
from complexity.labels import read_labels
from router.artifact import load_artifact
from router.calibrate import PRICES
from router.certify import certified_price, harmful, rows_needed
from router.policy import FINEST_ALWAYS, choose_rung, worth
from router.split import split_table

ARTIFACT = Path(__file__).parents[1] / "router/artifacts/m3-tiny"
ALPHAS = (0.01, 0.02, 0.03, 0.05, 0.08)
ROWS = (250, 500, 1000, 2000, 4000)  # of a calibration set


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the certificate by resampling.")
    parser.add_argument("labels", type=Path, help="label table: a .parquet file or a folder of them")
    parser.add_argument("--artifact", type=Path, default=ARTIFACT, help="router trained on it (the shipped one)")
    parser.add_argument("--confidence", type=float, default=0.9, help="of the certificate (0.9)")
    parser.add_argument("--draws", type=int, default=200, help="calibration sets (200)")
    args = parser.parse_args()
    try:
        artifact = load_artifact(args.artifact)
        table = read_labels(args.labels)
        splits = split_table(table)
    except M3Error as error:
        print(f"certify.py: {error}", file=sys.stderr)
        return 2
    unseen = np.concatenate([splits.calibration.sample_id, splits.test.sample_id])
    rows = table.select(np.isin(table.sample_id, unseen))
    worths = worth(artifact.predictor.predict_proba(rows.image_features, rows.question), artifact.costs)
    names, pictures, questions = np.unique(rows.image_sha256, return_inverse=True, return_counts=True)
    by_picture = np.argsort(pictures, kind="stable")
    starts = np.concatenate([[0], np.cumsum(questions)[:-1]])
    ladder = np.asarray(artifact.ladder)

    def per_picture(values: np.ndarray) -> np.ndarray:
        return np.bincount(pictures, weights=values) / questions

    flips = {price: per_picture(harmful(rows.score, choose_rung(worths, price))) for price in PRICES}
    tokens = {price: per_picture(ladder[choose_rung(worths, price)]) for price in PRICES}
    rng = np.random.default_rng(0)
    found = []
    print(f"{len(rows)} pairs of {len(names)} pictures; {args.draws} draws; confidence {args.confidence:g}")
    print(f"{'alpha':>6}{'rows':>7}{'certified':>11}{'broken':>8}{'undrawn':>9}{'mean tokens':>13}{'mean rate':>11}")
    for alpha in ALPHAS:
        for count in ROWS:
            prices, undrawn = [], 0
            for _ in tqdm(range(args.draws), file=sys.stderr, leave=False, desc=f"alpha {alpha:g}, {count} rows"):
                drawn = rng.integers(len(names), size=count)
                picked = by_picture[starts[drawn] + rng.integers(questions[drawn])]
                price, _ = certified_price(worths[picked], rows.score[picked], PRICES, alpha, args.confidence)
                rest = np.ones(len(names), bool)
                rest[drawn] = False
                undrawn += flips[price][rest].mean() > alpha
                prices.append(price)
            rates = np.array([flips[price].mean() for price in prices])
            line = {
                "alpha": alpha,
                "rows": count,
                "certified": float(np.mean([price != FINEST_ALWAYS for price in prices])),
                "broken": float((rates > alpha).mean()),
                "undrawn": undrawn / args.draws,
                "tokens": round(float(np.mean([tokens[price].mean() for price in prices])), 1),
                "rate": round(float(rates.mean()), 5),
            }
            found.append(line)
            print(
                "{alpha:6.2f}{rows:7d}{certified:11.0%}{broken:8.1%}{undrawn:9.1%}{tokens:13.1f}{rate:11.4f}".format(
                    **line
                )
            )
    print("\nrows needed to certify in nine draws of ten a price whose true rate is this share of alpha")
    shares = (0.0, 0.25, 0.5, 0.75)
    print(f"{'alpha':>6}" + "".join(f"{share:>9.0%}" for share in shares))
    needed = {}
    for alpha in ALPHAS:
        needed[str(alpha)] = [rows_needed(alpha, share * alpha, args.confidence) for share in shares]
        print(f"{alpha:6.2f}" + "".join(f"{count or '-':>9}" for count in needed[str(alpha)]))
    print(json.dumps({"confidence": args.confidence, "draws": args.draws, "checks": found, "rows_needed": needed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
