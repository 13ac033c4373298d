"""The page's pure functions, run in the browser: boxes, the antimeridian, the address, figures in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
pytest.importorskip("fastapi", reason="the page is served by the extra 'serve'")

from helpers.page_world import CHROMIUM  # noqa: E402
from swath.serving.http import app  # noqa: E402

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; on Debian: apt-get install chromium"
)


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = {".js": "text/javascript", ".html": "text/html", "": "application/octet-stream"}  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def js() -> Iterator[Any]:
    """js("geo", "wrapLongitude(190)") -> what it gives, with the module's exports in scope."""
    folder = Path(app.__file__).parents[1] / "page"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/icon.svg")

        def run(module: str, expression: str) -> Any:
            script = "([m, e]) => import(m).then(x => new Function('m', `with (m) { return ${e} }`)(x))"
            return page.evaluate(script, [f"/js/{module}.js", expression])

        yield run
        browser.close()
    server.shutdown()
    server.server_close()


def test_views_become_boxes_also_across_the_antimeridian(js: Any) -> None:
    assert js("geo", "viewBox([170, -10, 190, 10])") == [170, -10, -170, 10]
    assert js("geo", "viewBox([-200, -95, 200, 95])") == [-180, -90, 180, 90]
    assert js("geo", "viewBox([370, 1, 380, 2])") == [10, 1, 20, 2]
    assert js("geo", "unwrapBox([170, -10, -170, 10])") == [170, -10, 190, 10]


def test_a_box_across_the_antimeridian_is_cut_there(js: Any) -> None:
    cut = js("geo", "boxPolygon([170, -10, -170, 10])")
    assert cut["type"] == "MultiPolygon"
    lons = [[x for x, _ in polygon[0]] for polygon in cut["coordinates"]]
    assert [(min(x), max(x)) for x in lons] == [(170, 180), (-180, -170)]
    assert js("geo", "geometryBox(boxPolygon([170, -10, -170, 10]))") == [170, -10, -170, 10]
    assert js("geo", "asBox(boxPolygon([170, -10, -170, 10]))") == [170, -10, -170, 10]
    assert js("geo", "centerOf(boxPolygon([170, -10, -160, 10]))") == [-175, 0]


def test_polygons_are_closed_counter_clockwise_and_have_an_area(js: Any) -> None:
    ring = js("geo", "polygonOf([[0, 0], [0, 1], [1, 1], [1, 0]])")["coordinates"][0]
    assert ring[0] == ring[-1]
    assert sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) > 0
    assert js("geo", "polygonOf([[0, 0], [1, 1]])") is None
    assert js("geo", "polygonOf([[0, 0], [1, 1], [2, 2]])") is None
    assert js("geo", "areaOf(boxPolygon([0, 0, 1, 1]))") == pytest.approx(1.2364e10, rel=1e-3)
    whole = js("geo", "areaOf(polygonOf([[175, 0], [185, 0], [180, 8]]))")
    assert whole == pytest.approx(js("geo", "areaOf(polygonOf([[0, 0], [10, 0], [5, 8]]))"), rel=1e-9)


def test_the_union_of_boxes_goes_the_short_way_round(js: Any) -> None:
    assert js("geo", "unionBox([[170, 0, 175, 1], [-175, 2, -170, 3]])") == [170, 0, -170, 3]
    assert js("geo", "unionBox([[-10, 0, 0, 1], [20, 2, 30, 3]])") == [-10, 0, 30, 3]
    assert js("geo", "unionBox([[170, 0, -170, 1]])") == [170, 0, -170, 1]


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ("[NaN, 0, 1, 1]", "four"),
        ("[0, 5, 1, 5]", "South"),
        ("[0, -91, 1, 5]", "90"),
        ("[-181, 0, 1, 5]", "180"),
        ("[3, 0, 3, 5]", "same"),
    ],
)
def test_boxes_that_are_none_are_told_why(js: Any, box: str, word: str) -> None:
    assert word in js("geo", f"boxProblem({box})")


def test_a_box_across_the_antimeridian_has_no_problem(js: Any) -> None:
    assert js("geo", "boxProblem([170, -10, -170, 10])") is None


