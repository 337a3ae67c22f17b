"""Describe a drawn picture thing by thing: what tuning is told beside questions, as LLaVA is first told captions.

A description names every thing with its colour, text, value and place, in reading order, so each picture teaches many
times what a question asks once. Only `train-m3` uses it; no family of questions asks for it.
"""

from random import Random

from training_data.drawn.picture import SIDE_PX, Picture, Thing
from training_data.drawn.questions import quadrant

MOST = 10  # things in a description
BAND_PX = SIDE_PX // 4  # things whose centres share a band count as one row of the reading order


def describe(picture: Picture, rng: Random) -> tuple[str, str] | None:
    """A request for a description of the picture, or of one of its quadrants, and the description.

    None where there is nothing to name, or too much.
    """
    things = _in_order(picture)
    asked = rng.choice(("Describe the picture.", "List everything."))
    if picture.layout in ("shapes", "signs") and (len(things) > MOST or rng.random() < 0.3):
        place = rng.choice(("top left", "top right", "bottom left", "bottom right"))
        things = [thing for thing in things if (found := quadrant(thing)) and found[0] == place]
        asked = f"List everything in the {place}."
        return (asked, "; ".join(map(_name, things))) if 0 < len(things) <= MOST else None
    if not 0 < len(things) <= 2 * MOST:
        return None
    names = []
    for thing in things:
        found = quadrant(thing) if picture.layout in ("shapes", "signs") else None
        names.append(f"{_name(thing)} {found[0]}" if found else _name(thing))
    return asked, "; ".join(names)


def _in_order(picture: Picture) -> list[Thing]:
    if picture.layout not in ("shapes", "signs"):
        return list(picture.things)
    return sorted(picture.things, key=lambda thing: (thing.centre[1] // BAND_PX, thing.centre[0]))


def _name(thing: Thing) -> str:
    value = thing.value if thing.kind in ("bar", "row", "total") else ""
    return " ".join(part for part in (thing.colour, thing.shape, thing.name, value) if part)
