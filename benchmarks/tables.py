"""The tables of README.md and docs/, from the JSON that their commands printed; and that JSON anew, by running them.

    python benchmarks/tables.py                              # write the tables anew from docs/*.json
    python benchmarks/tables.py --check                      # name those that aren't as the JSON has them
    python benchmarks/tables.py --measure tiny serving routing   # run the commands first: minutes; routing takes hours

A table stands between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`. What was measured is kept with its
command, commit and machine. Prints progress on stderr and, as its last line, one JSON object.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POLICIES = {  # of train-router's report, as people call them
    "fixed-1": "always 1",
    "fixed-9": "always 9",
    "fixed-36": "always 36",
    "fixed-144": "always 144",
    "fixed-576": "always 576",
    "random-mixing": "fixed scales mixed at random",
    "question": "question alone (the predictor without the picture)",
    "image-size": "image-size rule",
    "lookup": "per-task lookup (is told the task)",
    "router": "**router**",
    "cascade": "router with a second look",
    "oracle-unsolved-coarsest": "oracle, unsolved charged 1 token",
    "oracle-unsolved-finest": "oracle, unsolved charged 576 tokens",
}
SHORT = ("fixed-9", "fixed-36", "fixed-144", "fixed-576", "random-mixing", "lookup", "router")
SHORT += ("oracle-unsolved-coarsest", "oracle-unsolved-finest")
SERVED = {  # of benchmarks/serve.py, as people call them; the README's rows
    "naive": "one at a time, always 576 (as the original serves)",
    "always 576": "always 576",
    "always 144": "always 144",
    "always 9": "always 9",
    "routed": "**routed**",
    "routed, warm": "routed, pictures and questions seen before",
    "perfect": "perfect routing",
}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    head, *lines = (f"| {' | '.join(line)} |" for line in (heads, *rows))
    return "\n".join([head, "|" + "---|" * len(heads), *lines])


def points(share: float, signed: bool = False) -> str:
    """A share in percent, or a difference in points."""
    return f"{100 * share:{'+' if signed else ''}.1f}"


def policies(report: dict[str, Any], names: Iterable[str]) -> str:
    """Policies of train-router's report, in the order of `names`."""
    found = {each["name"]: each for each in report["policies"]}
    rows = []
    for each in map(found.__getitem__, names):
        low, high = each["accuracy_ci"]
        interval = f"{points(low)} to {points(high)}"
        rows.append([POLICIES[each["name"]], points(each["accuracy"]), interval, f"{each['tokens']:.1f}"])
    return table(["policy", "accuracy", "95% interval", "mean visual tokens"], rows)


def equal_tokens(report: dict[str, Any]) -> str:
    """The router beside the lookup at the same mean tokens."""
    rows = []
    for each in report["equal_tokens"]:
        low, high = each["gain_ci"]
        gain = f"{points(each['gain'], True)} ({points(low, True)} to {points(high, True)})"
        rows.append([f"{each['tokens']:g}", points(each["lookup"]), points(each["router"]), gain])
    return table(["mean visual tokens", "lookup", "router", "gain, points (95% interval)"], rows)


