"""Draw the sample pictures of the service's page, with questions that need different granularities.

    python -m training_data.drawn.page_samples serving/page/samples

They come from the test split, which neither m3-tiny nor its router was trained on.
"""

import json
import sys
from pathlib import Path

from training_data.drawn.corpus import CorpusItem, draw_item

SEED = 23
WANTED = (  # title, layout, things in it, families of questions from coarse to fine
    ("nine objects", "shapes", 9, ("background", "largest_shape", "smallest_colour", "count_all")),
    ("three signs", "signs", 3, ("background", "read_word", "sign_colour", "read_number")),
    ("a crowd of signs", "signs", 18, ("picture_kind", "background", "read_word", "read_number")),
    ("a bar chart", "bars", 8, ("picture_kind", "bar_highest", "bar_colour", "bar_value")),
    ("a list", "list", 7, ("background", "first_line", "line_below", "read_word")),
    ("a receipt", "receipt", 6, ("picture_kind", "receipt_rows", "receipt_total", "receipt_price")),
)


def find(layout: str, things: int, families: tuple[str, ...], at_least: int = 3) -> tuple[CorpusItem, list[str]]:
    """The first picture of a layout with so many things that most of the families ask about, and their questions."""
    for index in range(5000):
        item = draw_item("test", SEED, index, questions=40)
        if item.picture.layout == layout and len(item.picture.things) == things:
            asked = {question.family: question.text for question in reversed(item.questions)}
            found = [asked[family] for family in families if family in asked]
            if len(found) >= at_least:
                return item, found
    raise LookupError(f"no picture of {layout} with {things} things and {at_least} of {', '.join(families)}")


def main(argv: list[str] | None = None) -> int:
    """Write the pictures and samples.json into the folder that is named, as the module says."""
    (folder,) = map(Path, sys.argv[1:] if argv is None else argv)
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for title, layout, things, families in WANTED:
        item, questions = find(layout, things, families)
        file = f"{title.replace(' ', '-')}.png"
        item.picture.image.save(folder / file, optimize=True)
        listed.append({"file": file, "title": title, "questions": questions})
    (folder / "samples.json").write_text(json.dumps(listed, indent=1) + "\n")
    print(json.dumps({"out": str(folder), "samples": len(listed)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
