"""The web page in Chromium, against a real server: what a user does, and what a page must not do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the page is served by the extra 'serve'")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from helpers.page_world import CHROMIUM, DAYS, EAST, NORTH, make_placed, make_plain, running  # noqa: E402
from swath.models import Model  # noqa: E402
from swath.serving.http import app  # noqa: E402

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; on Debian: apt-get install chromium"
)
FILES = Path(app.__file__).parents[1] / "page"
CARD = ".card:not(.ghost)"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        # Drawn by the processor: the test machine has no graphics card.
        arguments = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def placed(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(make_placed(served_model, tmp_path_factory.mktemp("page_placed")), served_model) as address:
        yield address


@pytest.fixture(scope="module")
def plain_archive(served_model: Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_plain(served_model, tmp_path_factory.mktemp("page_plain"))


@pytest.fixture(scope="module")
def plain(served_model: Model, plain_archive: str) -> Iterator[str]:
    with running(plain_archive, served_model) as address:
        yield address


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """visit(address, fragment, width=, ...) -> page with cards; checks at the end what it asked for."""
    contexts, complaints = [], []

    def go(address: str, fragment: str = "", wait: str = CARD, quiet: bool = True, **options: Any) -> Page:
        size = {"width": options.pop("width", 1240), "height": options.pop("height", 620)}
        context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(path=Path(__file__).with_name("page_checks.js"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        if quiet:
            page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        outside = re.compile(rf"^(?!{re.escape(address)}|blob:{re.escape(address)}|data:)")
        page.on("request", lambda r: outside.match(r.url) and complaints.append(f"asked for {r.url}"))
        page.goto(address + (f"#{fragment}" if fragment else ""))
        page.wait_for_selector(wait)
        return page

    yield go
    for context in contexts:
        context.close()
    # A GPU that is none warns about its own speed; that is not the page's doing.
    assert [text for text in complaints if "GPU stall" not in text and "WebGL" not in text] == []


def until(page: Page, condition: str) -> None:
    """Waits for a condition in JavaScript; playwright's own way evaluates text, which the page forbids."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never became true: {condition}")


def results(page: Page) -> list[str]:
    """Ids of the results, once they are loaded."""
    until(page, "document.querySelector('#results-title').textContent === 'Results'")
    until(page, "document.querySelector('#gallery').getAttribute('aria-busy') === 'false'")
    return page.eval_on_selector_all(CARD, "cards => cards.map(card => card.dataset.id)")  # type: ignore[no-any-return]


def posted(page: Page, act: Callable[[], object], path: str = "api/search") -> dict[str, Any]:
    """What a search that `act` sets off was asked."""
    with page.expect_request(lambda r: r.url.endswith(path) and r.method == "POST") as caught:
        act()
    body: dict[str, Any] = json.loads(caught.value.post_data or "{}")
    return body


def map_ready(page: Page) -> None:
    page.wait_for_selector(".tick")
    until(page, "document.querySelector('#live-status').textContent.includes('in view')")
    page.wait_for_timeout(150)  # one frame more: what has been set is drawn


# --- with a map ---------------------------------------------------------------------------------------------


def test_a_click_on_the_map_searches_by_that_place(placed: str, visit: Open) -> None:
    page = visit(placed, f"at={EAST + 0.006},{NORTH - 0.003},14")
    map_ready(page)
    body = posted(page, lambda: page.click("#map canvas", position={"x": 264, "y": 280}))
    assert body["place"] == pytest.approx([EAST + 0.006, NORTH - 0.003], abs=0.01)
    assert len(results(page)) == 20
    expect(page.locator("#query")).to_contain_text("Chips at this place")
    assert "place=" in page.url


def test_clicking_where_nothing_lies_says_so(placed: str, visit: Open) -> None:
    page = visit(placed, f"at={EAST - 2},{NORTH},12")
    map_ready(page)
    page.click("#map canvas", position={"x": 200, "y": 200})
    expect(page.locator("#toast")).to_have_text("There are no chips at this place.")


def test_enter_on_the_map_searches_by_its_middle(placed: str, visit: Open) -> None:
    page = visit(placed, f"at={EAST + 0.006},{NORTH - 0.003},14")
    map_ready(page)
    page.keyboard.press("m")
    body = posted(page, lambda: page.keyboard.press("Enter"))
    assert body["place"] == pytest.approx([EAST + 0.006, NORTH - 0.003], abs=1e-4)


