"""The page at /: its files over HTTP, and in a browser, what a person does with it and what it shows them."""

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from doubles import LADDER, FakeM3, FakeRouter, LocalModel, png
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright
from server import free_port

from serving import page as served
from serving.access import ApiKey
from serving.api import create_app
from serving.model import ModelInfo
from serving.service import Service
from serving.settings import Settings

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
KEYED = Settings(api_keys=(ApiKey(name="tests", sha256="ab" * 32),))


def app_of(router: FakeRouter, settings: Settings | None = None, model_id: str = "m3-tiny@0") -> FastAPI:
    info = ModelInfo(model_id, LADDER, 192)
    return create_app(Service(router, LocalModel(FakeM3(slow_s=0.02)), info, settings or Settings()))


def fetched(path: str, settings: Settings | None = None, model_id: str = "m3-tiny@0") -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(FakeRouter(), settings, model_id))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(scenario())


def test_the_page_knows_its_model_and_loads_nothing_from_elsewhere():
    reply = fetched("/", model_id='a "model" <b>')
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/html")
    assert 'data-model="a &quot;model&quot; &lt;b&gt;"' in reply.text and 'data-ladder="1,9,36,144,576"' in reply.text
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert not [
        path for path in served.PATHS if b"://" in fetched(path).content.replace(b"http://www.w3.org/2000", b"")
    ]


def test_what_it_links_to_is_there():
    links = re.findall(r'(?:href|src)="([^"#]+)"', fetched("/").text)
    assert "openapi.json" in links
    assert {link: fetched(f"/{link}").status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize("path", served.PATHS)
def test_its_files_need_no_key_for_the_browser_can_show_none(path: str):
    assert fetched(path, KEYED).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/../page.py", "/page/%2e%2e/page.py", "/page/", "/page/samples", "/page/none.js"]
)
def test_nothing_else_is_served(path: str):
    assert fetched(path).status_code == 404
    assert fetched(path, KEYED).status_code in (401, 404)


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
def test_it_can_be_switched_off(path: str):
    assert fetched(path, Settings(page=False)).status_code == 404
    assert fetched(path, KEYED.model_copy(update={"page": False})).status_code == 401


# ---- in the browser


@dataclass(frozen=True)
class Site:
    url: str
    router: FakeRouter


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    port, router, servers = free_port(), FakeRouter(), []

    async def serve() -> None:
        server = uvicorn.Server(uvicorn.Config(app_of(router), port=port, log_level="warning"))
        servers.append(server)
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        thread.join(0.05)
    yield Site(f"http://127.0.0.1:{port}/", router)
    servers[0].should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # CI runs as root
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    opened = browser.new_page()
    opened.set_default_timeout(20_000)
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)
    opened.goto(site.url)
    yield opened
    opened.close()
    assert [each for each in failures if "400 (Bad Request)" not in each] == []


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    file.write_bytes(png(colour="#0a141e"))
    return file


def put(page: Page, picture: Path, question: str) -> None:
    page.set_input_files("#file", picture)
    expect(page.locator("#view")).to_be_visible()
    page.fill("#question", question)


@needs_chromium
@pytest.mark.browser
def test_a_chosen_picture_is_answered_with_the_decision(page: Page, picture: Path):
    put(page, picture, "which colour is it?")
    page.click("#ask")
    expect(page.locator("#said")).to_have_text("10,20,30 which colour is it?")
    expect(page.locator("#decided")).to_have_text("1 visual token used, 575 saved: the router chose")
    expect(page.locator("#grid")).to_contain_text("averaged over 1 x 1 cell")
    expect(page.locator("#chances tr.chosen")).to_have_text("110.0%")  # 1 token, 10%
    expect(page.locator("#chances tbody tr")).to_have_count(5)
    expect(page.locator("#times li").first).to_contain_text("ms in all")
    expect(page.locator("#totals")).to_contain_text("1 answer, 1 visual tokens used, 575 saved (100%)")
    expect(page.locator("#recent tbody tr")).to_have_count(1)


