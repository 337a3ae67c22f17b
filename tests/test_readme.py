"""The README's examples, run as pasted against the real service."""

import json
import os
import re
import subprocess
import sys

import pytest
from server import Server

from serving.settings import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], source: str, server: Server) -> str:
    """Run an example with the service's address put in the place of the README's; what it prints."""
    source = source.replace("http://127.0.0.1:8000", server.url)
    ran = subprocess.run(
        [*command, source], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True, env={**os.environ}
    )
    return ran.stdout


@pytest.mark.ray
def test_serving_says_what_the_readme_shows(server):
    """Its first lines in the terminal, but for the port."""
    shown = next(block for block in blocks("text") if block.startswith("$ make serve")).splitlines()[1:]
    said = server.log.read_text().replace(server.url, "http://127.0.0.1:8000").splitlines()
    assert said[: len(shown)] == shown


@pytest.mark.ray
def test_the_curl_example_works_as_pasted(server):
    """The answer and the decision are those that the README shows."""
    (source,) = blocks("bash")
    answer = json.loads(run(["bash", "-c"], source, server))
    (shown,) = (json.loads(block) for block in blocks("json"))
    assert answer["choices"][0]["message"] == shown["choices"][0]["message"]
    assert answer["usage"] == shown["usage"]
    assert answer["m3"]["tokens"] == shown["m3"]["tokens"]


@pytest.mark.ray
def test_the_openai_example_works_as_pasted(server):
    """The unmodified openai client prints what the README says it prints."""
    client, _ = blocks("python")
    assert run([sys.executable, "-c"], client, server) in blocks("text")


@pytest.mark.slow
def test_the_python_example_works_as_pasted():
    """The model can be used without the service, as the README shows."""
    _, source = blocks("python")
    ran = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout in blocks("text")
