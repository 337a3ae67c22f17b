"""What pages are made of: their opening, tables and pictures, all in one file and with nothing from elsewhere."""

import base64
from collections.abc import Callable
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #aaa; --good: #12683a;
  --good-paper: #dff3e6; --bad: #9b2226; --bad-paper: #fbe3e1 }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --soft: #a3adb8; --paper: #14181d; --line: #56606b;
  --good: #9be3b8; --good-paper: #12351f; --bad: #ffb4ac; --bad-paper: #451a18 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--paper); overflow-wrap: break-word }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; overflow-wrap: normal } td { white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; position: sticky; left: 0;
  background: var(--paper) } th { border-bottom: 1px solid var(--line) }
tr.ours { font-weight: 600 }
img { max-width: 100%; background: #fff; border-radius: 4px }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
.worst figure { margin: 0 } .worst img { width: 192px; image-rendering: pixelated; border: 1px solid var(--line) }
figcaption, .note { font-size: .87rem; color: var(--soft) } pre { overflow-x: auto; font-size: .82rem }
"""


def opening(title: str, more_style: str = "") -> str:
    """The first lines of a page."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}{more_style}</style>"
    )


def image(data: bytes, alt: str, kind: str = "png") -> str:
    """A picture that is in the page itself."""
    encoded = base64.b64encode(data).decode()
    return f"<img alt='{escape(alt, quote=True)}' src='data:image/{kind};base64,{encoded}'>"


def table(head: list[str], rows: list[list[str]], ours: Callable[[list[str]], bool] = lambda row: False) -> str:
    """A table of texts that can be pushed sideways where the screen is narrow; `ours`: which rows stand out."""
    lines = ["<div class=wide><table><tr>" + "".join(f"<th>{escape(cell)}" for cell in head)]
    for row in rows:
        lines.append(f"<tr{' class=ours' if ours(row) else ''}>" + "".join(f"<td>{escape(cell)}" for cell in row))
    return "\n".join([*lines, "</table></div>"])
