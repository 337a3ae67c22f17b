import pytest

from training_data.scoring import exact_match


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("EXIT", ["EXIT"], 1.0),
        (" exit\n", ["EXIT"], 1.0),
        ("3.40", ["3.4", "3.40"], 1.0),
        ("EXI", ["EXIT"], 0.0),
        ("", ["EXIT"], 0.0),
        ("yes", [], 0.0),
    ],
)
def test_exact_match(prediction, references, expected):
    """Right is the whole answer, case and outer blanks aside."""
    assert exact_match(prediction, references) == expected
