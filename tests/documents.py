"""The project's pages as the tests read them: fenced blocks, commands, links and what they lead to."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from serving.settings import ROOT

PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "benchmarks/*.md",
        "tests/golden/*.md",
        "training_data/**/*.md",
        "serving/**/*.md",
    )
    for path in ROOT.glob(pattern)
    if not path.name.startswith(".")
)
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
UNKNOWN = "--not-an-option"  # what every parser refuses last, when it has taken all the rest
DRIVER = """
import contextlib, importlib, io, json, runpy, sys
told = []
for script, arguments in json.load(sys.stdin):
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        sys.argv = [script, *arguments]
        try:
            if ":" in script:
                module, function = script.split(":")
                code = getattr(importlib.import_module(module), function)(arguments)
            else:
                sys.path.insert(0, script.rpartition("/")[0])
                code = runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    told.append([code if isinstance(code, int) else None, heard.getvalue()])
sys.stdout.write(json.dumps(told))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def commands(self) -> list[list[str]]:
        """Its lines as words, where they are commands of this project: script and arguments."""
        if self.language:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [found for line in lines if (found := command(line.removeprefix("$ ")))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [Block(page, language, text) for language, text in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def command(line: str) -> list[str] | None:
    """The words of a line that runs a command or a script of this project: what to run, and its arguments."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quotation mark in a sentence
        return None
    words = list(takewhile(lambda word: word not in ("|", ">", "<", "&&"), words))
    if words and words[0].removeprefix(".venv/bin/") in SCRIPTS:
        return [SCRIPTS[words[0].removeprefix(".venv/bin/")], *words[1:]]
    if len(words) > 1 and words[0] == "python" and words[1].endswith(".py"):
        return [str(ROOT / words[1]), *words[2:]]
    return None


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Commands in a page's sentences."""
    for span in re.findall(r"`([^`]+)`", prose(page)):
        if found := command(" ".join(span.split())):
            yield found


def run_all(commands: list[list[str]], folder: Path, limit_s: float = 300) -> list[tuple[int | None, str]]:
    """Run commands one after the other in one process of its own; exit code and what each says."""
    told = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        input=json.dumps([[script, arguments] for script, *arguments in commands]),
        stdout=subprocess.PIPE,
        text=True,
        timeout=limit_s,
        check=True,
    )
    return [(code, said) for code, said in json.loads(told.stdout)]


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings, as GitHub spells them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        found[plain] = found.get(plain, -1) + 1
    return {name if not count else f"{name}-{count}" for name, last in found.items() for count in range(last + 1)}
