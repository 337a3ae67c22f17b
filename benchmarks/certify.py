"""Is the router's certificate kept? Resampled calibration sets, and how many rows a certificate needs.

    python benchmarks/certify.py LABELS [--artifact DIR]

From the calibration and test rows, which the predictor never learnt from, pictures are drawn 200 times as a calibration
set of one row each; a price is certified on them (router/certify.py) and the rate of harmful flips at that price is
measured on all rows of the other pictures. A rate above alpha breaks the promise; at most 1 - confidence of the draws
may. Prints a table and, as its last line, one JSON object.
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
from router.certify import certified_price, harmful, one_a_picture, rows_needed
from router.policy import FINEST_ALWAYS, choose_rung, worth
from router.split import split_table

ARTIFACT = Path(__file__).parents[1] / "router/artifacts/m3-tiny"
ALPHAS = (0.01, 0.02, 0.03, 0.05, 0.08)
SHARES = (0.25, 0.5, 0.75)  # of the pictures drawn as calibration sets


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
    flips = {price: harmful(rows.score, choose_rung(worths, price)) for price in PRICES}
    tokens = {price: np.asarray(artifact.ladder)[choose_rung(worths, price)] for price in PRICES}
    names, pictures = np.unique(rows.image_sha256, return_inverse=True)
    rng = np.random.default_rng(0)
    found = []
    print(f"{len(rows)} pairs of {len(names)} pictures; {args.draws} draws; confidence {args.confidence:g}")
    print(f"{'alpha':>6}{'rows':>7}{'certified':>11}{'broken':>8}{'mean tokens':>13}{'mean rate':>11}")
    for alpha in ALPHAS:
        for share in SHARES:
            broken, certified, spent, rates = 0, 0, [], []
            count = round(share * len(names))
            for draw in tqdm(range(args.draws), file=sys.stderr, leave=False, desc=f"alpha {alpha:g}, {count} rows"):
                drawn = np.zeros(len(names), bool)
                drawn[rng.choice(len(names), count, replace=False)] = True
                ours = np.flatnonzero(drawn[pictures])
                picked = ours[one_a_picture(pictures[ours], draw)]
                price, _ = certified_price(worths[picked], rows.score[picked], PRICES, alpha, args.confidence)
                rest = ~drawn[pictures]
                rate = float(flips[price][rest].mean())
                broken += rate > alpha
                certified += price != FINEST_ALWAYS
                rates.append(rate)
                spent.append(float(tokens[price][rest].mean()))
            line = {
                "alpha": alpha,
                "rows": count,
                "certified": certified / args.draws,
                "broken": broken / args.draws,
                "tokens": round(float(np.mean(spent)), 1),
                "rate": round(float(np.mean(rates)), 5),
            }
            found.append(line)
            print("{alpha:6.2f}{rows:7d}{certified:11.0%}{broken:8.1%}{tokens:13.1f}{rate:11.4f}".format(**line))
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
