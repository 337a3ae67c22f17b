"""Hostile and odd pictures, made by hand where no encoder would make them, and ways to damage any file."""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable

from PIL import Image

WRONG = b"-1 0 1 99999999 -99999999 2147483648 -2147483648 nan NaN inf Infinity 1e400 null true".split() + [
    *(b"", b"4 4", b'""', b"[]", b"{}", b"9" * 400, b"[" * 5000),
]
NUMBER = re.compile(rb"-?[0-9][0-9.e+-]*")
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
MEGABYTES = 12  # of a hostile file: about what fits in the service's largest request


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(
    width: int,
    height: int,
    depth: int,
    colour: int,
    rows: bytes,
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG file of raw rows, each after its filter byte; further chunks stand before and after the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"".join([PNG_HEAD, head, *before, chunk(b"IDAT", zlib.compress(rows, 1)), *after, chunk(b"IEND")])


def segment(marker: int, content: bytes = b"") -> bytes:
    """A segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(jpeg: bytes, segments: Iterable[bytes]) -> bytes:
    """A JPEG file with segments behind its start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif_of(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block, "Exif" included, that says how the camera was held; the kind is TIFF's number of a type."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
    mark = b"II" if order == "<" else b"MM"
    return b"Exif\0\0" + mark + struct.pack(order + "HIH", 42, 8, 1) + entry + struct.pack(order + "I", 0)


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a WEBP file."""
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def webp_file(*chunks: bytes) -> bytes:
    """A WEBP file of chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    """The first chunk of an extended WEBP file."""
    return riff_chunk(
        b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def gif_file(width: int, height: int, blocks: bytes) -> bytes:
    """A GIF file with two colours; its trailer is added."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + blocks + b";"


def gif_frame(width: int, height: int, codes: bytes = b"\x02\x44\x01\x00", left: int = 0, top: int = 0) -> bytes:
    """One frame; the codes are sub-blocks of LZW, and those by default say one pixel."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02" + codes


def bmp_file(width: int, height: int, bits: int, pixels: bytes, compression: int = 0, palette: bytes = b"") -> bytes:
    """A BMP file with a header of 40 bytes."""
    offset = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + head + palette + pixels


def progressive_scans(side: int, scans: int, noise: bool = False) -> bytes:
    """A progressive JPEG of one colour, or of grain, whose last scan stands there again and again."""
    picture = Image.effect_noise((side, side), 30).convert("RGB") if noise else Image.new("RGB", (side, side), "red")
    jpeg = encoded(picture, "JPEG", progressive=True, quality=30)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * scans + jpeg[-2:]


def animated(kind: str, frames: int = 3) -> bytes:
    """A real animation of differing frames."""
    pictures = [Image.new("RGB", (16, 12), (20 * i % 256, 100, 50)) for i in range(frames)]
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], duration=100)


GREY = b"".join(bytes([i, i, i, 0]) for i in range(256))  # no palette at all, to Pillow
COLOURS = b"".join(bytes([i, 255 - i, i // 2, 0]) for i in range(256))
SMALL_PNG = PNG_HEAD + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
SMALL_DATA = zlib.compress(b"\0\x80")


def _jpeg() -> bytes:
    return encoded(Image.new("RGB", (64, 48), "green"), "JPEG")


def _fill(piece: bytes) -> bytes:
    return piece * (MEGABYTES * 1_000_000 // len(piece))


def _webp(**options: object) -> bytes:
    return encoded(Image.new("RGB", (64, 48), "green"), "WEBP", **options)


BOMBS: dict[str, Callable[[], bytes]] = {
    # JPEG
    "jpeg: 20,000 progressive scans": lambda: progressive_scans(4900, 20_000),
    "jpeg: 100 progressive scans": lambda: progressive_scans(4900, 90),
    "jpeg: 20 progressive scans": lambda: progressive_scans(4900, 10),
    "jpeg: 99 progressive scans of a smaller picture": lambda: progressive_scans(2200, 89),
    "jpeg: 20 progressive scans of noise": lambda: progressive_scans(4900, 10, noise=True),
    "jpeg: thousands of EXIF blocks": lambda: with_segments(
        _jpeg(), [segment(0xE1, b"Exif\0\0" + b"x" * 250)] * 45_000
    ),
    "jpeg: millions of comments": lambda: with_segments(_jpeg(), [_fill(segment(0xFE))]),
    "jpeg: megabytes of junk between segments": lambda: with_segments(_jpeg(), [_fill(b"x")]),
    "jpeg: megabytes of padding between segments": lambda: with_segments(_jpeg(), [_fill(b"\xff")]),
    "jpeg: thousands of tables": lambda: with_segments(_jpeg(), [_fill(segment(0xDB, b"\0" + b"\1" * 64))]),
    "jpeg: a broken list of pictures": lambda: with_segments(_jpeg(), [segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")]),
    "jpeg: 65,500 by 65,500": lambda: _jpeg().replace(
        struct.pack(">HH", 48, 64), struct.pack(">HH", 65_500, 65_500), 1
    ),
    "jpeg: no height": lambda: _jpeg().replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 0, 64), 1),
    "jpeg: megabytes behind the end": lambda: _jpeg() + _fill(b"\xff\xda"),
    "jpeg: 25 MP of noise-free CMYK": lambda: encoded(Image.new("CMYK", (5000, 5000), (9, 99, 0, 9)), "JPEG"),
    "jpeg: 25 MP of progressive CMYK": lambda: encoded(
        Image.new("CMYK", (5000, 5000), (9, 99, 0, 9)), "JPEG", progressive=True
    ),
    "jpeg: 25 MP": lambda: encoded(Image.new("RGB", (5000, 5000), "red"), "JPEG"),
    "jpeg: 25 MP, progressive": lambda: encoded(
        Image.new("RGB", (5000, 5000), "red"), "JPEG", progressive=True, subsampling=0
    ),
    # PNG
    "png: a million chunks": lambda: SMALL_PNG + _fill(chunk(b"teSt")) + chunk(b"IDAT", SMALL_DATA) + chunk(b"IEND"),
    "png: a million chunks at the end": lambda: (
        SMALL_PNG + chunk(b"IDAT", SMALL_DATA) + _fill(chunk(b"teSt")) + chunk(b"IEND")
    ),
    "png: a million pieces of pixels": lambda: (
        SMALL_PNG + _fill(chunk(b"IDAT")) + chunk(b"IDAT", SMALL_DATA) + chunk(b"IEND")
    ),
    "png: thousands of packed profiles": lambda: (
        SMALL_PNG
        + _fill(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000))))
        + chunk(b"IDAT", SMALL_DATA)
        + chunk(b"IEND")
    ),
    "png: packed texts": lambda: (
        SMALL_PNG
        + 60 * chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1_000_000)))
        + chunk(b"IDAT", SMALL_DATA)
        + chunk(b"IEND")
    ),
    "png: one packed text of a gigabyte": lambda: (
        SMALL_PNG + chunk(b"zTXt", b"x\0\0" + _deflated(1 << 30)) + chunk(b"IDAT", SMALL_DATA) + chunk(b"IEND")
    ),
    "png: a gigabyte of pixels for one": lambda: SMALL_PNG + chunk(b"IDAT", _deflated(1 << 30)) + chunk(b"IEND"),
    "png: 1 wide, 25,000,000 high": lambda: png_file(1, 25_000_000, 8, 2, bytes(4 * 25_000_000)),
    "png: 25,000,000 wide, 1 high": lambda: png_file(25_000_000, 1, 8, 2, bytes(3 * 25_000_000 + 1)),
    "png: 1 wide, 65,535 high": lambda: png_file(1, 65_535, 8, 2, bytes(4 * 65_535)),
    "png: 65,535 wide, 1 high": lambda: png_file(65_535, 1, 8, 2, bytes(3 * 65_535 + 1)),
    "png: nothing": lambda: png_file(0, 0, 8, 2, b""),
    "png: 2,147,483,647 squared": lambda: png_file(2**31 - 1, 2**31 - 1, 8, 2, b""),
    "png: a lying count of frames, twice": lambda: png_file(
        1, 1, 8, 0, b"\0\x80", [chunk(b"acTL", struct.pack(">II", 2**31, 0))] * 2
    ),
    "png: 25 MP, interlaced": lambda: png_file(5000, 5000, 8, 6, bytes(5000 * 20_001 + 5000), interlaced=True),
    "png: 25 MP": lambda: png_file(5000, 5000, 8, 6, bytes(5000 * 20_001)),
    "png: 25 MP of 16 bits": lambda: png_file(5000, 5000, 16, 6, bytes(5000 * 40_001)),
    # GIF
    "gif: 400,000 frames": lambda: gif_file(4, 4, 400_000 * gif_frame(1, 1)),
    "gif: 100,000 frames": lambda: gif_file(4, 4, 100_000 * gif_frame(1, 1)),
    "gif: a comment in single bytes": lambda: gif_file(1, 1, b"!\xfe" + _fill(b"\x01x") + b"\0" + gif_frame(1, 1)),
    "gif: millions of extensions": lambda: gif_file(1, 1, _fill(b"!\x01\x00") + gif_frame(1, 1)),
    "gif: megabytes of junk between blocks": lambda: gif_file(1, 1, _fill(b"x") + gif_frame(1, 1)),
    "gif: codes in single bytes": lambda: gif_file(5000, 5000, gif_frame(5000, 5000, _fill(b"\x01\x04") + b"\0")),
    "gif: 65,535 squared": lambda: gif_file(65_535, 65_535, gif_frame(1, 1)),
    "gif: a frame larger than its screen": lambda: gif_file(1, 1, gif_frame(65_535, 65_535)),
    "gif: nothing": lambda: gif_file(0, 0, gif_frame(0, 0)),
    "gif: a frame of nothing": lambda: gif_file(9, 9, gif_frame(0, 0)),
    "gif: 25 MP": lambda: encoded(Image.new("P", (5000, 5000)), "GIF"),
    # WEBP
    "webp: a canvas of 13,000 squared": lambda: webp_file(webp_canvas(13_000, 13_000), _webp()[12:]),
    "webp: a canvas of 16,777,216 squared": lambda: webp_file(webp_canvas(2**24, 2**24), _webp()[12:]),
    "webp: 16,383 squared": lambda: _webp().replace(struct.pack("<HH", 64, 48), struct.pack("<HH", 16_383, 16_383), 1),
    "webp: a million chunks": lambda: webp_file(webp_canvas(64, 48), _fill(riff_chunk(b"teSt", b"")), _webp()[12:]),
    "webp: 100,000 frames": lambda: webp_file(
        webp_canvas(64, 48, 2),
        riff_chunk(b"ANIM", bytes(6)),
        100_000 * riff_chunk(b"ANMF", bytes(6) + b"\x3f\0\0\x2f\0\0" + bytes(4) + _webp(lossless=True)[12:]),
    ),
    "webp: 25 MP": lambda: encoded(Image.new("RGB", (5000, 5000), "red"), "WEBP", method=0),
    "webp: 25 MP, lossless with alpha": lambda: encoded(
        Image.new("RGBA", (5000, 5000), (9, 99, 0, 9)), "WEBP", lossless=True, method=0, quality=0, exact=True
    ),
    # BMP
    "bmp: a header of 25 MP without pixels": lambda: bmp_file(5000, 5000, 24, b""),
    "bmp: 65,535 squared": lambda: bmp_file(65_535, 65_535, 24, b"\0" * 100),
    "bmp: negative width": lambda: bmp_file(-5, 5, 24, b"\0" * 100),
    "bmp: upside down, 65,535 squared": lambda: bmp_file(65_535, -65_535, 24, b"\0" * 100),
    "bmp: nothing": lambda: bmp_file(0, 0, 24, b""),
    "bmp: runs of 4 bits": lambda: bmp_file(5000, 5000, 4, b"\xff\x12" * 110_000, 2, COLOURS[:64]),
    "bmp: runs of 8 bits, one by one": lambda: bmp_file(5000, 5000, 8, _fill(b"\x01\x12"), 1, COLOURS),
    "bmp: runs that never fit": lambda: bmp_file(100, 100, 8, b"\x64\x12" + _fill(b"\x01\x12"), 1, COLOURS),
    "bmp: ends of rows": lambda: bmp_file(5000, 5000, 8, b"\x01\x12\0\0" * 5000, 1, COLOURS),
    "bmp: 1 wide, 25,000,000 high": lambda: bmp_file(1, 25_000_000, 24, b""),
    "bmp: 25 MP": lambda: bmp_file(5000, 5000, 24, bytes(75_000_000)),
}


