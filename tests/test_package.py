"""The sdist builds the wheel, and the wheel alone serves: no file of the checkout is within reach."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from doubles import chat_body
from server import Server, start

from router.artifact import load_artifact
from serving.settings import ROOT, Settings

pytestmark = pytest.mark.slow

PACKAGES = ("complexity", "router", "serving", "training_data")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
APART = {"PYTHONPATH": ""}  # nothing but what is installed
PROGRAM = """
import sys
hidden = ("accelerate", "av", "datasets", "openpyxl", "opentelemetry.exporter.otlp", "pandas", "peft", "vllm")
sys.modules |= dict.fromkeys(hidden)  # as if not installed: Python then raises ModuleNotFoundError

import json
from contextlib import redirect_stderr
from importlib.metadata import distribution
from io import StringIO
from pathlib import Path

from complexity.errors import M3Error
from serving import ask
from serving.m3 import load
from serving.m3.tune import prepare
from serving.m3.tuning import Recipe
from serving.settings import Settings
from serving.tracing import Tracing, open_tracer
from serving.vllm_engine import VllmM3
from training_data import sweep, train_m3
from training_data.readers.workbook import workbook

Path("saved").mkdir()
Path("saved/dataset_info.json").write_text("{}")
Path("own.jsonl").write_text(json.dumps({"id": "1", "image": "1.png", "question": "What?", "answer": "this"}))

def told(main, *options):
    with redirect_stderr(StringIO()) as said:
        assert main([str(option) for option in options]) == 2
    return said.getvalue().strip().splitlines()[-1]

def raised(what):
    try:
        what()
    except M3Error as error:
        return str(error)

scripts = distribution("m3-router").entry_points
complaints = [
    ["cluster", told(sweep.main, "--read", "own", "--data", "own.jsonl", "--out", "labels", "--actors", 1)],
    ["data", told(sweep.main, "--read", "datasets", "--data", "saved", "--out", "labels")],
    ["excel", raised(lambda: next(workbook(Path("results.xlsx"))))],
    ["trace", raised(lambda: open_tracer(Tracing(exporter="http://127.0.0.1:4318")))],
    ["tune", told(train_m3.main, "--model", Settings().model, "--data", "own.json", "--out", "tuned")],
    ["tune", raised(lambda: prepare(load(), Recipe((), 8, False)))],
    ["video", told(ask.main, "--video", "film.mp4", "What?")],
    ["vllm", raised(lambda: VllmM3(load()))],
]
print(json.dumps({
    "commands": sorted(script.name for script in scripts if callable(script.load())),
    "files": [sys.modules[name].__file__ for name in ("complexity", "router", "serving", "training_data")],
    "complaints": complaints,
}))
"""


@dataclass(frozen=True)
class Built:
    """The two files that are published, and what the sdist unpacks to."""

    sdist: Path
    wheel: Path
    source: Path


@dataclass(frozen=True)
class Told:
    """What PROGRAM prints."""

    commands: list[str]
    files: list[str]  # of the packages
    complaints: list[tuple[str, str]]  # an extra, and what is said where it is missing


def run(*command: str | Path, folder: Path, limit_s: float = 120) -> str:
    """What a command prints, run in a folder without this checkout on its path."""
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | APART,
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of this checkout, and the wheel that is built in the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=source)
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel, source)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment that holds the wheel, and sees what this one has installed but for its editable project.

    Python reads .pth files, such as an editable project's, in its own site-packages alone, so the folder that this
    one's .pth names is searched and the .pth files in that aren't read.
    """
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin/python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        built.wheel,
        folder=folder,
    )
    here = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    Path(here, "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


@pytest.fixture(scope="module")
def told(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What the wheel says of itself where no extra is installed."""
    return Told(**json.loads(run(installed / "python", "-c", PROGRAM, folder=tmp_path_factory.mktemp("told"))))


@pytest.fixture(scope="module")
def service(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """serve-m3 without options but for the port, started in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    running = start(folder / "log.txt", command=[str(installed / "serve-m3")], folder=folder, **APART)
    yield running
    if running.process.poll() is None:
        running.stop()


def test_the_wheel_holds_the_four_packages_with_their_data_and_the_config_and_nothing_else(built: Built):
    files = {file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()}
    names = {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
    wanted = {name for name in names if not name.startswith("training_data/towers/")} | {"serving/ray_app.yaml"}
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert wheel.read("serving/ray_app.yaml") == (ROOT / "ray_app.yaml").read_bytes()
    assert held == wanted
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_the_sdist_holds_what_builds_and_tests_it_and_nothing_that_was_made_here(built: Built):
    tops = {path.name for path in built.source.iterdir()}
    assert {"Makefile", "constraints.txt", "pyproject.toml", "ray_app.yaml", "tests", "docs", "deploy"} <= tops
    assert not tops & {".git", ".venv", "build", "dist", "runs"}
    tested = {file.name for file in (ROOT / "tests").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert tested == {file.name for file in (built.source / "tests").rglob("*") if file.is_file()}


def test_every_command_is_imported_from_the_wheel(told: Told, installed: Path):
    assert told.commands == sorted(PROJECT["scripts"])
    assert len(told.files) == len(PACKAGES)
    assert all(Path(file).is_relative_to(installed.parent) for file in told.files)


def test_what_needs_an_extra_names_it_where_it_is_missing(told: Told):
    assert {extra for extra, _ in told.complaints} == set(PROJECT["optional-dependencies"]) - {"dev"}
    for extra, message in told.complaints:
        assert f"pip install 'm3-router[{extra}]'" in message


def test_the_config_that_is_printed_is_the_repositorys(installed: Path, tmp_path: Path):
    assert run(installed / "serve-m3", "--print-config", folder=tmp_path) == (ROOT / "ray_app.yaml").read_text()


@pytest.mark.ray
def test_the_wheel_answers_and_decides_as_the_checkout_does(service: Server):
    asked = chat_body("Which number is on the orange sign?", (ROOT / "docs/example.png").read_bytes())
    told = httpx.post(f"{service.url}/v1/chat/completions", json=asked, timeout=90).raise_for_status().json()
    assert told["choices"][0]["message"]["content"] == "45"
    assert (told["m3"]["why"], told["m3"]["artifact"]) == ("predicted", load_artifact(Settings().artifact).digest)


@pytest.mark.ray
def test_the_wheel_serves_the_page_with_its_samples(service: Server):
    page = httpx.get(service.url, timeout=20).raise_for_status()
    assert "<title>M3 router</title>" in page.text
    folder = ROOT / "serving/page"
    for file in (path for path in folder.rglob("*") if path.is_file() and path.name != "index.html"):
        got = httpx.get(f"{service.url}/page/{file.relative_to(folder)}", timeout=20).raise_for_status()
        assert got.content == file.read_bytes()


@pytest.mark.ray
def test_ctrl_c_stops_everything_that_was_started(service: Server):
    """Processes, the port, files; SIGTERM is in tests/test_production.py."""
    children = service.children()
    assert children and service.stop(signal.SIGINT) == 0
    assert not service.children() and not [pid for pid in children if alive(pid)]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections may linger
        probe.bind(("127.0.0.1", int(service.url.rpartition(":")[2])))
    assert "Traceback" not in service.log.read_text()
    assert {path.name for path in service.log.parent.iterdir()} == {service.log.name}


def alive(pid: int) -> bool:
    """Whether a process still runs; one that merely awaits its parent doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