def test_a_drawn_rectangle_is_a_filter_and_then_a_question(placed: str, visit: Open) -> None:
    page = visit(placed, f"at={EAST + 0.006},{NORTH - 0.003},13&k=10")
    map_ready(page)
    page.keyboard.press("r")
    surface = page.locator(".draw-surface")
    box = surface.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 180, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 340, box["y"] + 340, steps=3)
    page.mouse.up()
    expect(page.locator("#area-fields")).to_contain_text("Only inside this area")
    expect(surface).to_have_count(0)
    assert "within=" in page.evaluate("new Promise(r => setTimeout(() => r(location.hash), 400))")
    body = posted(page, lambda: page.get_by_role("button", name="Search by this place").click())
    assert body["area"]["type"] == "Polygon"
    assert "intersects" not in body["filters"]
    assert len(results(page)) == 10


def test_a_polygon_is_drawn_and_drawing_ends_with_escape(placed: str, visit: Open) -> None:
    page = visit(placed, f"at={EAST + 0.006},{NORTH - 0.003},13")
    map_ready(page)
    page.keyboard.press("p")
    page.keyboard.press("Escape")
    expect(page.locator(".draw-surface")).to_have_count(0)
    page.keyboard.press("p")
    for x, y in ((160, 160), (360, 160), (360, 330)):
        page.locator(".draw-surface").click(position={"x": x, "y": y})
    page.keyboard.press("Enter")
    expect(page.locator("#area-fields")).to_contain_text("Only inside this area")


def test_two_dates_are_compared_by_a_swipe_that_keys_move(placed: str, visit: Open) -> None:
    page = visit(placed, f"at={EAST + 0.006},{NORTH - 0.003},13", quiet=False)
    map_ready(page)
    page.keyboard.press("c")
    handle = page.get_by_role("slider", name="Divider between the two dates")
    assert page.input_value("#compare-before") == DAYS[0]
    assert page.input_value("#compare-after") == DAYS[1]
    assert f"compare={DAYS[0]}..{DAYS[1]}" in page.url
    page.get_by_label("Largest changes").check()
    expect(page.locator("#compare")).to_contain_text(re.compile(r"\d+ places, up to −?[\d.]+ σ"))
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(handle).to_have_attribute("aria-valuenow", "52")
    assert "52%" in page.evaluate("document.querySelector('#map-after').style.clipPath")
    page.keyboard.press("Escape")
    expect(page.locator("#compare")).to_be_hidden()
    assert "compare=" not in page.url


