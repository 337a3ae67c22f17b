"""The page at `/`: a picture, a question, and what was decided, in the browser; static files beside the interface."""

import html
from pathlib import Path
from string import Template

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from serving.model import ModelInfo
from serving.settings import Settings

FOLDER = Path(__file__).parent / "page"
PATHS = ("/", *(f"/page/{file.relative_to(FOLDER)}" for file in sorted(FOLDER.rglob("*.*"))))
"""What the page is made of; open to everybody, since a browser can't show a key when it loads a page."""
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
ENCODED, ENVELOPE_BYTES = 3 / 4, 4096  # bytes of a picture in one of base64; what a request has beside its picture


def add_page(app: FastAPI, info: ModelInfo, settings: Settings) -> None:
    """Serve the page at `/`, and its files under /page."""
    told = {
        "model": info.model_id,
        "ladder": ",".join(map(str, info.ladder)),
        "aspect": info.aspect,
        "tiny": str(info.model_id.startswith("m3-tiny@")).lower(),
        "keys": str(bool(settings.api_keys)).lower(),
        "longest": str(int((settings.max_body_bytes - ENVELOPE_BYTES) * ENCODED)),
    }
    template = Template((FOLDER / "index.html").read_text())
    page = template.substitute({name: html.escape(value) for name, value in told.items()})

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": POLICY, "cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=FOLDER), "page")
