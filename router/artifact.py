"""A router in a folder: predictor, ladder, knob and what made them; nothing in it executes on load.

    manifest.json   SHA-256 of each file below; the artifact's digest is the SHA-256 of this file
    artifact.json   `Artifact` but for predictor and familiarity
    familiarity.json what training looked like (complexity/familiarity.py)
    predictor.json, predictor.txt the predictor (complexity/predictor.py)

README.md (the card) and accuracy.png stand beside them for people; they decide nothing and aren't in the manifest.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from complexity.errors import ArtifactError
from complexity.familiarity import Familiarity
from complexity.features import FEATURE_VERSIONS, TOWER_FEATURES, Place
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.predictor import PREDICTOR_FILE, TREES_FILE, ComplexityPredictor
from router.calibrate import CurvePoint
from router.cascade import SecondLook
from router.certify import Certificate
from router.policy import FINEST_ALWAYS

ARTIFACT_SCHEMA = "2"
MANIFEST_FILE, ARTIFACT_FILE, CARD_FILE, FIGURE_FILE = "manifest.json", "artifact.json", "README.md", "accuracy.png"
FAMILIARITY_FILE = "familiarity.json"
LOOKS = {"light": len(IMAGE_FEATURE_NAMES), "tower": TOWER_FEATURES}  # features of a picture, by place
LOOK_WEIGHTS = 4  # of each pair of rungs in a second look
MOST = 1e100  # of any number in an artifact
SHOWN_CHARS = 200  # of a value that is wrong

Made = TypeVar("Made")


@dataclass(frozen=True)
class Artifact:
    """A trained router."""

    predictor: ComplexityPredictor
    ladder: tuple[int, ...]
    price: float  # the knob's default, probability of a right answer per unit of cost
    costs: tuple[float, ...]  # of each rung
    cost_unit: str  # such as "tokens" or "ms"
    target: str  # what the price was set for, as the options of train-router say it
    certificate: Certificate  # of harmful flips at the price
    familiarity: Familiarity
    second_look: SecondLook | None  # for answering twice; None when the labels don't say how sure answers were
    place: Place  # where it decides
    feature_version: str
    model: str  # whose answers it was trained on
    sweep_version: str
    labels_sha256: str  # of the label table's files
    seed: int
    created_at: str  # UTC, ISO 8601
    metrics: dict[str, Any]  # what was measured on the test split
    curve: tuple[CurvePoint, ...]  # on the calibration split
    scale_shares: tuple[float, ...] | None = None  # of each rung at the price, among familiar calibration samples
    card: str = ""
    digest: str = field(default="", compare=False)  # set by loading


def save_artifact(folder: Path, artifact: Artifact, figure_png: bytes | None = None) -> Artifact:
    """Write an artifact's folder whole or not at all, in place of an older artifact; returns it as loaded again.

    Raises:
        ArtifactError: `folder` holds something else than an artifact.
    """
    folder = Path(folder)
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        fresh.chmod(0o755)  # mkdtemp gives 0o700
        artifact.predictor.save(fresh)
        told = {f.name: getattr(artifact, f.name) for f in fields(artifact)}
        for elsewhere in ("predictor", "familiarity", "card", "digest"):
            del told[elsewhere]
        told |= {"curve": [asdict(p) for p in artifact.curve], "certificate": asdict(artifact.certificate)}
        told["second_look"] = None if artifact.second_look is None else artifact.second_look.weights.tolist()
        told = {"schema_version": ARTIFACT_SCHEMA, **told}
        (fresh / FAMILIARITY_FILE).write_text(json.dumps(artifact.familiarity.as_json()) + "\n")
        (fresh / ARTIFACT_FILE).write_text(json.dumps(told, indent=1) + "\n")
        manifest = {path.name: _sha256(path) for path in sorted(fresh.iterdir())}
        (fresh / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")
        (fresh / CARD_FILE).write_text(artifact.card)
        if figure_png is not None:
            (fresh / FIGURE_FILE).write_bytes(figure_png)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return load_artifact(folder)


def load_artifact(folder: Path, *, model: str | None = None, ladder: Sequence[int] | None = None) -> Artifact:
    """Read an artifact and check every file of it.

    Args:
        model: if given, the model that is going to answer.
        ladder: if given, that model's ladder.

    Raises:
        ArtifactError: a file is missing or changed, or a version, model or ladder isn't the expected one; both sides
            are named.
    """
    folder = Path(folder)
    manifest_bytes = _read(folder / MANIFEST_FILE)
    manifest = _parse(folder / MANIFEST_FILE, manifest_bytes)
    _vouched(folder, manifest)
    for name, promised in manifest.items():
        if hashlib.sha256(_read(folder / name)).hexdigest() != promised:
            promised = str(promised)[:SHOWN_CHARS]
            raise ArtifactError(f"{folder / name}: its SHA-256 is not the {promised} that the manifest promises")
    told = _parse(folder / ARTIFACT_FILE, _read(folder / ARTIFACT_FILE))
    _agree(folder, "schema version", told.get("schema_version"), ARTIFACT_SCHEMA, "this code reads")
    version = FEATURE_VERSIONS.get(str(told.get("place")), "features of light or tower")
    _agree(folder, "feature version", told.get("feature_version"), version, "this code computes")
    if model is not None:
        _agree(folder, "model", told.get("model"), model, "asked for was")
    if ladder is not None:
        _agree(folder, "ladder", told.get("ladder"), list(ladder), "the model has")
    price = told.get("price")
    if not isinstance(price, float | int) or isinstance(price, bool) or not FINEST_ALWAYS <= price <= MOST:
        raise ArtifactError(
            f"{folder}: price of the artifact is {repr(price)[:SHOWN_CHARS]}; it must be a number of at least -1"
        )
    predictor = ComplexityPredictor.load(folder)
    _agree(folder, "ladder", told.get("ladder"), list(predictor.ladder), "its predictor has")
    _agree(folder, "place", told.get("place"), predictor.place, "its predictor has")
    usual = folder / FAMILIARITY_FILE
    try:
        familiarity = Familiarity.from_json(_parse(usual, _read(usual)))
        looks = LOOKS[predictor.place]
        if len(familiarity.mean) != looks:
            raise ValueError(f"{len(familiarity.mean)} features; this code computes {looks}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{usual}: not what this code writes ({_cause(error)})") from None
    try:
        del told["schema_version"]
        told |= {
            "ladder": predictor.ladder,
            "costs": _costs(told["costs"], predictor.ladder),
            "curve": tuple(_typed(CurvePoint, point) for point in told["curve"]),
            "certificate": _typed(Certificate, told["certificate"]),
            "scale_shares": _shares(told.get("scale_shares"), predictor.ladder),
            "second_look": _second_look(told["second_look"], predictor.ladder),
        }
        if type(told["metrics"]) is not dict:
            raise ValueError("metrics are no object")
        digest = hashlib.sha256(manifest_bytes).hexdigest()
        more = {"predictor": predictor, "familiarity": familiarity, "card": _card(folder / CARD_FILE), "digest": digest}
        return _typed(Artifact, told | more)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{folder / ARTIFACT_FILE}: not what this code writes ({_cause(error)})") from None


def check_target(folder: Path) -> None:
    """Raises ArtifactError when a folder to be written holds something else than an artifact."""
    if folder.exists() and not (folder.is_dir() and ((folder / MANIFEST_FILE).exists() or not any(folder.iterdir()))):
        raise ArtifactError(f"{folder} exists and is not a router artifact; it is left as it is")


def _vouched(folder: Path, manifest: dict[str, Any]) -> None:
    """Every file that loading reads must be in the manifest, and no other path."""
    needed = {ARTIFACT_FILE, PREDICTOR_FILE, TREES_FILE, FAMILIARITY_FILE}
    if left_out := needed - set(manifest):
        raise ArtifactError(f"{folder / MANIFEST_FILE} says nothing of {', '.join(sorted(left_out))}")
    if len(manifest) > len(needed):
        raise ArtifactError(f"{folder / MANIFEST_FILE} names other files than {', '.join(sorted(needed))}")


def _typed(made: type[Made], told: dict[str, Any]) -> Made:
    """A dataclass from JSON, its texts and numbers checked; what has another type was checked before."""
    for part in fields(made):  # type: ignore[arg-type]
        if part.type not in (str, int, float) or part.name not in told:
            continue
        value = told[part.name]
        kinds = (int, float) if part.type is float else (part.type,)
        if type(value) not in kinds or (part.type is not str and not -MOST <= value <= MOST):
            raise ValueError(f"{part.name} is {str(value)[:SHOWN_CHARS]!r}")
    return made(**told)


def _numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    numbers = np.array(values, float)
    if numbers.shape != shape:
        raise ValueError(f"numbers of shape {numbers.shape} where {shape} are expected")
    if not (np.abs(numbers) <= MOST).all():
        raise ValueError("a number isn't finite")
    return numbers


def _costs(values: Any, ladder: Sequence[int]) -> tuple[float, ...]:
    if len(values) != len(ladder):
        raise ValueError(f"{len(values)} costs for {len(ladder)} rungs")
    costs = _numbers(values, (len(ladder),))
    if not (np.diff(costs) > 0).all():
        raise ValueError("costs don't rise along the ladder")
    return tuple(map(float, costs))


def _shares(values: Any, ladder: Sequence[int]) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) != len(ladder):
        raise ValueError(f"{len(values)} shares for {len(ladder)} rungs")
    shares = _numbers(values, (len(ladder),))
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError("shares lie in [0, 1]")
    return tuple(map(float, shares))


def _second_look(values: Any, ladder: Sequence[int]) -> SecondLook | None:
    return None if values is None else SecondLook(_numbers(values, (len(ladder), len(ladder), LOOK_WEIGHTS)))


def _card(path: Path) -> str:
    return _read(path).decode(errors="replace") if path.is_file() else ""


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:SHOWN_CHARS]


def _agree(folder: Path, what: str, found: object, wanted: object, whose: str) -> None:
    if found != wanted:
        raise ArtifactError(f"{folder}: {what} of the artifact is {repr(found)[:SHOWN_CHARS]}, {whose} {wanted!r}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from None


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise ArtifactError(f"{path}: a JSON object is expected")
    return parsed


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
