"""A picture's file without what decides no pixel, and what its headers say: read before anything is decoded.

Decoders read a file's headers part by part, unpack every text and profile on their way, and believe what they are
told: 12 MB of packed colour profiles took Pillow 63 s, and a progressive JPEG of 300 KB hours. Here a file is walked by
its parts' lengths; the number of parts, frames and scans is bounded, and only what decides pixels is passed on.
Colour profiles (ICC), gamma and texts are left out, and so is a position in XMP: only EXIF says how a camera was held.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from complexity.errors import InvalidInput

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MOST_PARTS = 200_000  # chunks of a PNG or WEBP, blocks of a GIF; 25 megapixels of noise have 150,000 as a GIF
MOST_SEGMENTS = 10_000  # of a JPEG; Pillow takes up to 10 microseconds for one
PASSES_PIXELS = 500_000_000  # scans times pixels of a JPEG: about a second
SMALL_PIXELS = 5_000_000  # a JPEG of fewer may have as many scans as one of so many
RLE_PIXELS = 1_000_000  # of a BMP of runs, which Pillow unpacks in Python: half a second
RLE_BYTES = 1_000_000

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")  # not: a stuffed zero, padding, restarts, a start
SOF = frozenset(b"\xc0\xc1\xc2\xc3\xc5\xc6\xc7\xc9\xca\xcb\xcd\xce\xcf")
TABLES = frozenset(b"\xc4\xcc\xdb\xdd")
SOS, EOI, APP0, APP1, APP14 = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE
GREY_STEP = {2: 85, 4: 17}  # between grey levels of so many bits, in eight
OS2_HEADER, RUNS = 12, (1, 2)  # of a BMP: bytes of the oldest header; kinds of runs
NUMBERS = {1: "B", 3: "H", 4: "I"}  # TIFF's types


@dataclass(frozen=True)
class PictureFile:
    """What the headers of a picture's file say; sizes in pixels, as stored."""

    kind: str  # one of FORMATS
    width: int
    height: int
    data: bytes  # the file without what decides no pixel
    frames: int = 1
    orientation: int = 1  # EXIF, 1 to 8


def read_container(data: bytes) -> PictureFile:
    """Read a picture's headers and leave out what decides no pixel; costs a fraction of decoding.

    Raises:
        InvalidInput: no picture, cut short in its headers, or of too many parts or scans.
    """
    for kind, (is_kind, read) in READERS.items():
        if is_kind.match(data):
            try:
                return read(data)
            except (IndexError, struct.error):
                raise broken(kind) from None
    raise InvalidInput(f"{len(data)} bytes are not a picture; accepted are {', '.join(FORMATS)}")


def broken(kind: str) -> InvalidInput:
    """The error of a damaged file; it repeats nothing of it."""
    return InvalidInput(f"broken picture: the {kind} data is damaged or cut short")