def test_the_answers_are_saved_as_geojson(placed: str, visit: Open) -> None:
    page = visit(placed, f"place={EAST + 0.006},{NORTH - 0.003}&k=5")
    ids = results(page)
    with page.expect_download() as caught:
        page.keyboard.press("e")
    saved = json.loads(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert caught.value.suggested_filename == "placed-results.geojson"
    assert [feature["id"] for feature in saved["features"]] == ids
    assert all(feature["geometry"]["type"] == "Polygon" for feature in saved["features"])
    assert saved["features"][0]["properties"]["rank"] == 1
    assert saved["swath"]["model_id"]


def test_a_small_screen_has_a_sheet_and_nothing_to_scroll_sideways(placed: str, visit: Open) -> None:
    page = visit(
        placed,
        f"place={EAST + 0.006},{NORTH - 0.003}",
        width=390,
        height=844,
        has_touch=True,
        is_mobile=True,
    )
    assert len(results(page)) == 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("checks.overflowing()") == []
    assert page.evaluate("checks.small()") == []
    height = "document.querySelector('#panels').offsetHeight"
    half = page.evaluate(height)
    page.click("#grip")
    assert page.evaluate(height) > half
    page.click("#grip")
    assert page.evaluate(height) < 100


# --- without a map: images that lie nowhere -----------------------------------------------------------------


def test_without_georeference_there_is_a_gallery_and_no_map(plain: str, visit: Open) -> None:
    page = visit(plain)
    expect(page.locator("body")).to_have_attribute("data-layout", "gallery")
    expect(page.locator("#map-part")).to_be_hidden()
    expect(page.locator("#results-title")).to_have_text("Browse the archive")
    expect(page.locator("#query")).not_to_contain_text("map")


def test_an_uploaded_image_is_searched_by(plain: str, visit: Open, plain_archive: str) -> None:
    page = visit(plain)
    picture = Path(plain_archive).parent / "pictures" / "fields" / "00.png"
    page.set_input_files("#file", picture)
    results(page)
    expect(page.locator("#query")).to_contain_text("00.png")
    best = page.locator(CARD).first
    expect(best).to_contain_text("fields")
    assert page.input_value("#image-gsd") == "1"
    expect(page.locator("#query")).to_contain_text("The GSD of the archive's chips")
    page.evaluate(  # the browser does not tell what a form with a file in it holds
        "() => { window.sent = []; const append = FormData.prototype.append;"
        "FormData.prototype.append = function (...two) { sent.push(two); append.apply(this, two); }; }"
    )
    page.fill("#image-gsd", "2")
    page.press("#image-gsd", "Enter")
    until(page, "sent.some(([key, value]) => key === 'options' && JSON.parse(value).gsd === 2)")
    results(page)
    expect(page.locator("#query")).not_to_contain_text("The GSD of the archive's chips")


def test_a_picture_without_a_scale_is_asked_for_it(placed: str, visit: Open, tmp_path: Path) -> None:
    """Chips of 10 and of 20 m: which of them a picture is like in scale cannot be guessed."""
    page = visit(placed, quiet=False)
    rgb = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "field.png")
    page.set_input_files("#file", tmp_path / "field.png")
    expect(page.locator("#problem")).to_contain_text("ground sample distance (metres per pixel)")
    expect(page.locator("#image-gsd")).to_be_focused()
    page.keyboard.type("10")
    page.keyboard.press("Enter")
    assert len(results(page)) == 20
    expect(page.locator("#problem")).to_be_empty()


def test_a_file_that_is_no_image_is_refused_in_words(plain: str, visit: Open, tmp_path: Path) -> None:
    page = visit(plain, quiet=False)
    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.png")
    expect(page.get_by_role("alert").filter(visible=True).first).not_to_be_empty()
    assert page.locator(CARD).count() == 0


def test_more_like_these_less_like_those(plain: str, visit: Open) -> None:
    page = visit(plain, "k=10")
    first = page.locator(CARD).nth(0)
    begin = first.get_attribute("data-id")
    first.locator(".frame").click()
    body = posted(page, lambda: page.get_by_role("button", name="Search by this").click())
    assert body["like"] == [begin]
    ids = results(page)
    assert begin not in ids
    page.locator(CARD).nth(0).get_by_role("button", name="More like").click()
    page.locator(CARD).nth(9).get_by_role("button", name="Less like").click()
    expect(page.locator("#refine")).to_have_text("Search with the marked examples (+1 −1)")
    body = posted(page, lambda: page.locator("#refine").click())
    assert (body["like"], body["unlike"]) == ([begin, ids[0]], [ids[9]])
    again = results(page)
    assert ids[0] not in again
    page.go_back()
    until(page, "!location.hash.includes('unlike')")
    until(page, f"document.querySelector('{CARD}')?.dataset.id === '{ids[0]}'")


def test_filters_narrow_and_are_told_of(placed: str, visit: Open) -> None:
    page = visit(placed, f"place={EAST + 0.006},{NORTH - 0.003}&k=50")
    many = results(page)
    page.fill("#time-from", "2021-01-01")
    body = posted(page, lambda: page.press("#time-from", "Tab"))
    assert body["filters"]["datetime"] == "2021-01-01/.."
    until(page, f"document.querySelectorAll('{CARD}').length < {len(many)}")
    expect(page.locator("#results-facts")).to_contain_text("of 50 requested")
    expect(page.locator("#notes")).not_to_be_empty()
    expect(page.locator("#filters-count")).to_have_text("1 set")
    page.get_by_text("By coordinates").click()
    for edge, value in (("west", "170"), ("south", "-10"), ("east", "-170"), ("north", "10")):
        page.fill(f"#edge-{edge}", value)
    body = posted(page, lambda: page.get_by_role("button", name="Use this box").click())
    assert body["filters"]["intersects"]["type"] == "MultiPolygon"
    expect(page.locator("#notes")).to_contain_text("No chips match these filters")
    page.fill("#edge-south", "50")
    page.get_by_role("button", name="Use this box").click()
    expect(page.locator("#area-fields")).to_contain_text("South must be less than north.")


