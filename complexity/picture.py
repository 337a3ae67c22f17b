"""Encoded bytes -> a decoded RGB picture, refusing what is not a picture or too large, before it costs memory."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from complexity.container import PictureFile, broken, read_container
from complexity.errors import InvalidInput

MAX_PIXELS = 25_000_000
MAX_SIDE = 65_535  # pixels: what JPEG and GIF can say; a strip of 25,000,000 rows takes 859 MB of memory
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BAND_PIXELS = 1_000_000  # laid on white at a time
LONGEST = 8  # times the needed side, whatever the shorter side: a strip costs no more than other pictures


@dataclass(frozen=True)
class Decoded:
    """A picture, upright."""

    picture: Image.Image  # RGB, perhaps shrunk
    size: tuple[int, int]  # width and height in pixels as it came


def decode_picture(data: bytes, side: int | None = None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode one still picture to RGB, upright by its EXIF orientation.

    What the headers say is checked before the pixels are decoded: a 20 KB PNG can otherwise cost 821 MB. Transparent
    pixels are laid on white, 16 bits a channel become 8, and colour profiles (ICC) are ignored.

    Args:
        side: pixels that are needed of the shorter side; pictures of twice as many or more are shrunk by a whole
            factor, JPEG files while they are decoded, which takes a fraction of the time. None: never shrunk.
        max_pixels: most that a picture may have.

    Raises:
        InvalidInput: not one still picture of a kind in container.FORMATS, damaged, or more than `max_pixels` pixels;
            the message repeats nothing of the file.
    """
    told = read_container(data)
    _check_size(told, max_pixels)
    if told.frames > 1:
        raise InvalidInput(f"an animated picture of {told.frames} frames; send one frame")
    try:
        picture = _pixels(told, side)
    except (MemoryError, InvalidInput):
        raise
    except Exception:  # whatever a decoder makes of foreign bytes: its errors are of a dozen types, and quote the bytes
        raise broken(told.kind) from None
    size = (told.height, told.width) if told.orientation in SIDEWAYS else (told.width, told.height)
    return Decoded(picture, size)


def _check_size(told: PictureFile, max_pixels: int) -> None:
    size = f"picture of {told.width}x{told.height} pixels"
    if not told.width or not told.height:
        raise InvalidInput(f"{size}; there is nothing to see")
    if told.width * told.height > max_pixels:
        raise InvalidInput(f"{size}; at most {max_pixels} pixels are accepted")
    if max(told.width, told.height) > MAX_SIDE:
        raise InvalidInput(f"{size}; at most {MAX_SIDE} on a side are accepted")


def _pixels(told: PictureFile, side: int | None) -> Image.Image:
    picture: Image.Image = _opened(told, side)
    if told.orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[told.orientation])
    return _shrunk(_rgb(picture), side)


def _opened(told: PictureFile, side: int | None) -> Image.Image:
    file = Image.open(io.BytesIO(told.data), formats=(told.kind,))
    if file.size != (told.width, told.height):  # Pillow reads the headers otherwise: what was checked isn't what comes
        raise broken(told.kind)
    if side is not None:
        file.draft("RGB", (side, side))  # changes JPEG files only, to no less than that
    file.load()
    if file.mode == "I;16":
        return _eight_bits(file)
    if file.format == "BMP" and file.mode == "RGBA" and file.getchannel("A").getextrema() == (0, 0):
        return file.convert("RGB")  # alpha that nobody filled in
    return file


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8 bits; Pillow itself would show all but the darkest 256 levels as white."""
    levels = np.asarray(picture)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if "transparency" in picture.info:
        grey.putalpha(Image.fromarray(np.where(levels == picture.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _rgb(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    width, height = picture.size
    ground = Image.new("RGB", picture.size)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):  # in one go, three more pictures of four bytes a pixel would stand beside this
        band = picture.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        ground.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return ground


def _shrunk(picture: Image.Image, side: int | None) -> Image.Image:
    if side is None:
        return picture
    short, long = sorted(picture.size)
    factor = max(short // side, -(-long // (LONGEST * side)))
    return picture.reduce(factor) if factor > 1 else picture