@needs_chromium
@pytest.mark.browser
def test_the_answer_grows_as_it_streams(page: Page, picture: Path):
    put(page, picture, " ".join(f"word{i}" for i in range(20)))
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => seen.push(document.getElementById('said').textContent))"
        ".observe(document.getElementById('said'), {childList: true}); }"
    )
    page.click("#ask")
    expect(page.locator("#said")).to_contain_text("word19")
    seen = page.evaluate("() => window.seen")
    assert len(set(seen)) > 5 and seen[-1].startswith(seen[len(seen) // 2])


@needs_chromium
@pytest.mark.browser
def test_the_slider_fixes_the_scale_by_keyboard_alone(page: Page, picture: Path):
    put(page, picture, "which colour?")
    page.focus("#scale")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#scale-told")).to_have_text("always 36")
    expect(page.locator("#loss")).to_be_disabled()
    expect(page.locator("#grid")).to_contain_text("6 x 6 cells")
    page.focus("#question")
    page.keyboard.press("Enter")
    expect(page.locator("#decided")).to_have_text("36 visual tokens used, 540 saved: as you asked")
    expect(page.locator("#chances")).to_be_hidden()  # nothing was predicted


@needs_chromium
@pytest.mark.browser
def test_the_quality_knob_reaches_the_router(page: Page, site: Site, picture: Path):
    put(page, picture, "how many?")
    page.focus("#loss")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#loss-told")).to_have_text("1 points against 576 visual tokens")
    page.click("#ask")
    expect(page.locator("#decided")).to_contain_text("576 visual tokens used")
    assert site.router.asked[-1].max_loss == 0.01


@needs_chromium
@pytest.mark.browser
def test_all_scales_stand_side_by_side_with_the_routers_choice(page: Page, picture: Path):
    put(page, picture, "which colour is this?")
    page.click("#all")
    expect(page.locator("#scales article")).to_have_count(5)
    for card in page.locator("#scales article").all():
        expect(card).to_contain_text("10,20,30 which colour is this?")
    expect(page.locator("#scales .chosen")).to_contain_text("1 visual token")


@needs_chromium
@pytest.mark.browser
def test_samples_come_with_their_questions(page: Page):
    page.click("#samples button:nth-child(2)")
    expect(page.locator("#samples button:nth-child(2)")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#suggestions button")).not_to_have_count(0)
    page.click("#suggestions button:nth-child(1)")
    expect(page.locator("#said")).not_to_be_empty()


@needs_chromium
@pytest.mark.browser
def test_mistakes_are_told_where_they_happen(page: Page, picture: Path, tmp_path: Path):
    page.click("#ask")
    expect(page.locator("#picture-error")).to_have_text("Choose a picture first.")
    expect(page.locator("#question-error")).to_have_text("Type a question first.")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    page.set_input_files("#file", text)
    expect(page.locator("#picture-error")).to_have_text("text.png is no picture that this browser can show.")
    put(page, picture, "refuse")
    page.click("#ask")
    expect(page.locator("#error")).to_have_text("the question is beyond the model's context")
    put(page, picture, "x" * 2000)
    page.click("#ask")
    expect(page.locator("#question-error")).to_contain_text("1000")
    page.fill("#question", "which colour now?")
    page.click("#ask")
    expect(page.locator("#said")).to_contain_text("which colour now?")
    expect(page.locator("#question-error")).to_be_empty()


@needs_chromium
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, site: Site, picture: Path, scheme: str):
    phone = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    phone.goto(site.url)
    put(phone, picture, "which colour is it?")
    phone.click("#ask")
    expect(phone.locator("#recent tbody tr")).to_have_count(1)
    phone.click("#all")
    expect(phone.locator("#scales .chosen")).to_be_visible()
    assert phone.evaluate("() => document.documentElement.scrollWidth") <= 360
    phone.close()
