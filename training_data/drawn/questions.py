"""Ask about a drawn picture: families of questions, each over the whole range of pictures, in several wordings.

A family looks at a picture and returns what fills its wordings' blanks, the answer, and the thing asked for (whose
size the informed bound may see); or None when it can't be asked about this picture.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from training_data.drawn.picture import SIDE_PX, Picture, Thing
from training_data.drawn.wordings import WORDINGS
from training_data.drawn.words import COLOURS, SHAPES

LATENT_NAMES = ("things", "target_px", "smallest_px", "answer_characters", "margin")


@dataclass(frozen=True)
class Question:
    """A question with its right answer; `latents` is what only the renderer knows, in the order of `LATENT_NAMES`."""

    family: str
    text: str
    answer: str
    latents: tuple[float, ...]


@dataclass(frozen=True)
class _Asked:
    answer: str
    target: Thing | None = None  # None: the question is about the whole picture
    blanks: dict[str, str] = field(default_factory=dict)
    margin: float = 1.0  # how far the answer is from the next best one, 0 to 1


_Family = Callable[[Picture, Random], _Asked | None]


def _unique(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count == 1 and value]


def _of_kind(picture: Picture, *kinds: str) -> list[Thing]:
    return [thing for thing in picture.things if thing.kind in kinds]


def _texts(picture: Picture) -> list[Thing]:
    return _of_kind(picture, "word", "number", "code") if picture.layout == "signs" else []


def _ground(picture: Picture, rng: Random) -> _Asked:
    return _Asked(picture.ground)


_KIND_NAMES = {"columns": "list", "bars": "chart"}  # where a layout isn't called by its own name


def _kind(picture: Picture, rng: Random) -> _Asked:
    return _Asked(_KIND_NAMES.get(picture.layout, picture.layout))


def _extreme(picture: Picture, sign: int) -> tuple[Thing, float] | None:
    """The largest (sign 1) or smallest (-1) object and its lead over the next, if it leads by 8% or more."""
    objects = sorted(_of_kind(picture, "object"), key=lambda thing: -sign * thing.size_px)
    if len(objects) < 2:
        return None
    lead = abs(objects[0].size_px / objects[1].size_px - 1)
    return (objects[0], min(1.0, lead)) if lead >= 0.08 else None


def _extreme_colour(sign: int) -> _Family:
    def ask(picture: Picture, rng: Random) -> _Asked | None:
        found = _extreme(picture, sign)
        return found and _Asked(found[0].colour, found[0], margin=found[1])

    return ask


def _extreme_shape(sign: int) -> _Family:
    def ask(picture: Picture, rng: Random) -> _Asked | None:
        found = _extreme(picture, sign)
        return found and _Asked(found[0].shape, found[0], margin=found[1])

    return ask


def quadrant(thing: Thing) -> tuple[str, float] | None:
    """The quadrant that a thing lies in and how clearly, or None where it lies on a border."""
    x, y = thing.centre
    half = SIDE_PX / 2
    off = min(abs(x - half), abs(y - half)) / half
    return (f"{'top' if y < half else 'bottom'} {'left' if x < half else 'right'}", off) if off >= 0.1 else None


def _largest_place(picture: Picture, rng: Random) -> _Asked | None:
    found = _extreme(picture, 1)
    place = found and quadrant(found[0])
    return _Asked(place[0], found[0], margin=place[1]) if found and place else None


def _named_objects(picture: Picture) -> dict[str, Thing]:
    """The objects that are alone in having their colour and shape, by both."""
    by_name = {f"{thing.colour} {thing.shape}": thing for thing in _of_kind(picture, "object")}
    return {name: by_name[name] for name in _unique([f"{o.colour} {o.shape}" for o in _of_kind(picture, "object")])}


def _object_place(picture: Picture, rng: Random) -> _Asked | None:
    named = _named_objects(picture)
    if not named:
        return None
    one = rng.choice(list(named))
    place = quadrant(named[one])
    return place and _Asked(place[0], named[one], {"one": one}, margin=place[1])


def _sign_place(picture: Picture, rng: Random) -> _Asked | None:
    texts = _texts(picture)
    if not texts:
        return None
    target = rng.choice(texts)
    place = quadrant(target)
    return place and _Asked(place[0], target, {"name": target.name}, margin=place[1])


def _presence(picture: Picture, rng: Random) -> _Asked | None:
    objects = _of_kind(picture, "object")
    if not objects:
        return None
    target = rng.choice(objects)
    if rng.random() < 0.5:
        return _Asked("yes", target, {"colour": target.colour, "shape": target.shape})
    there = {(thing.colour, thing.shape) for thing in objects}
    # a "no" names a colour and a shape that are both in the picture where it can, so that both must be seen together
    colours, shapes = {thing.colour for thing in objects}, {thing.shape for thing in objects}
    absent = [(c, s) for c in colours for s in shapes if (c, s) not in there]
    if not absent:
        absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in there and (c in colours or s in shapes)]
    colour, shape = rng.choice(sorted(absent))
    return _Asked("no", target, {"colour": colour, "shape": shape})


def _shape_by_colour(picture: Picture, rng: Random) -> _Asked | None:
    objects = _of_kind(picture, "object")
    colours = _unique([thing.colour for thing in objects])
    if not colours:
        return None
    target = rng.choice([thing for thing in objects if thing.colour in colours])
    return _Asked(target.shape, target, {"colour": target.colour})


def _colour_by_shape(picture: Picture, rng: Random) -> _Asked | None:
    objects = _of_kind(picture, "object")
    shapes = _unique([thing.shape for thing in objects])
    if not shapes:
        return None
    target = rng.choice([thing for thing in objects if thing.shape in shapes])
    return _Asked(target.colour, target, {"shape": target.shape})


def _count_all(picture: Picture, rng: Random) -> _Asked | None:
    objects = _of_kind(picture, "object")
    return _Asked(str(len(objects)), objects[0], margin=1 / len(objects)) if 0 < len(objects) <= 12 else None


def _count_shape(picture: Picture, rng: Random) -> _Asked | None:
    objects = _of_kind(picture, "object")
    if not objects:
        return None
    counts = Counter(thing.shape for thing in objects)
    shape = rng.choice(sorted(counts)) if rng.random() < 0.8 else rng.choice(SHAPES)
    target = next((thing for thing in objects if thing.shape == shape), objects[0])
    return _Asked(str(counts[shape]), target, {"shape": shape}, margin=1 / (1 + counts[shape]))


def _relation(picture: Picture, rng: Random) -> _Asked | None:
    named = _named_objects(picture)
    if len(named) < 2:
        return None
    one, other = rng.sample(list(named), 2)
    (x1, y1), (x2, y2) = named[one].centre, named[other].centre
    side, gap = rng.choice((("left of", x2 - x1), ("right of", x1 - x2), ("above", y2 - y1), ("below", y1 - y2)))
    if abs(gap) < 10:
        return None
    smaller = min(named[one], named[other], key=lambda thing: thing.size_px)
    blanks = {"one": one, "side": side, "other": other}
    return _Asked("yes" if gap > 0 else "no", smaller, blanks, margin=abs(gap) / SIDE_PX)


def _read(*kinds: str) -> _Family:
    def ask(picture: Picture, rng: Random) -> _Asked | None:
        texts = _texts(picture)
        colours = _unique([thing.colour for thing in texts])
        targets = [thing for thing in texts if thing.colour in colours and thing.kind in kinds]
        if not targets:
            return None
        target = rng.choice(targets)
        return _Asked(target.name, target, {"colour": target.colour})

    return ask


def _sign_colour(picture: Picture, rng: Random) -> _Asked | None:
    texts = _texts(picture)
    if not texts:
        return None
    target = rng.choice(texts)
    return _Asked(target.colour, target, {"name": target.name})


def _below(picture: Picture, rng: Random) -> _Asked | None:
    targets = [thing for thing in picture.things if picture.layout in ("list", "columns") and thing.value]
    if not targets:
        return None
    target = rng.choice(targets)
    return _Asked(target.value, target, {"name": target.name})


def _first_line(picture: Picture, rng: Random) -> _Asked | None:
    if picture.layout != "list":
        return None
    return _Asked(picture.things[0].name, picture.things[0])


def _bar_extreme(sign: int) -> _Family:
    def ask(picture: Picture, rng: Random) -> _Asked | None:
        bars = sorted(_of_kind(picture, "bar"), key=lambda thing: -sign * thing.height)
        if not bars or abs(bars[0].height - bars[1].height) < 3:
            return None
        return _Asked(bars[0].name, bars[0], margin=min(1.0, abs(bars[0].height - bars[1].height) / 30))

    return ask


def _bar_value(picture: Picture, rng: Random) -> _Asked | None:
    bars = [thing for thing in _of_kind(picture, "bar") if thing.value]
    if not bars:
        return None
    target = rng.choice(bars)
    return _Asked(target.value, target, {"name": target.name})


def _bar_colour(picture: Picture, rng: Random) -> _Asked | None:
    bars = _of_kind(picture, "bar")
    if not bars:
        return None
    target = rng.choice(bars)
    return _Asked(target.colour, target, {"name": target.name})


def _bar_label(picture: Picture, rng: Random) -> _Asked | None:
    bars = _of_kind(picture, "bar")
    colours = _unique([thing.colour for thing in bars])
    if not colours:
        return None
    target = rng.choice([thing for thing in bars if thing.colour in colours])
    return _Asked(target.name, target, {"colour": target.colour})


def _total(picture: Picture, rng: Random) -> _Asked | None:
    rows = _of_kind(picture, "total")
    return _Asked(picture.total, rows[0]) if rows else None


def _price(picture: Picture, rng: Random) -> _Asked | None:
    rows = _of_kind(picture, "row")
    if not rows:
        return None
    target = rng.choice(rows)
    return _Asked(target.value, target, {"name": target.name})


def _row_count(picture: Picture, rng: Random) -> _Asked | None:
    rows = _of_kind(picture, "row")
    return _Asked(str(len(rows)), rows[0], margin=1 / len(rows)) if rows else None


FAMILIES: dict[str, tuple[_Family, float]] = {  # family -> (function, weight in the mix)
    "background": (_ground, 0.4),
    "picture_kind": (_kind, 0.3),
    "largest_colour": (_extreme_colour(1), 1.0),
    "largest_shape": (_extreme_shape(1), 1.0),
    "largest_place": (_largest_place, 1.0),
    "smallest_colour": (_extreme_colour(-1), 0.7),
    "smallest_shape": (_extreme_shape(-1), 0.7),
    "presence": (_presence, 1.0),
    "shape_by_colour": (_shape_by_colour, 1.5),
    "colour_by_shape": (_colour_by_shape, 1.5),
    "count_all": (_count_all, 1.0),
    "count_shape": (_count_shape, 1.0),
    "object_place": (_object_place, 1.5),
    "relation": (_relation, 1.5),
    "read_word": (_read("word"), 3.0),
    "read_number": (_read("number"), 3.0),
    "read_code": (_read("code"), 1.5),
    "sign_colour": (_sign_colour, 2.0),
    "sign_place": (_sign_place, 1.5),
    "line_below": (_below, 2.0),
    "first_line": (_first_line, 1.5),
    "bar_highest": (_bar_extreme(1), 1.5),
    "bar_lowest": (_bar_extreme(-1), 1.0),
    "bar_value": (_bar_value, 2.0),
    "bar_colour": (_bar_colour, 1.0),
    "bar_label": (_bar_label, 1.0),
    "receipt_total": (_total, 1.5),
    "receipt_price": (_price, 2.0),
    "receipt_rows": (_row_count, 0.7),
}


def ask(picture: Picture, rng: Random, count: int, held_out: bool = False) -> list[Question]:
    """Up to `count` different questions about a picture; `held_out` words them as training never does."""
    families = list(FAMILIES)
    weights = [FAMILIES[family][1] for family in families]
    smallest = min((thing.size_px for thing in picture.things), default=0.0)
    questions: dict[tuple[str, ...], Question] = {}  # by what is asked, so that no two only differ in wording
    for _ in range(count * 8):
        if len(questions) == count:
            break
        family = rng.choices(families, weights)[0]
        asked = FAMILIES[family][0](picture, rng)
        if asked is None:
            continue
        wording = WORDINGS[family][-1] if held_out else rng.choice(WORDINGS[family][:-1])
        text = wording.format(**asked.blanks)
        size = asked.target.size_px if asked.target else float(SIDE_PX)
        latents = (float(len(picture.things)), size, smallest, float(len(asked.answer)), asked.margin)
        questions.setdefault((family, *asked.blanks.values()), Question(family, text, asked.answer, latents))
    return list(questions.values())