def _told(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def served(kept: dict[str, Any]) -> str:
    """What policies of serving reach, the README's columns."""
    rows = []
    for each in kept["result"]["rows"]:
        if each["policy"] in SERVED:
            p95 = "" if each["p95_ms"] is None else f"{each['p95_ms']:.0f} ms"
            figures = [
                f"{each['rps']:.1f}",
                p95,
                points(each["accuracy"]),
                f"{each['tokens']:.1f}",
                f"{each['cpu_ms']:.1f}",
            ]
            rows.append((list(SERVED).index(each["policy"]), [SERVED[each["policy"]], *figures]))
    heads = ["policy", "requests a second", f"p95 at {kept['result']['common_rate']:.1f} a second", "accuracy"]
    return table([*heads, "mean visual tokens", "CPU ms a request"], [row for _, row in sorted(rows)])


def served_in_full(kept: dict[str, Any]) -> str:
    """All that benchmarks/serve.py says of each policy."""
    rows = []
    for each in kept["result"]["rows"]:
        name = "**routed**" if each["policy"] == "routed" else each["policy"]
        latencies = [_told(each[column], 0) for column in ("p50_ms", "p95_ms", "p99_ms", "first_token_ms")]
        measured = [points(each["accuracy"]), *(_told(each[column], 1) for column in ("tokens", "cpu_ms"))]
        beside = _told(each["beside_cpu_ms"], 1)
        rows.append([name, f"{each['rps']:.1f}", _told(each["within_limit_rps"], 1), *latencies, *measured, beside])
    heads = ["policy", "requests/s", "in limit", "p50", "p95", "p99 ms", "first token", "accuracy"]
    return table([*heads, "mean tokens", "CPU ms", "beside"], rows)


def families(kept: dict[str, Any]) -> str:
    """Accuracy of m3-tiny in percent, at each scale and family."""
    result = kept["result"]
    rows = [*result["families"].items(), ("**all**", result["accuracy"])]
    heads = ["question family", *result["accuracy"]]
    return table(heads, [[name, *(f"{100 * share:.0f}" for share in scales.values())] for name, scales in rows])


@dataclass(frozen=True)
class Marked:
    """A table in a file, and what it is made from."""

    file: str
    source: str  # JSON in docs/
    render: Callable[[dict[str, Any]], str]


TABLES = {
    "policies": Marked("README.md", "routing", lambda report: policies(report, SHORT)),
    "served": Marked("README.md", "serving", served),
    "all-policies": Marked("docs/routing.md", "routing", lambda report: policies(report, POLICIES)),
    "equal-tokens": Marked("docs/routing.md", "routing", equal_tokens),
    "served-in-full": Marked("docs/serving.md", "serving", served_in_full),
    "families": Marked("serving/m3/weights/m3-tiny/README.md", "tiny", families),
}
MEASURED = {  # what is kept in docs/NAME.json: the last line of this
    "tiny": "python benchmarks/tiny.py --pairs 2000 --seed 1",
    "serving": "python benchmarks/serve.py --pairs 320 --seconds 10 --figure docs/serving.png",
}
ROUTING = [  # docs/routing.json is written by the last of these, as the README has them; sweeps go on where they were
    "sweep-m3 --split train --seed 7 --pairs 40000 --out labels",
    "sweep-m3 --split calibration --pairs 8000 --generate --out labels",
    "sweep-m3 --split test --pairs 8000 --generate --pictures --out labels",
    "sweep-m3 --split shifted --pairs 3000 --generate --out labels",
    "sweep-m3 --split test --pairs 8000 --again 1 --out again",
    "train-router labels --again again --out router/artifacts/m3-tiny --report docs",
]


def written(text: str, name: str, content: str) -> str:
    """The text with the table of this name put between its marks."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"expected {begin} and {end} once each")
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL
    )


def renewed(root: Path) -> dict[str, str]:
    """Files that have tables, by name, with all their tables as the JSON has them."""
    files: dict[str, str] = {}
    for name, marked in TABLES.items():
        source = json.loads((root / "docs" / f"{marked.source}.json").read_text())
        text = files.get(marked.file) or (root / marked.file).read_text()
        files[marked.file] = written(text, name, marked.render(source))
    return files


def machine() -> str:
    """The machine as the tables name it: cores and processor, and what its speed hangs on."""
    told = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*: (.*)", told, re.MULTILINE)
    wide = "with AVX-512" if "avx512f" in told else "without AVX-512"
    return f"{os.cpu_count()} cores of {name[1] if name else 'an unnamed processor'}, {wide}"


def measure(name: str, root: Path) -> None:
    """Run a table's command and keep its last line with what made it."""
    print(f"tables: measuring {name}", file=sys.stderr, flush=True)
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if name == "routing":
        for command in ROUTING:
            subprocess.run(command.split(), cwd=root, env=path, stdout=sys.stderr, check=True)
        return
    ran = subprocess.run(MEASURED[name].split(), cwd=root, env=path, stdout=subprocess.PIPE, text=True, check=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    kept = {"command": MEASURED[name], "commit": commit.stdout.strip() or None, "machine": machine()}
    kept["result"] = json.loads(ran.stdout.splitlines()[-1])
    (root / "docs" / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Renew the tables of README.md and docs/ from their JSON.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table isn't current")
    parser.add_argument(
        "--measure", nargs="+", choices=[*MEASURED, "routing"], default=[], help="run these commands first"
    )
    args = parser.parse_args(argv)
    try:
        for name in args.measure:
            measure(name, ROOT)
        files = renewed(ROOT)
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        print(f"tables.py: {error}", file=sys.stderr)
        return 2
    stale = [name for name, text in files.items() if text != (ROOT / name).read_text()]
    if not args.check:
        for name in stale:
            (ROOT / name).write_text(files[name])
    print(json.dumps({"tables": len(TABLES), "stale" if args.check else "renewed": stale}))
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
