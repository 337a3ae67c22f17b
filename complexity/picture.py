"""Encoded bytes -> a decoded RGB picture, refusing what is not a picture or too large, before it costs memory."""

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from complexity.errors import InvalidInput

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 25_000_000
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
LONGEST = 8  # times the needed side, whatever the shorter side: a strip costs no more than other pictures


@dataclass(frozen=True)
class Decoded:
    """A picture, upright."""

    picture: Image.Image  # RGB, perhaps shrunk
    size: tuple[int, int]  # width and height in pixels as it came


def decode_picture(data: bytes, side: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode one still picture to RGB, upright by its EXIF orientation.

    The format and the pixel count are checked on the header, before the pixels are decoded: a 20 KB PNG can
    otherwise cost 821 MB. Transparent pixels are laid on white.

    Args:
        side: pixels that are needed of the shorter side; pictures of twice as many or more are shrunk by a whole
            factor, JPEG files while they are decoded, which takes a fraction of the time. None: never shrunk.
        max_pixels: most that a picture may have.

    Raises:
        InvalidInput: not a picture in one of `FORMATS`, truncated, or more than `max_pixels` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = file.size
        if width * height > max_pixels:
            raise InvalidInput(f"picture of {width}x{height} pixels; at most {max_pixels} pixels are accepted")
        if side is not None:
            file.draft("RGB", (side, side))  # changes JPEG files only, to no less than that
        picture = ImageOps.exif_transpose(file)
        turned = file.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
        size = (height, width) if turned else (width, height)
        return Decoded(_shrunk(_rgb(picture), side), size)
    except UnidentifiedImageError:
        raise InvalidInput(f"{len(data)} bytes are not a picture; accepted are {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"broken picture: {error}") from None


def _rgb(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _shrunk(picture: Image.Image, side: int | None) -> Image.Image:
    if side is None:
        return picture
    short, long = sorted(picture.size)
    factor = max(short // side, -(-long // (LONGEST * side)))
    return picture.reduce(factor) if factor > 1 else picture
