"""Videos as the paper shows them to M3: a few frames, evenly spaced, as one picture (table 3: six frames)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from complexity.errors import InvalidInput, M3Error

FRAMES, COLUMNS = 6, 2  # 3 rows of 2: the collage of a wide video is about square, so it gets LLaVA-NeXT's 2 x 2 tiles
FRAME_PX = 672  # longest side of a frame in a collage; no grid of tiles shows more


def collage(path: Path, frames: int = FRAMES, columns: int = COLUMNS) -> Image.Image:
    """Frames of a video as one RGB picture, in order, row by row; black where the last row isn't full.

    Raises:
        InvalidInput: the file is no video, is broken, or has no frame.
        M3Error: PyAV, which reads videos, isn't installed.
    """
    return _pasted(list(evenly_spaced(path, frames)), columns)


def grid(pictures: Sequence[Image.Image], frames: int = FRAMES, columns: int = COLUMNS) -> Image.Image:
    """A video that came as its frames, as `collage` shows it; of more than `frames` those in the middle of equal parts.

    Args:
        pictures: RGB, in order; others than of the first one's shape get black edges.
    """
    count = min(frames, len(pictures))
    shown = [pictures[(2 * i + 1) * len(pictures) // (2 * count)].copy() for i in range(count)]
    for picture in shown:
        picture.thumbnail((FRAME_PX, FRAME_PX))
    return _pasted(shown, columns)


def _pasted(frames: Sequence[Image.Image], columns: int) -> Image.Image:
    """Row by row, black where the last row isn't full."""
    width, height = frames[0].size
    whole = Image.new("RGB", (width * columns, height * -(-len(frames) // columns)))
    for i, frame in enumerate(frames):
        fitting = frame if frame.size == (width, height) else ImageOps.pad(frame, (width, height))
        whole.paste(fitting, (i % columns * width, i // columns * height))
    return whole


def evenly_spaced(path: Path, count: int) -> Iterator[Image.Image]:
    """The frames in the middle of `count` equal parts of a video; a shorter one repeats some.

    Raises:
        InvalidInput: the file is no video, is broken, or has no frame.
        M3Error: PyAV, which reads videos, isn't installed.
    """
    try:
        import av
    except ImportError:
        raise M3Error("videos need PyAV: pip install 'm3-router[video]'") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InvalidInput(f"{path} has no video in it", "video")
            stream = container.streams.video[0]
            times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
            if not times:
                raise InvalidInput(f"{path} is a video without frames", "video")
            for i in range(count):
                wanted = times[(2 * i + 1) * len(times) // (2 * count)]
                container.seek(wanted, stream=stream)  # to the key frame before it
                frame = next((f for f in container.decode(stream) if f.pts is not None and f.pts >= wanted), None)
                if frame is None:
                    raise InvalidInput(f"{path} breaks off: its frame {i + 1} of {count} can't be read", "video")
                picture = frame.to_image()
                picture.thumbnail((FRAME_PX, FRAME_PX))
                yield picture
    except (av.error.FFmpegError, OSError) as error:
        raise InvalidInput(f"{path} can't be read as a video: {error.strerror or error}", "video") from None