def _deflated(size: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(size >> 20)), packer.flush()])


def seeds() -> dict[str, bytes]:
    """Small files of every kind that is read, to be damaged."""
    ramp = Image.linear_gradient("L").resize((24, 18))
    colour = Image.merge(
        "RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_180), ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    alpha = colour.copy()
    alpha.putalpha(ramp)
    exif = exif_of(6)
    return {
        "jpeg": encoded(colour, "JPEG", exif=exif),
        "progressive jpeg": encoded(colour, "JPEG", progressive=True),
        "grey jpeg": encoded(ramp, "JPEG"),
        "cmyk jpeg": encoded(colour.convert("CMYK"), "JPEG"),
        "png": encoded(colour, "PNG", exif=exif),
        "png with alpha": encoded(alpha, "PNG"),
        "png of 1 bit": encoded(ramp.convert("1"), "PNG"),
        "png of 16 bits": encoded(Image.new("I;16", (24, 18), 300), "PNG"),
        "palette png": encoded(colour.quantize(16), "PNG", transparency=3),
        "animated png": animated("PNG"),
        "gif": encoded(colour.quantize(16), "GIF", transparency=3),
        "animated gif": animated("GIF"),
        "webp": encoded(colour, "WEBP", exif=exif),
        "lossless webp": encoded(alpha, "WEBP", lossless=True),
        "animated webp": animated("WEBP"),
        "bmp": encoded(colour, "BMP"),
        "palette bmp": encoded(colour.quantize(16), "BMP"),
        "rle bmp": bmp_file(8, 4, 8, b"\x08\x12\0\0" * 4 + b"\0\x01", 1, COLOURS),
    }


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with one to a few things done to it: bits turned, numbers replaced, parts cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        span = rng.choice((1, 2, 4, 16, 64))
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + span] = rng.randbytes(span)
            case 2:
                number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1))
                data[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
            case 3:
                del data[at : at + span]
            case 4:
                data[at:at] = data[at : at + span]
            case 5:
                del data[at:]
            case _:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + span]
        if not data:
            break
    return bytes(data)


def misspelt(content: bytes, rng: random.Random) -> bytes:
    """A text with a wrong number, or something else, in the place of one to three of its numbers."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.choice([found.span() for found in NUMBER.finditer(content)] or [(0, 0)])
        content = content[: at[0]] + rng.choice(WRONG) + content[at[1] :]
    return content
