"""Draw one picture of the procedural corpus: a layout of 1 to 30 things, each of which may be asked for.

Sizes and, above all, density vary within every layout: the visual tokens are made before the question is known, so a
crowded picture needs many of them and an empty one needs few. Everything follows from the seed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from PIL import Image, ImageDraw

from training_data.drawn.words import COLOURS, FONTS, GROUNDS, HELD_OUT_FONTS, HELD_OUT_WORDS, SHAPES, WORDS, font

SIDE_PX = 192
MAX_THINGS = 30
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PAPERS = ("white", "white", "black", "yellow", "cyan", "pink", "gray")
_DARK = {"blue", "purple", "brown", "black", "green", "red"}


Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class World:
    """What pictures may be made of; `SHIFTED` holds what training never sees."""

    most_things: int = MAX_THINGS
    words: tuple[str, ...] = WORDS
    fonts: tuple[str, ...] = FONTS
    layouts: tuple[str, ...] = ("shapes", "signs", "list", "bars", "receipt")
    shares: tuple[float, ...] = (0.30, 0.25, 0.13, 0.15, 0.17)
    sparse: float = 0.7  # share of pictures whose number of things is uniform in the logarithm; the others' is uniform


TRAINED = World()
SHIFTED = World(words=HELD_OUT_WORDS, fonts=HELD_OUT_FONTS, layouts=("shapes", "signs", "columns", "bars", "receipt"))


@dataclass(frozen=True)
class Thing:
    """One thing in a picture: an object, a sign, a line of text, a bar, a receipt's row.

    `name` is its own text or label, `value` the text that belongs to it (a price, a bar's value, the next line).
    """

    kind: str
    box: Box  # all of it
    size_px: float  # text height or radius
    colour: str = ""
    shape: str = ""
    name: str = ""
    value: str = ""
    height: int = 0  # a bar's value as a number
    inks: tuple[tuple[str, Box], ...] = ()  # each text as drawn and the box of its ink

    @property
    def centre(self) -> tuple[float, float]:
        """Of its box, (x, y) in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Picture:
    """A drawn picture, and all that its maker knows of it."""

    image: Image.Image  # RGB, SIDE_PX square
    layout: str
    ground: str  # the background's colour
    things: tuple[Thing, ...]
    total: str = ""  # a receipt's total


@lru_cache(maxsize=16384)
def _ink_box(path: str, size_px: int, text: str) -> Box:
    return font(path, size_px).getbbox(text)


class _Canvas:
    """A picture being drawn, with the choices that hold for all of it."""

    def __init__(self, rng: Random, world: World, layout: str):
        self.rng, self.world, self.layout = rng, world, layout
        self.ground = rng.choice(tuple(GROUNDS) if layout in ("shapes", "signs") else _PAPERS)
        self.image = Image.new("RGB", (SIDE_PX, SIDE_PX), self.shade(GROUNDS[self.ground]))
        self.draw = ImageDraw.Draw(self.image)
        self.font_path = rng.choice(world.fonts)
        self.ink = self.shade(GROUNDS["white" if self.ground in _DARK else "black"])

    def shade(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        r, g, b = (min(255, max(0, channel + self.rng.randint(-14, 14))) for channel in rgb)
        return r, g, b

    def colours(self, count: int) -> list[str]:
        """`count` colours off the background; up to six of them appear once, so that they can be asked for."""
        palette = [name for name in COLOURS if name != self.ground]
        self.rng.shuffle(palette)
        once = palette[: min(count, self.rng.randint(2, 6))]
        rest = palette[len(once) :]
        chosen = once + [self.rng.choice(rest) for _ in range(count - len(once))]
        self.rng.shuffle(chosen)
        return chosen

    def text(self, x: float, y: float, text: str, size_px: int, fill: tuple[int, int, int]) -> Box:
        """Write text with its ink's top left corner at (x, y); the ink's box."""
        left, top, right, bottom = _ink_box(self.font_path, size_px, text)
        self.draw.text((x - left, y - top), text, fill, font=font(self.font_path, size_px))
        return x, y, x + right - left, y + bottom - top

    def text_size(self, text: str, size_px: int) -> tuple[float, float]:
        left, top, right, bottom = _ink_box(self.font_path, size_px, text)
        return right - left, bottom - top

    def done(self, things: list[Thing], total: str = "") -> Picture:
        return Picture(self.image, self.layout, self.ground, tuple(things), total)


def _how_many(rng: Random, world: World, most: int = MAX_THINGS) -> int:
    """1 to `most`, at most the world's most; so that crowded pictures are common, not all are `sparse`."""
    most = min(most, world.most_things)
    if rng.random() < world.sparse:
        return min(most, int(math.exp(rng.uniform(0, math.log(most + 1)))))
    return rng.randint(1, most)


def _some_text(rng: Random, world: World, taken: set[str]) -> tuple[str, str]:
    """A text that isn't in the picture yet, and its kind: word, number or code (letters that make no word)."""
    while True:
        kind = rng.choice(("word", "number", "code"))
        if kind == "word":
            text = rng.choice(world.words)
        elif kind == "number":
            text = str(rng.randint(1, 10 ** rng.randint(1, 4) - 1))
        else:
            text = "".join(rng.choices(LETTERS, k=rng.randint(2, 4)))
        if text not in taken:
            taken.add(text)
            return text, kind


def _fit(canvas: _Canvas, texts: list[str], width_px: float, height_px: float) -> int:
    """A text size from 8 to 60 px; the closer to what just fits, the likelier."""
    w, h = canvas.text_size(max(texts, key=len) + "0", 48)
    most = max(8.0, min(60.0, 48 * width_px / w, 48 * height_px / h))
    largest = math.log(most + 0.5)
    return int(math.exp(canvas.rng.triangular(math.log(8), largest, largest)))


def _cells(rng: Random, count: int, columns: int, rows: int) -> list[tuple[float, float, float, float]]:
    """`count` different cells of a grid over the picture, in random order: (left, top, width, height)."""
    width, height = SIDE_PX / columns, SIDE_PX / rows
    picks = rng.sample(range(columns * rows), count)
    return [(pick % columns * width, pick // columns * height, width, height) for pick in picks]


def _polygon(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    if shape == "triangle":
        return [(x, y - r), (x + r, y + r * 0.8), (x - r, y + r * 0.8)]
    if shape == "diamond":
        return [(x, y - r), (x + r, y), (x, y + r), (x - r, y)]
    if shape == "star":
        turn = [(k * math.pi / 5 - math.pi / 2, r if k % 2 == 0 else r * 0.42) for k in range(10)]
        return [(x + s * math.cos(a), y + s * math.sin(a)) for a, s in turn]
    t = r * 0.34  # cross
    return [(x - t, y - r), (x + t, y - r), (x + t, y - t), (x + r, y - t), (x + r, y + t), (x + t, y + t),
            (x + t, y + r), (x - t, y + r), (x - t, y + t), (x - r, y + t), (x - r, y - t), (x - t, y - t)]  # fmt: skip


def _draw_shape(canvas: _Canvas, shape: str, x: float, y: float, r: float, fill: tuple[int, int, int]) -> None:
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        canvas.draw.ellipse(box, fill)
    elif shape == "ring":
        canvas.draw.ellipse(box, outline=fill, width=max(2, round(r * 0.36)))
    elif shape == "square":
        canvas.draw.rectangle((x - r * 0.88, y - r * 0.88, x + r * 0.88, y + r * 0.88), fill)
    else:
        canvas.draw.polygon(_polygon(shape, x, y, r), fill)


def _shapes(canvas: _Canvas) -> Picture:
    rng = canvas.rng
    count = _how_many(rng, canvas.world)
    side = max(1, math.ceil(math.sqrt(count * rng.uniform(1.0, 1.6))))
    fits = min(45.0, SIDE_PX / side / 2 - 1)
    most = math.exp(rng.uniform(math.log(min(12, fits)), math.log(fits)))  # the picture's own scale
    radii = [max(6.0, math.exp(rng.uniform(math.log(most * 0.55), math.log(most * 0.9)))) for _ in range(count)]
    if count > 1 and rng.random() < 0.7:  # one stands out, by more or less
        radii[0], radii[1] = max(radii) * rng.uniform(1.1, 1.6), max(5.0, min(radii) * rng.uniform(0.6, 0.9))
    things = []
    cells = _cells(rng, count, side, side)
    for r, (left, top, width, height), colour in zip(radii, cells, canvas.colours(count), strict=True):
        x = rng.uniform(left + r, left + width - r) if width > 2 * r else left + width / 2
        y = rng.uniform(top + r, top + height - r) if height > 2 * r else top + height / 2
        shape = rng.choice(SHAPES)
        _draw_shape(canvas, shape, x, y, r, canvas.shade(COLOURS[colour]))
        things.append(Thing("object", (x - r, y - r, x + r, y + r), r, colour, shape))
    return canvas.done(things)


def _signs(canvas: _Canvas) -> Picture:
    rng = canvas.rng
    count = _how_many(rng, canvas.world)
    columns = max(1, round(math.sqrt(count * rng.uniform(0.35, 0.7))))
    rows = math.ceil(count / columns)
    taken: set[str] = set()
    texts = [_some_text(rng, canvas.world, taken) for _ in range(count)]
    size_px = _fit(canvas, [text for text, _ in texts], SIDE_PX / columns - 7, SIDE_PX / rows - 6)
    things = []
    cells = _cells(rng, count, columns, rows)
    for (text, kind), colour, (left, top, width, height) in zip(texts, canvas.colours(count), cells, strict=True):
        w, h = canvas.text_size(text, size_px)
        pad = min(max(2, size_px // 6), (height - h) / 2, (width - w) / 2)
        x = rng.uniform(left + pad, max(left + pad, left + width - w - pad))
        y = rng.uniform(top + pad, max(top + pad, top + height - h - pad))
        box = (x - pad, y - pad, x + w + pad, y + h + pad)
        canvas.draw.rectangle(box, canvas.shade(COLOURS[colour]))
        ink = canvas.text(x, y, text, size_px, canvas.shade(GROUNDS["white" if colour in _DARK else "black"]))
        things.append(Thing(kind, box, h, colour, name=text, inks=((text, ink),)))
    return canvas.done(things)


def _lines(canvas: _Canvas, columns: int) -> Picture:
    """Texts below one another; `value` of each is the text of the line below."""
    rng = canvas.rng
    count = _how_many(rng, canvas.world, 16 * columns)
    taken: set[str] = set()
    texts = [_some_text(rng, canvas.world, taken) for _ in range(count)]
    rows = math.ceil(count / columns)
    size_px = _fit(canvas, [text for text, _ in texts], SIDE_PX / columns - 8, (SIDE_PX - 8) / rows - 3)
    pitch = min((SIDE_PX - 8) / rows, size_px * rng.uniform(1.2, 2.0))
    start = rng.uniform(4, max(4.1, SIDE_PX - 4 - pitch * rows))
    things = []
    for i, (text, kind) in enumerate(texts):
        x = 5 + (i // rows) * SIDE_PX / columns + rng.uniform(0, 3)
        box = canvas.text(x, start + i % rows * pitch, text, size_px, canvas.ink)
        below = texts[i + 1][0] if i % rows + 1 < rows and i + 1 < count else ""
        things.append(Thing(kind, box, box[3] - box[1], name=text, value=below, inks=((text, box),)))
    return canvas.done(things)


def _bars(canvas: _Canvas) -> Picture:
    rng = canvas.rng
    count = max(2, _how_many(rng, canvas.world, 24))
    labels = rng.sample(LETTERS, count)
    valued = count <= 12
    heights = rng.sample(range(5, 100), count)
    colours = canvas.colours(count) if rng.random() < 0.7 else canvas.colours(1) * count
    pitch = min(40.0, (SIDE_PX - 8) / count)
    start = rng.uniform(4, SIDE_PX - 4 - pitch * count)
    size_px = max(8, min(round(pitch * rng.uniform(0.55, 0.8)), 26))
    floor = SIDE_PX - 6 - size_px
    tallest = (floor - size_px - 8) * rng.uniform(0.6, 1.0) / 100
    things = []
    for i, (label, value, colour) in enumerate(zip(labels, heights, colours, strict=True)):
        left, right, top = start + i * pitch, start + (i + 0.8) * pitch, floor - value * tallest
        canvas.draw.rectangle((left, top, max(left + 1, right), floor), canvas.shade(COLOURS[colour]))
        w, h = canvas.text_size(label, size_px)
        inks = [(label, canvas.text((left + right - w) / 2, floor + 3, label, size_px, canvas.ink))]
        box = (left, top, right, floor + 3 + h)
        if valued:
            w, tall = canvas.text_size(str(value), size_px)
            ink = canvas.text((left + right - w) / 2, top - tall - 2, str(value), size_px, canvas.ink)
            inks.append((str(value), ink))
            box = (left, top - tall - 2, right, floor + 3 + h)
        shown = str(value) if valued else ""
        things.append(Thing("bar", box, h, colour, name=label, value=shown, height=value, inks=tuple(inks)))
    return canvas.done(things)


def _receipt(canvas: _Canvas) -> Picture:
    rng = canvas.rng
    count = _how_many(rng, canvas.world, 14)
    names = rng.sample(canvas.world.words, count)
    cents = [rng.randint(10, rng.choice((999, 9900)) // count + 50) for _ in range(count)]
    total = sum(cents)
    price = [f"{c // 100}.{c % 100:02d}" for c in [*cents, total]]
    size_px = _fit(canvas, ["WWWWW 000.00"], SIDE_PX - 12, (SIDE_PX - 10) / (count + 1) - 2)
    gap = canvas.text_size("WWWWW0000.00", size_px)[0] * rng.uniform(0.95, 1.2)
    right = min(SIDE_PX - 6.0, 6 + gap + rng.uniform(0, 6))
    pitch = min((SIDE_PX - 10) / (count + 1), size_px * rng.uniform(1.2, 1.9))
    start = rng.uniform(4, max(4.1, SIDE_PX - 6 - pitch * (count + 1)))
    things = []
    for i, (name, value) in enumerate(zip([*names, "TOTAL"], price, strict=True)):
        y = start + i * pitch
        if name == "TOTAL":
            canvas.draw.line((4, y - 1, right + 2, y - 1), canvas.ink)
            y += 1
        key = canvas.text(6, y, name, size_px, canvas.ink)
        amount = canvas.text(right - canvas.text_size(value, size_px)[0], y, value, size_px, canvas.ink)
        kind, box = "total" if name == "TOTAL" else "row", (6.0, key[1], right, key[3])
        inks = ((name, key), (value, amount))
        things.append(Thing(kind, box, key[3] - key[1], name=name, value=value, inks=inks))
    return canvas.done(things, price[-1])


_LAYOUTS: dict[str, Callable[[_Canvas], Picture]] = {
    "shapes": _shapes,
    "signs": _signs,
    "list": lambda canvas: _lines(canvas, 1),
    "columns": lambda canvas: _lines(canvas, 2),
    "bars": _bars,
    "receipt": _receipt,
}


def draw_picture(rng: Random, world: World = TRAINED) -> Picture:
    """Draw a picture of a random layout; the same `rng` state gives the same picture."""
    layout = rng.choices(world.layouts, world.shares)[0]
    return _LAYOUTS[layout](_Canvas(rng, world, layout))
