"""Encoded bytes -> a decoded RGB picture, refusing what is not a picture or too large, before it costs memory."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from complexity.errors import InvalidInput

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 25_000_000


def decode_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one still picture to RGB, upright by its EXIF orientation.

    The format and the pixel count are checked on the header, before the pixels are decoded: a 20 KB PNG can
    otherwise cost 821 MB. Transparent pixels are laid on white.

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
        picture = ImageOps.exif_transpose(file)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(ground, picture).convert("RGB")
        return picture.convert("RGB")
    except UnidentifiedImageError:
        raise InvalidInput(f"{len(data)} bytes are not a picture; accepted are {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"broken picture: {error}") from None
