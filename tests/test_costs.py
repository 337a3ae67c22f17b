"""Costs of scales: read, fitted to a ladder, and refused when they make no sense."""

import json

import pytest

from complexity.errors import InvalidInput
from router.costs import Costs


def test_costs_are_read_and_put_on_a_ladder(tmp_path):
    """Of a longer table the ladder's rungs are taken, in its order."""
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"unit": "ms", "costs": {"9": 5.5, "1": 5.0, "36": 7, "144": 12}}))
    costs = Costs.read(path).on((1, 9, 144))
    assert costs.values == (5.0, 5.5, 12.0) and costs.unit == "ms"
    assert Costs.of_tokens((70, 280)).on((70, 280)).values == (70.0, 280.0)


@pytest.mark.parametrize("content", ["", "[]", '{"unit": "ms"}', '{"unit": "ms", "costs": {"one": 1}}'])
def test_what_is_no_table_of_costs_is_refused(tmp_path, content):
    path = tmp_path / "costs.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match="costs.json: not a table of costs"):
        Costs.read(path)


def test_costs_must_cover_the_ladder_and_rise():
    with pytest.raises(InvalidInput, match=r"no cost for \[9\]"):
        Costs("ms", {1: 1.0}).on((1, 9))
    with pytest.raises(InvalidInput, match="rise along the ladder"):
        Costs("ms", {1: 1.0, 9: 1.0}).on((1, 9))
