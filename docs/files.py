"""Writes docs/files.md: every file of the project with a line of what it is, taken from the file itself.

    python docs/files.py            # write it
    python docs/files.py --check    # exit 1 where it isn't current

Taken are a module's docstring, a script's or configuration's first comment, a page's heading: the first sentence of it.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/files.md"
FOLDERS = ("complexity", "router", "serving", "training_data", "benchmarks", "deploy", "docs", "tests")
ROOTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "Makefile",
    "pyproject.toml",
    "ray_app.yaml",
    ".ci/run",
)
WHOLE = {  # folders that are told as one, and files that can't say what they are
    "router/artifacts": "The shipped routers: m3-tiny decides before dispatch, m3-tiny-tower after the model's tower.",
    "serving/m3/weights": "The shipped model, m3-tiny, with its card.",
    "serving/page/samples": "Pictures to try the page with, and questions about them.",
    "training_data/published": "Mean scores from the M3 paper's tables 2 and 3.",
    "training_data/towers": "The tower that m3-tiny's tuning starts from, with its card.",
    "tests/golden": "Small checkpoints of both released shapes, and what the original code computes with them.",
    "serving/page/page.css": "How the page looks.",
    "serving/page/index.html": "The page's parts.",
    "serving/page/icon.svg": "Its icon.",
    "deploy/grafana.json": "A Grafana dashboard of all metrics.",
    "docs/routing.json": "The report of the shipped router in numbers; written by train-router.",
    "docs/routing.html": "The same as a page.",
    "docs/analysis.json": "What analyze-m3 says of m3-tiny in numbers.",
    "docs/analysis.html": "The same as a page.",
    "docs/serving.json": "What benchmarks/serve.py measured; benchmarks/tables.py makes tables of it.",
    "docs/tiny.json": "What benchmarks/tiny.py measured.",
    "README.md": "What it is, how to use it, what it is worth, and where it ends.",
    "CONTRIBUTING.md": "How to work on it, and one request and one training run file by file.",
    "CHANGELOG.md": "What changed, by version.",
    "SECURITY.md": "Who is trusted, what is defended, and what isn't.",
    "Makefile": "Setting up, serving, testing, and the longer runs.",
    "pyproject.toml": "The package: what it needs, its commands, and the settings of its tools.",
}
UNTOLD = {".png", ".pyc", ".typed"}


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence, on one line."""
    line = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[^.][.?])\s(?=[A-Z`])", line)[0] if not line.endswith("?") else line


def told(path: Path) -> str:
    """What a file says it is.

    Raises:
        ValueError: it doesn't say.
    """
    name = path.relative_to(ROOT).as_posix()
    if name in WHOLE:
        return WHOLE[name]
    text = path.read_text()
    said: str | None = None
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text))
        if said and (question := re.match(r"[^.]*?\?\s", said)):  # "How right is an answer? Per sample, ...": both
            return question[0] + first_sentence(said[question.end() :])
    elif path.suffix == ".md":
        said = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), None)
    else:
        comment = re.search(r"(?:^(?:#(?!!)|//) ?.*\n)+", text, re.MULTILINE)
        said = comment and re.sub(r"^(?:#|//) ?", "", comment[0], flags=re.MULTILINE)
    if not said:
        raise ValueError(f"{name} doesn't say what it is: a docstring, a first comment or a line in docs/files.py")
    return first_sentence(said)


def files(folder: Path) -> Iterator[Path]:
    """Files and folders that get a line, a folder's own files first."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        name = path.relative_to(ROOT).as_posix()
        if name in WHOLE or path.is_file() and path.suffix not in UNTOLD and path != PAGE:
            yield path
        elif path.is_dir() and path.name != "__pycache__":
            yield from files(path)


def page() -> str:
    """The page, as it should be."""
    lines = ["# Files", "", "Written by `python docs/files.py` from what the files say of themselves.", ""]
    sections = {".": [ROOT / name for name in ROOTS]}
    for folder in FOLDERS:
        for path in files(ROOT / folder):
            sections.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path)
    for folder, paths in sections.items():
        lines += ["## The root" if folder == "." else f"## {folder}/", ""]
        whole = ROOT / folder / "__init__.py"
        if whole.is_file():
            lines += [told(whole), ""]
        lines += ["| file | it is |", "|---|---|"]
        lines += [
            f"| [{path.name}{'/' if path.is_dir() else ''}](../{path.relative_to(ROOT).as_posix()}) | {told(path)} |"
            for path in paths
            if path != whole
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/files.md: every file with a line of what it is.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where it isn't current")
    args = parser.parse_args()
    try:
        written = page()
    except ValueError as error:
        print(f"files.py: {error}", file=sys.stderr)
        return 2
    current = PAGE.is_file() and PAGE.read_text() == written
    if args.check and not current:
        print("files.py: docs/files.md isn't current; run python docs/files.py", file=sys.stderr)
        return 1
    if not current:
        PAGE.write_text(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
