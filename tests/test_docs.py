"""The pages: every block in them is run, compared or excused; every command, option, link and file in them exists."""

import contextlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import PAGES, UNKNOWN, Block, anchors, blocks, command, inline_commands, name_of, prose, run_all
from ray.serve.schema import DeploymentSchema

from serving.access import ApiKey
from serving.ask import main as ask
from serving.metrics import ALL
from serving.settings import ROOT, Knob, Settings
from serving.wire import Feedback
from training_data.drawn.corpus import draw_item

HERE = "tests/test_docs.py::"
SMALL = "in small: " + HERE + "test_the_shipped_routers_commands_in_small"
ANALYSIS = "in small: " + HERE + "test_the_shipped_analysis_commands_in_small"
OWN = HERE + "test_from_questions_to_a_router_as_pasted"
LOOP = "tests/test_loop.py::test_feedback_becomes_a_router_that_watches_then_decides_for_some_then_for_all"
SERVED = "tests/test_readme.py::test_serving_says_what_the_readme_shows"
SEVEN_B = "not run: needs 7B weights, which the tests don't have"
BLOCKS: dict[
    str, list[tuple[str, str]]
] = {  # of each page in order: how a block begins, and who runs it or why nobody does
    "README.md": [
        ("make serve ", "tests/test_docs.py::test_make_serve_is_what_the_tests_serve"),
        ("$ make serve", SERVED),
        ("curl -s http", "tests/test_readme.py::test_the_curl_example_works_as_pasted"),
        ("{", "tests/test_readme.py::test_the_curl_example_works_as_pasted"),
        ("import base64", "tests/test_readme.py::test_the_openai_example_works_as_pasted"),
        ("What color is the background? green", "tests/test_readme.py::test_the_openai_example_works_as_pasted"),
        ("from PIL import Image", "tests/test_readme.py::test_the_python_example_works_as_pasted"),
        ("green True", "tests/test_readme.py::test_the_python_example_works_as_pasted"),
        ("$ ask-m3 --image docs/example.png --all", HERE + "test_all_scales_are_answered_as_shown"),
        ("ask-m3 --image photo.jpg", SEVEN_B),
        ("hf download", SEVEN_B),
        ("sweep-m3 --read own", OWN),
        ("sweep-m3 --split train", SMALL),
        ("kubectl create secret", "not run: needs a Kubernetes cluster; tests/test_deploy.py checks the file"),
        ("      redis_url: redis", HERE + "test_settings_shown_are_settings"),
        ("complexity/ ", HERE + "test_the_tree_names_folders_that_are_there"),
    ],
    "CONTRIBUTING.md": [("make install", "not run: it is what runs the tests; targets and marks are looked up")],
    "docs/analysis.md": [
        ("sweep-m3 --split test", ANALYSIS),
        ("analyze-m3 --scores", "tests/test_analyze.py::test_published_scores_as_a_command"),
    ],
    "docs/data.md": [
        ("picture,question", "tests/test_readers.py::test_the_documented_data_is_read"),
        ('{"picture"', "tests/test_readers.py::test_the_documented_data_is_read"),
    ],
    "docs/feedback.md": [
        ("curl -s http", HERE + "test_the_feedback_shown_is_a_feedback"),
        ("train-router labels --feedback", LOOP),
        ("deployments:", LOOP),
        ("user_config: {canary", LOOP),
        ("user_config: {artifact", LOOP),
    ],
    "docs/import.md": [
        ("import-m3 --from lmms-eval", "tests/test_import_m3.py::test_the_documented_commands_are_taken")
    ],
    "docs/install.md": [
        ("python3 -m venv", "not run: `make install` does the same, and made what runs the tests"),
        ("pip install", "tests/test_package.py::test_the_config_that_is_printed_is_the_repositorys"),
        ("docker build", "not run: needs Docker"),
    ],
    "docs/labels.md": [
        ("from pathlib", "tests/test_train_router.py::test_a_table_made_as_the_documentation_says_trains_a_router"),
        ("sweep-m3 --read own", OWN),
        (
            "sweep-m3 --read own",
            "in small: tests/test_sweep_cluster.py::test_a_killed_actor_and_a_killed_driver_lose_and_double_nothing",
        ),
    ],
    "docs/models.md": [
        ("ask-m3 --image photo.jpg", SEVEN_B),
        ("train-m3 --model", "in small: tests/test_tune.py::test_llavas_are_tuned_into_transformers_format"),
    ],
    "docs/your-data.md": [
        ('{"picture"', HERE + "test_what_cannot_be_asked_is_told_as_shown"),
        ("sweep-m3 --read own", HERE + "test_what_cannot_be_asked_is_told_as_shown"),
        ("sweep-m3: 2 set aside", HERE + "test_what_cannot_be_asked_is_told_as_shown"),
        ("analyze-m3 labels", OWN),
        ("train-router labels", OWN),
    ],
}
TUNE_HELP = ["training_data.train_m3:main", "--model", "-", "--help"]
CONVERSATION = [{"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}]


def shown(page: str, begin: str) -> Block:
    """The block of a page that begins so."""
    return next(block for block in blocks(page) if block.text.startswith(begin))


@pytest.mark.parametrize("page", [name_of(page) for page in PAGES])
def test_every_block_has_somebody_who_runs_it_or_a_reason(page: str):
    found, known = blocks(page), BLOCKS.get(page, [])
    assert [block.text.splitlines()[0][:60] for block in found if not known] == []
    assert len(found) == len(known)
    for block, (begin, _) in zip(found, known, strict=True):
        assert block.text.startswith(begin), f"{page} has a block that BLOCKS doesn't know: {block.text[:60]!r}"


def test_the_tests_that_run_the_blocks_exist():
    named = {by.removeprefix("in small: ") for known in BLOCKS.values() for _, by in known}
    for test in named:
        if not test.startswith("not run: "):
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / file).read_text(), test


IN_BLOCKS = [each for page in PAGES for block in blocks(name_of(page)) for each in block.commands()]
IN_SENTENCES = [each for page in PAGES for each in inline_commands(page)]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], tuple[int | None, str]]:
    """What the commands of the blocks say to one option more that nobody has, and all commands to --help."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "llava_v1_5_mix665k.json").write_text(json.dumps(CONVERSATION))
    asked = [with_unknown(each) for each in IN_BLOCKS]
    asked += [[script, "--help"] for script in sorted({script for script, *_ in IN_SENTENCES})]
    asked.append(TUNE_HELP)
    return dict(zip(map(tuple, asked), run_all(asked, folder), strict=True))


def with_unknown(words: list[str]) -> list[str]:
    return [*words, *["--use_cpu"] * ("--bf16" in words), UNKNOWN]  # Trainer looks for a GPU first


@pytest.mark.slow
def test_every_command_in_a_block_is_taken_by_its_parser(said: dict[tuple[str, ...], tuple[int | None, str]]):
    """With one option more that nobody has, nothing but that one is refused."""
    assert len(IN_BLOCKS) > 20
    for words in IN_BLOCKS:
        code, told = said[tuple(with_unknown(words))]
        refused = (f"unrecognized arguments: {UNKNOWN}", f"Trainer knows {UNKNOWN}")
        assert code == 2 and told.strip().splitlines()[-1].endswith(refused), (words, told)


@pytest.mark.slow
def test_every_option_in_a_sentence_is_one_of_its_command(said: dict[tuple[str, ...], tuple[int | None, str]]):
    """Sentences may leave out what a command needs, so its help is asked."""
    assert len(IN_SENTENCES) > 20
    for script, *arguments in IN_SENTENCES:
        code, told = said[script, "--help"]
        assert code == 0, script
        known = told + said[tuple(TUNE_HELP)][1] * script.startswith("training_data.train_m3")
        for option in (word for word in arguments if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known), (script, option)


def test_every_target_of_make_exists():
    texts = "".join(page.read_text() for page in PAGES if page.name != "log.md")
    targets = set(re.findall(r"(?:^|[`$] ?)make ([a-z][\w-]*)", texts, re.MULTILINE))
    assert {"serve", "test"} <= targets
    assert targets - set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) == set()


def test_every_extra_exists():
    texts = "".join(page.read_text() for page in PAGES if page.name not in ("log.md", "CHANGELOG.md"))
    extras = set(re.findall(r"(?:m3-router|\.)\[([a-z]+)\]", texts)) | set(re.findall(r"extra `([a-z]+)`", texts))
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert (
        extras and extras - set(re.findall(r"^([a-z]+) = \[", project.partition("[project.scripts]")[0], re.M)) == set()
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_leads_nowhere(page: Path):
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose(page)):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ("log.md", "CHANGELOG.md")], ids=name_of)
def test_no_file_is_named_that_isnt_there(page: Path):
    """Files in `code` style that lie in one of the project's folders."""
    folders = "complexity|router|serving|training_data|benchmarks|tests|docs|deploy"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]+\.(?:py|md|yaml|json|html|png|csv))`", prose(page)):
        assert (ROOT / name).exists(), name


def test_what_is_generated_is_current():
    for script in ("benchmarks/tables.py", "docs/files.py"):
        ran = subprocess.run([sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, f"{script}: {ran.stdout}{ran.stderr}"


def test_what_measures_the_tables_is_what_the_pages_name():
    """The README's sweeps, and the commands kept beside the figures."""
    tables = runpy.run_path(str(ROOT / "benchmarks/tables.py"))
    sweeps = shown("README.md", "sweep-m3 --split train").commands()
    assert [command(each) for each in tables["ROUTING"]] == sweeps
    for name, measured in tables["MEASURED"].items():
        assert json.loads((ROOT / f"docs/{name}.json").read_text())["command"] == measured


def test_a_stale_table_is_found_and_renewed():
    tables = runpy.run_path(str(ROOT / "benchmarks/tables.py"))
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb"
    assert tables["written"](text, "x", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="begin y"):
        tables["written"](text, "y", "new")


def test_a_measured_table_says_what_made_it():
    for name in ("serving", "tiny"):
        kept = json.loads((ROOT / f"docs/{name}.json").read_text())
        assert {"command", "commit", "machine", "result"} <= kept.keys()
        assert command(kept["command"])


def test_figures_in_the_readmes_sentences_are_the_reports():
    """What sentences say of the shipped router, from the JSON that train-router wrote."""
    report = json.loads((ROOT / "docs/routing.json").read_text())
    policies = {each["name"]: each for each in report["policies"]}
    lost = round(report["loss_against_finest"] * report["pairs"]) / report["pairs"]  # the JSON's is rounded
    router, finest, certificate = policies["router"], policies["fixed-576"], report["certificate"]

    def percent(share: float, digits: int = 1) -> str:
        return f"{100 * share:.{digits}f}"

    def within(name: str, digits: int) -> str:
        low, high = report[f"{name}_ci"]
        return f"({percent(low, digits)} to {percent(high, digits)})"

    readme = " ".join((ROOT / "README.md").read_text().split())
    for sentence in (
        f"{percent(router['accuracy'])}% right with {router['tokens']:.0f} visual tokens",
        f"instead of {percent(finest['accuracy'])}% with always 576 (m3-tiny, {report['pairs']} drawn test pairs)",
        f"{report['pairs']} held-out pairs of {report['pictures']} pictures",
        f"loses {percent(lost)} points against always 576 {within('loss_against_finest', 1)}",
        f"with {percent(router['tokens'] / 576, 0)}% of its tokens",
        f"closes {percent(report['informed_gain_closed'], 0)}% {within('informed_gain_closed', 0)} of the gap",
        f"{percent(certificate['alpha'])}% with {percent(certificate['confidence'], 0)}% confidence",
        f"({certificate['flips']} flips in {certificate['rows']} rows)",
        f"{percent(report['harmful_flips'])}% harmful and {percent(report['helpful_flips'])}% helpful flips",
        f"router stood {percent(-report['shifted']['vs_lookup'])} points below the lookup",
    ):
        assert sentence in readme, sentence


def test_every_script_of_benchmarks_is_in_its_index():
    index = (ROOT / "benchmarks/README.md").read_text()
    assert [path.name for path in (ROOT / "benchmarks").glob("*.py") if path.name not in index] == []


def test_make_serve_is_what_the_tests_serve():
    """But for the port, which the tests choose."""
    ran = subprocess.run(
        ["make", "--no-print-directory", "-n", "serve", "PORT=8123"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1].endswith("serve-m3 --config ray_app.yaml --port 8123")


def test_the_tree_names_folders_that_are_there():
    tree = shown("README.md", "complexity/ ").text
    assert all((ROOT / line.split()[0]).is_dir() for line in tree.splitlines())


def test_settings_shown_are_settings():
    """The README's lines under `args`, with a whole digest in the place of the one that is cut short."""
    text = shown("README.md", "      redis_url").text
    settings = Settings.model_validate(yaml.safe_load(text.replace("5e88...", "0" * 64)))
    assert settings.redis_url and settings.feedback_dir and settings.api_keys[0].tokens_per_minute


def test_every_user_config_shown_is_one():
    for block in blocks("docs/feedback.md"):
        if block.language == "yaml":
            told = yaml.safe_load(block.text)
            (deployment,) = told.get("deployments", [told])
            Knob.model_validate(deployment["user_config"])


def test_the_feedback_shown_is_a_feedback():
    text = shown("docs/feedback.md", "curl").text
    body = re.search(r"-d '(.*)'", text)
    assert body and Feedback.model_validate_json(body[1]).score == 1


def test_all_scales_are_answered_as_shown(capsys: pytest.CaptureFixture[str]):
    """All but the milliseconds."""
    asked, *table = shown("README.md", "$ ask-m3").text.splitlines()
    line = command(asked.removeprefix("$ "))
    assert line
    with contextlib.chdir(ROOT):
        assert ask(line[1:]) == 0
    said = capsys.readouterr().out.splitlines()[:-1]
    without_time = [[word for k, word in enumerate(row.split()) if k != 3] for row in (*table, *said)]
    assert without_time[: len(table)] == without_time[len(table) :]


def own_data(folder: Path, pictures: int, questions: int) -> list[dict[str, str]]:
    """Questions about drawn pictures, as somebody's own; the pictures are written into a folder."""
    (folder / "pictures").mkdir()
    rows = []
    for index in range(pictures):
        item = draw_item("test", 770_000, index, questions)
        name = f"pictures/{index:04}.png"
        (folder / name).write_bytes(item.png)
        rows += [
            {
                "picture": name,
                "question": asked.text,
                "answer": asked.answer,
                "task": asked.family,
                "scorer": "contains",
            }
            for asked in item.questions
        ]
    return rows


def pasted(text: str, folder: Path) -> str:
    """Run lines as somebody who pastes them into a shell; what they print last, each."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-ec", text], cwd=folder, capture_output=True, text=True, timeout=600, env={**os.environ, "PATH": path}
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_from_questions_to_a_router_as_pasted(tmp_path: Path):
    """The README's three commands, and those of docs/your-data.md on the same labels."""
    rows = own_data(tmp_path, pictures=16, questions=3)
    lines = ["picture,question,answer,task,scorer", *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    (tmp_path / "questions.csv").write_text("\n".join(lines))
    pasted(shown("README.md", "sweep-m3 --read own").text, tmp_path)
    assert (tmp_path / "analysis/analysis.html").exists() and (
        tmp_path / "router/artifacts/mine/artifact.json"
    ).exists()
    told = json.loads(pasted(shown("docs/your-data.md", "train-router").text, tmp_path).splitlines()[-1])
    assert told["target"] == "--budget 60" and (tmp_path / "report/routing.html").exists()


@pytest.mark.slow
def test_what_cannot_be_asked_is_told_as_shown(tmp_path: Path):
    """docs/your-data.md with its two wrong rows, and four right ones in the form of its example."""
    rows = own_data(tmp_path, pictures=2, questions=2)
    example = json.loads(shown("docs/your-data.md", "{").text)
    assert all(row.keys() == example.keys() for row in rows)
    rows += [{**rows[0], "picture": "pictures/none.png"}, {**rows[0], "question": " "}]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = json.loads(pasted(shown("docs/your-data.md", "sweep-m3 --read").text, tmp_path))
    assert told.keys() == json.loads(shown("docs/your-data.md", "sweep-m3: 2").text.splitlines()[1]).keys()
    assert (told["records"], told["failed"]) == (len(rows) - 2, 2)
    failures = (tmp_path / "labels/failures").rglob("*")
    reasons = "".join(path.read_text() for path in failures if path.is_file())
    assert "there is no picture 'pictures/none.png'" in reasons and "'question' is empty" in reasons


@pytest.mark.long
@pytest.mark.slow
def test_the_shipped_routers_commands_in_small(tmp_path: Path):
    """The sweeps and the training that the README names, on 30 pairs each."""
    (*_, (code, said)) = run_in_small(shown("README.md", "sweep-m3 --split train"), tmp_path, pairs=30)
    assert code == 0, said
    report, published = json.loads(said.splitlines()[-1]), json.loads((ROOT / "docs/routing.json").read_text())
    assert published.keys() <= report.keys()
    assert [each["name"] for each in report["policies"]] == [each["name"] for each in published["policies"]]


@pytest.mark.long
@pytest.mark.slow
def test_the_shipped_analysis_commands_in_small(tmp_path: Path):
    """Those of docs/analysis.md, on 12 pairs each."""
    (*_, (code, said)) = run_in_small(shown("docs/analysis.md", "sweep-m3 --split test"), tmp_path, pairs=12)
    assert code == 0 and (tmp_path / "docs/analysis.html").exists(), said


def run_in_small(block: Block, folder: Path, pairs: int) -> list[tuple[int | None, str]]:
    """Run a block's commands in a folder, with few pairs."""
    commands = [re.sub(r"--pairs \d+", f"--pairs {pairs}", shlex.join(words)) for words in block.commands()]
    return run_all([shlex.split(each) for each in commands], folder, limit_s=900)


def test_the_runbook_speaks_of_every_alert_and_of_metrics_and_settings_that_exist():
    """Settings are those of ray_app.yaml's args, of the knob, of an API key, and Ray Serve's own of a deployment."""
    text = (ROOT / "docs/operations.md").read_text()
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "deploy/alerts.yaml").read_text())
    assert [alert for alert in alerts if alert not in text] == []
    declared = {each.name for each in ALL}
    assert declared - set(re.findall(r"`(m3_\w+)`", text)) <= {"m3_decision_seconds"}  # of use beside others only
    assert set(re.findall(r"`(m3_\w+)`", text)) <= declared
    known = {*Settings.model_fields, *Knob.model_fields, *ApiKey.model_fields, *DeploymentSchema.model_fields}
    known |= {"user_config", "cache", "endpoint", "code", "scale", "why", "arm", "result", "direction", "floor"}
    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) - declared <= known


def test_marks_that_are_named_are_registered():
    named = set(re.findall(r"not (\w+)", blocks("CONTRIBUTING.md")[0].text))
    markers = (ROOT / "pyproject.toml").read_text().partition("markers = [")[2]
    assert named and all(f'"{name}:' in markers for name in named)