def orientation_of(exif: bytes) -> int:
    """How a camera was held, 1 to 8, by the TIFF block of an EXIF; 1 where that is missing or damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, at)
            if tag == 0x0112 and kind in NUMBERS and count == 1:
                (value,) = struct.unpack_from(order + NUMBERS[kind], exif, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _jpeg(data: bytes) -> PictureFile:
    kept, frame, orientation, segments = [data[:2]], b"", 1, 0
    at = 2
    while found := MARKER.search(data, at):
        at = found.start()
        marker = data[at + 1]
        if marker == EOI or (segments := segments + 1) > MOST_SEGMENTS:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + 2 + length]
        if marker == SOS:
            if not frame:
                break
            bits, height, width, layers = struct.unpack_from(">BHHB", frame, 4)
            if bits != 8:
                raise InvalidInput(f"JPEG pictures of 8 bits are accepted, not of {bits}")
            several = frame[1] not in (0xC0, 0xC1) or data[at + 4] != layers
            _check_scans(data, at, width * height) if several else None
            return PictureFile("JPEG", width, height, b"".join([*kept, data[at:]]), 1, orientation)
        if marker in SOF:
            if frame:
                break
            frame = segment
        if marker == APP1 and segment.startswith(b"Exif\0\0", 4) and orientation == 1:
            orientation = orientation_of(segment[10:])
        colours = (marker == APP0 and segment[4:8] == b"JFIF") or (marker == APP14 and segment[4:9] == b"Adobe")
        if marker in SOF or marker in TABLES or colours:
            kept.append(segment)
        at += 2 + length
    _few(segments, MOST_SEGMENTS, "segments", "JPEG")
    raise broken("JPEG")


def _check_scans(data: bytes, at: int, pixels: int) -> None:
    """Refuse a JPEG that has its pixels gone over too often; its first scan is at `at`."""
    scans = segments = 0
    most = PASSES_PIXELS // max(pixels, SMALL_PIXELS)
    while found := MARKER.search(data, at):
        marker = data[found.start() + 1]
        segments += 1
        if marker == EOI or segments > MOST_SEGMENTS:
            break
        scans += marker == SOS
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    _few(segments, MOST_SEGMENTS, "segments", "JPEG")
    _few(scans, most, "scans", "JPEG")


def _png(data: bytes) -> PictureFile:
    _, first, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if first != b"IHDR":
        raise broken("PNG")
    kept, frames, parts, orientation = [PNG_HEAD], 0, 0, 1
    is_animated = first_is_shown = False
    at = 8
    while at + 8 <= len(data) and parts <= MOST_PARTS:
        size, kind = struct.unpack_from(">I4s", data, at)
        parts += 1
        match kind:
            case b"tRNS" if colour in (0, 2):
                kept.append(_transparent(data[at + 8 : at + 8 + size], depth, colour))
            case b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT" | b"IEND":
                first_is_shown |= kind == b"IDAT" and frames > 0
                kept.append(data[at : at + 12 + size])
            case b"eXIf":
                orientation = orientation_of(data[at + 8 : at + 8 + size])
            case b"acTL":
                is_animated = True
            case b"fcTL":
                frames += 1
        at += 12 + size
    _few(parts, MOST_PARTS, "chunks", "PNG")
    shown = frames + (not first_is_shown) if is_animated else 1
    return PictureFile("PNG", width, height, b"".join(kept), shown, orientation)


def _transparent(content: bytes, depth: int, colour: int) -> bytes:
    """The chunk of a PNG's transparent colour, for Pillow: it compares with pixels of 8 bits, but for grey of 16."""
    levels = struct.unpack(f">{len(content) // 2}H", content[: len(content) // 2 * 2])
    if depth in GREY_STEP and colour == 0:
        levels = tuple(min(255, level * GREY_STEP[depth]) for level in levels)
    elif depth == 16 and colour == 2:
        levels = tuple(level >> 8 for level in levels)
    named = b"tRNS" + struct.pack(f">{len(levels)}H", *levels)
    return struct.pack(">I", len(named) - 4) + named + struct.pack(">I", zlib.crc32(named))


def _gif(data: bytes) -> PictureFile:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = start = 13 + _palette(flags)
    control = first = b""
    frames = parts = 0
    while (found := GIF_BLOCK.search(data, at)) and data[found.start()] != GIF_END and parts <= MOST_PARTS:
        block = at = found.start()
        is_frame = data[at] == GIF_FRAME
        if at + 11 > len(data) and is_frame:
            break  # cut short
        at += 11 + _palette(data[at + 9]) if is_frame else 2
        while at < len(data) and data[at] and parts <= MOST_PARTS:
            at += 1 + data[at]
            parts += 1
        at += 1
        parts += 1
        if is_frame:
            frames += 1
            first = first or data[block:at]
        elif data[block + 1 : block + 2] == GIF_CONTROL and not first:
            control = data[block:at]
    _few(parts, MOST_PARTS, "blocks", "GIF")
    left, top, wide, high = struct.unpack_from("<HHHH", first, 1)
    size = max(width, left + wide), max(height, top + high)  # a frame may be larger than the screen
    return PictureFile("GIF", *size, data[:start] + control + first + b";", frames)


def _palette(flags: int) -> int:
    """Bytes of the colours that follow a GIF's screen or frame."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(data: bytes) -> PictureFile:
    kept, frames, parts, orientation = [], 0, 0, 1
    sizes = [(0, 0)]
    at = 12
    while at + 8 <= len(data) and parts <= MOST_PARTS:
        kind, size = struct.unpack_from("<4sI", data, at)
        content = data[at + 8 : at + 8 + size]
        parts += 1
        frames += kind == b"ANMF"
        if kind in WEBP_SIZE:
            sizes.append(WEBP_SIZE[kind](content))
        if kind in WEBP_KEPT:
            kept.append(data[at : at + 8 + size + size % 2])
        elif kind == b"EXIF":
            orientation = orientation_of(content.removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    _few(parts, MOST_PARTS, "chunks", "WEBP")
    width, height = max(sizes, key=lambda size: size[0] * size[1])  # of the canvas and of what lies on it
    body = b"".join([b"WEBP", *kept])
    return PictureFile(
        "WEBP", width, height, b"RIFF" + struct.pack("<I", len(body)) + body, max(1, frames), orientation
    )


def _lossy_size(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", content, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(content: bytes) -> tuple[int, int]:
    (bits,) = struct.unpack_from("<I", content, 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _canvas_size(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1


def _bmp(data: bytes) -> PictureFile:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == OS2_HEADER:
        width, height = struct.unpack_from("<HH", data, 18)
        return PictureFile("BMP", width, height, data)
    width, height, _, _, compression = struct.unpack_from("<IiHHI", data, 18)
    height = abs(height)  # rows from the top are told by a minus
    if compression in RUNS:
        if width * height > RLE_PIXELS:
            told = f"a BMP of runs has {width}x{height} pixels"
            raise InvalidInput(f"{told}; at most {RLE_PIXELS} are accepted; send it as PNG")
        data = data[:RLE_BYTES]
    return PictureFile("BMP", width, height, data)


def _few(count: int, most: int, what: str, kind: str) -> None:
    if count > most:
        raise InvalidInput(f"a {kind} of more than {most} {what} costs too much to read; encode the picture anew")


GIF_BLOCK = re.compile(rb"[,!;]")
GIF_FRAME, GIF_END, GIF_CONTROL = ord(","), ord(";"), b"\xf9"
WEBP_SIZE = {b"VP8X": _canvas_size, b"VP8 ": _lossy_size, b"VP8L": _lossless_size}
WEBP_KEPT = frozenset([*WEBP_SIZE, b"ALPH", b"ANIM", b"ANMF"])
READERS = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _jpeg),
    "PNG": (re.compile(re.escape(PNG_HEAD)), _png),
    "WEBP": (re.compile(rb"RIFF....WEBPVP8[ XL]", re.DOTALL), _webp),
    "GIF": (re.compile(rb"GIF8[79]a"), _gif),
    "BMP": (re.compile(rb"BM"), _bmp),
}