def test_the_scale_is_filtered_by_two_sliders(placed: str, visit: Open) -> None:
    page = visit(placed, f"place={EAST + 0.006},{NORTH - 0.003}&k=50")
    results(page)
    finest = page.get_by_role("slider", name="Finest metres per pixel")
    finest.focus()
    body = posted(page, lambda: page.keyboard.press("End"))
    assert body["filters"]["gsd"][0] == pytest.approx(20, rel=0.02)
    until(page, f"document.querySelectorAll('{CARD}').length <= 24")
    assert {text.split(" · ")[1] for text in page.locator(".caption .facts").all_text_contents()} == {"20 m"}


def test_everything_by_keyboard(plain: str, visit: Open) -> None:
    page = visit(plain, "k=10")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    second = page.locator(CARD).nth(1)
    expect(second.locator(".frame")).to_be_focused()
    wanted = second.get_attribute("data-id")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("Escape")
    expect(second.locator(".frame")).to_be_focused()
    page.keyboard.press("+")
    expect(second).to_have_attribute("data-mark", "plus")
    expect(page.locator("#live-status")).to_contain_text("press S to search again")
    body = posted(page, lambda: page.keyboard.press("s"))
    assert body["like"] == [wanted]
    results(page)
    expect(page.locator("#live-status")).to_have_text("10 results.")
    page.keyboard.press("f")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#filters') !== null")


def test_focus_is_visible_on_all_that_takes_it(plain: str, visit: Open) -> None:
    page = visit(plain)
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        name, width = page.evaluate(
            "(e => [e.outerHTML.slice(0, 60), getComputedStyle(e).outlineWidth])(document.activeElement)"
        )
        seen.add(name)
        assert float(width.removesuffix("px")) >= 2, name
    assert len(seen) >= 8


def test_the_service_gone_is_told(plain: str, visit: Open) -> None:
    page = visit(plain, quiet=False)
    page.route("**/api/search", lambda route: route.abort())
    page.locator(CARD).first.locator(".frame").click()
    page.get_by_role("button", name="Search by this").click()
    expect(page.locator("#problem")).to_contain_text("The server does not respond.")


def test_a_token_comes_from_the_address_and_leaves_it(
    plain_archive: str, served_model: Model, visit: Open
) -> None:
    with running(plain_archive, served_model, token="a-secret") as address:
        page = visit(address, "token=a-secret&k=10")
        assert "a-secret" not in page.url
        assert "k=10" in page.url
        until(page, "document.querySelector('.card img')?.naturalWidth > 0")
        assert page.evaluate("document.querySelector('.card img').src").startswith("blob:")
        refused = visit(address, wait="#problem:not(:empty)", quiet=False)
        expect(refused.locator("#problem")).to_contain_text("requires a token")
        page.context.close()
        refused.context.close()


# --- what every state of the page must be -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_contrast_and_structure(placed: str, visit: Open, scheme: str) -> None:
    page = visit(placed, f"place={EAST + 0.006},{NORTH - 0.003}&k=10&time=2019-01-01..", color_scheme=scheme)
    results(page)
    page.keyboard.press("a")
    page.keyboard.press("+")
    assert page.evaluate("checks.unnamed()") == []
    assert page.evaluate("checks.doubleIds()") == []
    assert page.evaluate("checks.faint()") == []
    assert page.locator("h1").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0
    page.keyboard.press("Enter")
    assert page.evaluate("checks.unnamed()") == []
    assert page.evaluate("checks.faint()") == []
    background = page.evaluate("getComputedStyle(document.querySelector('.search')).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_vendored_files_are_those_of_the_package() -> None:
    folder = FILES / "vendor" / "maplibre"
    stated = dict(re.findall(r"`([\w.-]+)` \| `([0-9a-f]{64})`", (folder / "README.md").read_text()))
    assert set(stated) == {path.name for path in folder.iterdir()} - {"README.md"}
    for name, digest in stated.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert "BSD" in (folder / "LICENSE.txt").read_text()


def test_no_file_of_ours_names_another_host_or_needs_inline_script() -> None:
    ours = [p for p in FILES.rglob("*") if p.is_file() and "vendor" not in p.parts]
    assert len(ours) > 10
    for path in ours:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"https?://", text), path
    index = (FILES / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", index)
