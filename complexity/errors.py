"""Every error the project raises on purpose; each message names the offending value and what is allowed.

M3Error                  shown to the user as one line (command lines exit 2)
+-- InvalidInput         the caller's mistake: a bad picture, question, model name or argument (HTTP 4xx)
|   +-- OffLadder        a number of visual tokens the model doesn't have
+-- LabelTableError      a label table that can't be read, or doesn't fit its use
+-- ArtifactError        a router artifact that is broken or doesn't match the model
+-- CheckpointError      a model folder that is wrong or incomplete
"""

from collections.abc import Sequence


class M3Error(Exception):
    """Base of all errors meant for the user."""


class InvalidInput(M3Error, ValueError):
    """The caller sent something unusable; `param` names the argument or request field."""

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param


class OffLadder(InvalidInput):
    """A number of visual tokens that is not a rung of the model's ladder."""

    def __init__(self, tokens: object, ladder: Sequence[int], param: str | None = None):
        rungs = ", ".join(map(str, ladder))
        super().__init__(f"{tokens!r} visual tokens are not on the ladder; choose one of {rungs}", param)
        self._given = (tokens, tuple(ladder), param)

    def __reduce__(self) -> tuple[type["OffLadder"], tuple[object, tuple[int, ...], str | None]]:
        return OffLadder, self._given  # an error crosses processes by its arguments


class LabelTableError(M3Error):
    """A label table that can't be read, or doesn't fit its use."""


class ArtifactError(M3Error):
    """A router artifact that is broken, or doesn't match the model or the feature version."""


class CheckpointError(M3Error):
    """A model folder that is wrong or incomplete."""
