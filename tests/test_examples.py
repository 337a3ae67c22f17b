"""The examples in docstrings say what the functions do."""

import doctest
import importlib

import pytest

from serving.settings import ROOT

PACKAGES = ("complexity", "router", "serving", "training_data")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str):
    told = doctest.testmod(importlib.import_module(name))
    assert told.attempted and not told.failed


def test_there_are_examples_of_what_the_project_is_about():
    assert {"complexity.labels", "router.policy", "serving.m3.pool", "training_data.scoring"} <= set(MODULES)
