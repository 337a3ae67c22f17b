"""Records about the same pictures -> what the model is shown and asked."""

import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

from PIL import Image

from complexity.errors import InvalidInput
from complexity.sample import Sample
from serving.m3.video import FRAMES, collage, grid
from training_data.readers.records import Picture, Record
from training_data.sweeping.labelling import Asked, Item

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")

Layout = Literal["grid", "apart"]
LAYOUTS: tuple[Layout, ...] = ("grid", "apart")
"""How several pictures of a record are shown: as a video's frames in one picture, or each as a picture of its own."""


def item_of(records: Sequence[Record], side: int, layout: Layout, most: int | None) -> Item:
    """What is shown and asked.

    Of several pictures in a grid the features are of the grid, as it would be sent; of several apart, of the first.

    Args:
        records: about the same pictures.
        side: pixels that the model makes use of, of a picture's shorter side.
        most: pictures that the model reads; None: any number.

    Raises:
        InvalidInput: a picture is missing or broken, or there are more than the model reads.
        M3Error: there is a video, and PyAV isn't installed.
    """
    pictures = records[0].pictures
    asked = tuple(
        Asked(
            each.sample_id, each.dataset, each.task, "", each.question, each.references, each.scorer, each.options
        )  # parted into splits by picture when a router is trained
        for each in records
    )
    if not pictures:
        raise InvalidInput("there is no picture")
    if len(pictures) == 1:
        (only,) = pictures
        sample = _as_sent(_collage(only), side) if _is_video(only) else _sample(only, side)
        return Item((sample.picture,), sample.image_sha256, sample.image_features, asked)
    if layout == "apart" and most is not None and len(pictures) > most:
        raise InvalidInput(f"{len(pictures)} pictures; the model reads at most {most}")
    if layout == "grid" and len(pictures) > FRAMES:  # those that `grid` would take are all that need be read
        pictures = tuple(pictures[(2 * i + 1) * len(pictures) // (2 * FRAMES)] for i in range(FRAMES))
    samples = [_sample(picture, side) for picture in pictures]
    shown = tuple(_decoded(sample, f"picture {k} of {len(samples)}") for k, sample in enumerate(samples, 1))
    if layout == "apart":
        digest = sha256("".join(sample.image_sha256 for sample in samples).encode()).hexdigest()
        return Item(shown, digest, samples[0].image_features, asked)
    whole = _as_sent(grid(shown), side)
    return Item((whole.picture,), whole.image_sha256, whole.image_features, asked)


def faulty_file(records: Sequence[Record]) -> str:
    """The file that is to be named when the pictures can't be shown."""
    places = [picture.place for picture in records[0].pictures if picture.place]
    return places[0] if len(places) == 1 else ""


def _sample(picture: Picture, side: int) -> Sample:
    return Sample(picture.read(), "-", side)


def _decoded(sample: Sample, name: str) -> Image.Image:
    try:
        return sample.picture
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from None


def _as_sent(whole: Image.Image, side: int) -> Sample:
    """A collage as a client would send it: the service decodes and describes that."""
    png = io.BytesIO()
    whole.save(png, "PNG", compress_level=1)
    return Sample(png.getvalue(), "-", side)


def _is_video(picture: Picture) -> bool:
    return picture.path is not None and picture.path.suffix.lower() in VIDEOS


def _collage(video: Picture) -> Image.Image:
    """Its frames in one picture; what reads videos seeks in files, so one in a store gets one for as long."""
    assert video.path is not None
    if video.store is None:
        return collage(Path(video.path))
    with NamedTemporaryFile(suffix=video.path.suffix) as file:
        file.write(video.read())
        file.flush()
        try:
            return collage(Path(file.name))
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(file.name, video.place)) from None