def test_graticules_have_round_steps(js: Any) -> None:
    assert js("geo", "graticuleStep(300)") == {"step": 45, "digits": 0}
    assert js("geo", "graticuleStep(0.06)") == {"step": 0.01, "digits": 2}
    assert js("geo", "ticks(-1, 1, 0.5)") == [-1, -0.5, 0, 0.5, 1]


def test_points_near_each_other_are_gathered(js: Any) -> None:
    groups = js("geo", "gather([{x: 0, y: 0}, {x: 9, y: 0}, {x: -9, y: 0}, {x: 100, y: 0}], 10)")
    assert sorted(len(group["members"]) for group in groups) == [1, 3]
    assert {group["x"] for group in groups} == {0, 100}


STATE = """{...emptyState(), like: ['a b', 'c&d'], unlike: ['e'], k: 50, diverse: true, groupByLocation: true,
  filters: {sensors: ['s1', 's2'], gsd: [null, 10], time: ['2020-01-01', null], area: %s, minValid: 0.9},
  view: {lon: 12.5, lat: -3.25, zoom: 7.5}, compare: {before: '2020-01-01', after: '2021-01-01'}}"""


@pytest.mark.parametrize(
    "area",
    [
        "null",
        "{type: 'Polygon', coordinates: [[[0, 0], [1, 0], [1, 2], [0, 2], [0, 0]]]}",
        "{type: 'Polygon', coordinates: [[[0, 0], [3, 1], [1, 2], [0, 0]]]}",
        "{type: 'MultiPolygon', coordinates: [[[[170, 0], [180, 0], [180, 2], [170, 2], [170, 0]]], "
        "[[[-180, 0], [-175, 0], [-175, 2], [-180, 2], [-180, 0]]]]}",
        "{type: 'MultiPolygon', coordinates: [[[[170, 0], [180, 1], [180, 2], [170, 0]]], "
        "[[[-180, 1], [-175, 1.5], [-180, 2], [-180, 1]]]]}",
    ],
)
def test_the_address_holds_the_whole_question(js: Any, area: str) -> None:
    there = js("state", STATE % area)
    back = js("state", f"fromFragment(toFragment({STATE % area}))")
    assert back["problems"] == []
    assert back["state"] == there


def test_what_cannot_be_read_in_an_address_is_told_and_left_out(js: Any) -> None:
    bad = "gsd=9..1&time=yesterday..&at=1,95,3&place=200,0&within=1,2,3&k=-4&valid=7&like=x"
    read = js("state", f"fromFragment('{bad}')")
    assert len(read["problems"]) == 7
    assert read["state"] == js("state", "({...emptyState(), like: ['x']})")


def test_open_ranges_are_closed_for_the_service(js: Any) -> None:
    filters = "{...emptyState().filters, gsd: [null, 10], time: ['2020-01-01', null]}"
    body = js("state", f"searchBody({{...emptyState(), like: ['x'], filters: {filters}}})")
    assert body["filters"] == {"gsd": [1e-6, 10], "datetime": "2020-01-01/.."}
    assert body["place"] is None


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("formatGsd(0.15)", "0.15 m"),
        ("formatGsd(1200)", "1.2 km"),
        ("formatGsd(1, true)", ""),
        ("formatGsd(null)", ""),
        ("formatScore(-0.0512)", "−0.051"),
        ("formatLonLat([190, -3.2], 1)", "3.2° S, 170.0° W"),
        ("formatLonLat([0, 0], 2)", "0.00°, 0.00°"),
        ("formatTime('2020-01-02T03:04:05Z')", "2020-01-02 03:04 UTC"),
        ("formatTime('2020-01-02T00:00:00Z')", "2020-01-02"),
        ("formatYears(['2015-01-01', '2018-02-02'])", "2015 – 2018"),
        ("formatArea(5e6)", "5 km²"),
        ("formatArea(25000)", "2.5 ha"),
        ("formatBytes(2.5e7)", "25 MB"),
        ("plural(1, 'chip')", "1 chip"),
        ("plural(12345, 'chip')", "12,345 chips"),
    ],
)
def test_how_figures_are_written(js: Any, expression: str, text: str) -> None:
    assert js("format", expression) == text
