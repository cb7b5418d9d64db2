"""The static head picker in a real browser: from disk, over HTTP, with the network blocked, by keyboard alone."""

import csv
import functools
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import NEEDS_BROWSER
from PIL import Image

from vitmech_utils.report.picker import HeadPicker, example_arrays, save_page

pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.browser, NEEDS_BROWSER]

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
LAYERS, HEADS, GRID, IMAGES = 5, 7, (11, 13), 3
EVIL = '</script><img src=x onerror="window.hacked=1">\'&$x^2$'


def small(**changes) -> dict:
    return example_arrays(LAYERS, HEADS, GRID, IMAGES, size=64, queries=4) | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    save_page(folder / "one.html", [HeadPicker(**small())], "One")
    save_page(folder / "two.html", [HeadPicker(**small()), HeadPicker(**small(), name="second")], "Two")
    texts = np.full((LAYERS, HEADS), EVIL, dtype=object)
    hostile = small(title=EVIL, variants=[EVIL, "b"], twins=[EVIL, "b"], image_labels=[EVIL, "b", "c"])
    hostile |= {"regions": [EVIL, *"bcdefg"], "head_class": texts, "evidence": texts, "effect_label": EVIL}
    save_page(folder / "hostile.html", [HeadPicker(**hostile)], EVIL)
    save_page(
        folder / "bare.html", [HeadPicker(np.ones((1, 2, 3, 4, 4)), np.zeros((1, 8, 8), np.uint8))], "Bare"
    )
    return folder


@pytest.fixture
def page(browser):
    """A page that records errors and requests, and answers only what comes from disk or this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.errors, page.requested = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)

    def answer(route):
        page.requested.append(route.request.url)
        local = route.request.url.startswith(("file:", "http://127.0.0.1", "data:", "blob:"))
        route.continue_() if local else route.abort()

    page.route("**/*", answer)
    yield page
    context.close()


def load(page, folder: Path, name: str, fragment: str = "") -> None:
    page.goto((folder / name).as_uri() + fragment)
    page.wait_for_selector(".vm-card")


def picked(page, number: int = 0) -> str:
    """The head that picker `number` shows, from its visible heading."""
    return page.locator(".vm-name").nth(number).inner_text()


def cell(page, layer: int, head: int, number: int = 0):
    """A cell by the 1-based numbers that the page shows."""
    grid = page.get_by_role("grid").nth(number)
    return grid.get_by_role("gridcell", name=f"layer {layer}, head {head}", exact=False).first


def heat(page, number: int = 0) -> list[int]:
    return page.evaluate(
        """n => { const c = document.querySelectorAll('.vm-heat')[n];
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }""",
        number,
    )


def test_it_works_from_disk_without_any_request(page, folder):
    load(page, folder, "one.html")
    cell(page, 4, 6).click()
    assert picked(page) == "Layer 4 · head 6"
    assert page.errors == []
    assert page.requested == [(folder / "one.html").as_uri()]


def test_it_works_over_http_without_another_request(page, folder):
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *arguments: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/one.html")
        page.wait_for_selector(".vm-card")
        cell(page, 2, 3).click()
        assert picked(page) == "Layer 2 · head 3"
        server.shutdown()
    assert [url for url in page.requested if not url.endswith(("one.html", "favicon.ico"))] == []


def test_the_painted_map_is_the_given_map(page, folder):
    arrays = small()
    load(page, folder, "one.html", "#L3H5")
    pixels = np.array(heat(page)).reshape(*GRID, 4)
    expected = arrays["maps"][0, 0, 2, 4]
    top = np.unravel_index(expected.argmax(), GRID)
    assert tuple(pixels[top]) == (254, 232, 56, 255)  # the brightest colour of cividis
    # The blue-yellow map brightens with attention: order is kept.
    order = np.argsort(expected.ravel())
    red = pixels[..., 0].ravel()[order]
    assert (np.diff(red.astype(int)) >= 0).mean() > 0.95


def test_facts_are_those_of_the_picked_head(page, folder):
    arrays = small()
    load(page, folder, "one.html", "#L2H6")
    text = page.locator(".vm-facts").inner_text()
    assert arrays["head_class"][1][5] in text
    assert arrays["evidence"][1][5] in text
    share, area = arrays["shares"][0, 0, 1, 5], arrays["area_shares"][0]
    top = int(share.argmax())
    bar = page.locator(".vm-bar").nth(top).inner_text()
    assert float(bar.split("\n")[1].split("\u00a0%")[0]) == pytest.approx(share[top] * 100, rel=0.02)
    assert float(bar.split("· ")[1].split("\u00a0×")[0]) == pytest.approx(share[top] / area[top], rel=0.06)


def test_measures_colour_the_grid(page, folder):
    load(page, folder, "one.html")
    select = page.get_by_label("Colour the grid by")
    colours = {}
    for value in ("effect", "lift:2", "entropy", "class"):
        select.select_option(value)
        colours[value] = cell(page, 1, 1).evaluate("e => e.style.background")
    assert len(set(colours.values())) >= 3
    assert cell(page, 1, 1).inner_text() == small()["head_class"][0][0][0].upper()
    assert small()["head_class"][0][0] in cell(page, 1, 1).get_attribute("aria-label")


def test_images_variants_and_twins_stand_side_by_side(page, folder):
    load(page, folder, "one.html")
    first = heat(page)
    page.get_by_role("radio", name="chirp 3").check(force=True)
    assert heat(page) != first
    page.get_by_role("group", name="Model").get_by_role("radio", name="both").check(force=True)
    page.get_by_role("group", name="Image", exact=True).get_by_role("radio", name="both").check(force=True)
    assert page.locator(".vm-panel").count() == 4
    captions = page.locator(".vm-caption").all_inner_texts()
    assert captions[3].startswith("pre-trained · undecorated · CLS query · highest ")
    assert len({tuple(heat(page, number)) for number in range(4)}) == 4


def test_a_shared_scale_darkens_weak_maps_and_opacity_reveals_the_image(page, folder):
    load(page, folder, "one.html")
    own = np.array(heat(page)).max(initial=0)
    page.get_by_role("radio", name="shared").check(force=True)
    assert own >= np.array(heat(page)).max()
    assert "≥" in page.locator(".vm-stage .vm-ticks").inner_text()
    page.get_by_label("Opacity of the map").fill("0")
    assert page.locator(".vm-heat").evaluate("e => e.style.opacity") == "0"
    colour = """e => [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]
        .some((value, index, all) => index % 4 === 0 && value !== all[index + 1])"""
    assert page.locator(".vm-photo").evaluate(colour)


def test_patch_queries_by_mouse_and_keyboard(page, folder):
    load(page, folder, "one.html", "#L2H2")
    cls = heat(page)
    page.locator(".vm-aim").click(position={"x": 5, "y": 5})
    assert "row 1, column 1 as query" in page.locator(".vm-caption").inner_text()
    assert heat(page) != cls
    corner = heat(page)
    page.locator(".vm-aim").press("ArrowDown")
    assert "row 4, column 1 as query" in page.locator(".vm-caption").inner_text()
    assert heat(page) != corner
    page.locator(".vm-aim").press("Escape")
    assert heat(page) == cls
    page.get_by_role("radio", name="chirp 2").check(force=True)
    assert page.locator(".vm-aim").is_hidden()
    page.get_by_role("radio", name="patch", exact=True).check(force=True)
    assert page.get_by_role("radio", name="chirp 1").is_checked()


def test_keyboard_alone_reaches_everything(page, folder):
    load(page, folder, "one.html", "#L1H1")
    seen = []
    page.locator("body").focus()
    for _ in range(24):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "(e => e.getAttribute('aria-label') || e.name || e.tagName)(document.activeElement)"
            )
        )
    text = " | ".join(seen)
    assert seen[0].startswith("layer 1, head 1")  # the grid comes first
    for part in ("Order the list by", "Show in the list", "Heads in order", "Scrub through the layers"):
        assert part in text
    for part in ("PNG", "CSV", "Colour the grid", "layer 1, head 1", "query patch", "vm-group", "Opacity"):
        assert part in text
    cell(page, 1, 1).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert picked(page) == "Layer 3 · head 2"
    page.keyboard.press("End")
    assert picked(page) == f"Layer 3 · head {HEADS}"
    page.keyboard.press("ArrowRight")  # the edge holds
    page.keyboard.press("PageDown")
    assert picked(page) == f"Layer {LAYERS} · head {HEADS}"
    page.keyboard.press("Control+Home")
    assert picked(page) == "Layer 1 · head 1"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("layer 1, head 1")
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    assert page.locator("[role=gridcell][aria-selected=true]").count() == 1
    assert "Layer 1, head 1" in page.locator("[aria-live=polite]").inner_text()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_two_pickers_do_not_disturb_each_other(page, folder):
    load(page, folder, "two.html", "#L2H3")
    page.wait_for_function("document.querySelectorAll('.vm-card').length === 2")
    assert picked(page, 0) == "Layer 2 · head 3"
    other = picked(page, 1)
    cell(page, 5, 1, 0).click()
    page.get_by_role("radio", name="chirp 2").nth(0).check(force=True)
    assert picked(page, 1) == other
    assert page.get_by_role("radio", name="chirp 1").nth(1).is_checked()
    cell(page, 3, 3, 1).click()
    assert (picked(page, 0), picked(page, 1)) == ("Layer 5 · head 1", "Layer 3 · head 3")


def test_deep_links_are_read_followed_and_written(page, folder):
    load(page, folder, "two.html", "#second:L4H2")
    page.wait_for_function("document.querySelectorAll('.vm-card').length === 2")
    assert picked(page, 1) == "Layer 4 · head 2"
    page.evaluate("location.hash = '#L1H7'")
    page.wait_for_function("document.querySelector('.vm-name').textContent === 'Layer 1 · head 7'")
    assert picked(page, 1) == "Layer 4 · head 2"
    cell(page, 3, 2, 0).click()
    page.wait_for_function("location.hash === '#L3H2'")
    cell(page, 3, 5, 1).click()
    page.wait_for_function("location.hash === '#second:L3H5'")
    for nonsense in ("#L99H1", "#L0H0", "#%E0%A4%A", "#other:L1H1"):
        page.evaluate("hash => { location.hash = hash; }", nonsense)
    page.wait_for_timeout(50)
    assert (picked(page, 0), picked(page, 1)) == ("Layer 3 · head 2", "Layer 3 · head 5")
    assert page.errors == []


def test_downloads(page, folder, tmp_path):
    load(page, folder, "one.html", "#L2H3")
    with page.expect_download() as caught:
        page.get_by_label("Download the shown map as PNG").click()
    assert caught.value.suggested_filename == "L2H3_image1.png"
    caught.value.save_as(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.width == 24 + 480 + 24
    with page.expect_download() as caught:
        page.get_by_label("Download the table of heads as CSV").click()
    caught.value.save_as(tmp_path / "heads.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "heads.csv").read_text(encoding="utf-8-sig"))))
    assert len(rows) == LAYERS * HEADS
    arrays = small()
    row = rows[1 * HEADS + 2]
    assert (row["layer (1-based)"], row["head (1-based)"]) == ("2", "3")
    assert float(row["effect on the MSE (%)"]) == pytest.approx(arrays["effect"][1, 2], rel=1e-3)
    assert row["class"] == arrays["head_class"][1][2]
    share = float(row["raw attention share of chirp (CLS query, fine-tuned, decorated, chirp 1)"])
    assert share == pytest.approx(arrays["shares"][0, 0, 1, 2, 2], abs=1e-4)


def test_hostile_labels_stay_text(page, folder):
    load(page, folder, "hostile.html")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    assert EVIL in page.locator(".vm-title").inner_text()
    assert EVIL in page.locator(".vm-evidence").inner_text()
    assert page.errors == []


def test_bare_maps_make_a_picker_without_empty_rooms(page, folder):
    load(page, folder, "bare.html")
    cell(page, 2, 3).click()
    assert picked(page) == "Layer 2 · head 3"
    assert page.locator(".vm-effect").is_hidden()
    assert page.locator(".vm-bars").count() == 0
    assert page.locator(".vm-strip").is_hidden()


def test_without_scripts_a_figure_and_a_table_stand_there(browser, folder):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "one.html").as_uri())
    assert page.locator(".vm-fallback img").bounding_box()["width"] > 300
    page.locator(".vm-fallback summary").click()
    assert page.locator(".vm-fallback tbody tr").count() == LAYERS * HEADS
    context.close()


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_audit(browser, folder, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    load(page, folder, "two.html")
    page.wait_for_function("document.querySelectorAll('.vm-card').length === 2")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for step in (None, "both", "class"):
        if step == "both":
            page.get_by_role("radio", name=step).first.check(force=True)
        if step == "class":
            page.get_by_label("Colour the grid by").first.select_option("class")
        report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found = [
            (one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in report["violations"]
        ]
        assert found == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()


@pytest.mark.parametrize(
    ("mark", "dark"),
    [("document.documentElement.dataset.theme = 'dark'", True),
     ("document.documentElement.dataset.theme = 'light'", False),
     ("document.body.dataset.jpThemeLight = 'false'", True), ("document.body.dataset.jpThemeLight = 'true'", False)],
)  # fmt: skip
def test_the_pages_own_theme_overrules_the_system(browser, folder, mark, dark):
    context = browser.new_context(color_scheme="light" if dark else "dark")
    page = context.new_page()
    load(page, folder, "one.html")
    page.evaluate(mark)
    paper = page.evaluate("getComputedStyle(document.querySelector('.vm-card')).backgroundColor")
    assert paper == ("rgb(21, 23, 27)" if dark else "rgb(255, 255, 255)")
    context.close()


@pytest.mark.parametrize(
    ("layers", "heads", "grid"), [(12, 6, (16, 16)), (12, 12, (14, 14)), (24, 16, (37, 37))]
)
def test_every_grid_size(page, tmp_path, layers, heads, grid):
    picker = HeadPicker(**example_arrays(layers, heads, grid, 2, size=64, variants=1, twins=False, queries=0))
    save_page(tmp_path / "page.html", [picker])
    load(page, tmp_path, "page.html", f"#L{layers}H{heads}")
    assert picked(page) == f"Layer {layers} · head {heads}"
    assert page.get_by_role("gridcell").count() == layers * heads
    assert page.locator(".vm-heat").evaluate("e => [e.height, e.width]") == list(grid)


def told(page) -> list[list[str]]:
    """The table of the answer, row by row."""
    rows = page.locator(".vm-answer > table tbody tr")
    return [rows.nth(row).locator("th, td").all_inner_texts() for row in range(rows.count())]


def number(text: str) -> float:
    return float(text.replace("\u2212", "-").replace("+", ""))


def test_the_answer_without_the_picked_head_is_the_exact_one(page, folder):
    answer = small()["answer"]
    load(page, folder, "one.html", "#L2H6?image=3")
    for row, cells in enumerate(told(page)):
        expected = [answer.truth[2, row], answer.whole[0, 2, row], answer.without[0, 2, 1, 5, row]]
        np.testing.assert_allclose([number(text) for text in cells[1:4]], expected, rtol=0.01, atol=0.06)
        shift = expected[2] - expected[1]
        assert number(cells[4]) == pytest.approx(shift, rel=0.06, abs=0.006)
    assert page.locator(".vm-mark").inner_text() == "Exact"
    assert page.locator(".vm-tracks polyline[points]:not([points=''])").count() == 6


def test_heads_switched_off_add_up_and_are_marked_as_estimated(page, folder):
    answer = small()["answer"]
    load(page, folder, "one.html", "#L1H1")
    page.get_by_role("radio", name="switches it off").check(force=True)
    assert page.locator(".vm-mark").inner_text() == "Exact"  # no head is off
    cell(page, 2, 3).click()
    assert page.locator(".vm-mark").inner_text() == "Exact"  # one head
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Space")
    assert page.locator(".vm-cell.vm-out").count() == 1 + HEADS
    assert page.locator(".vm-mark").inner_text() == "Estimated"
    shifts = answer.without[0, 0] - answer.whole[0, 0]
    expected = answer.whole[0, 0] + shifts[1, 2] + shifts[2].sum(0)
    np.testing.assert_allclose([number(row[3]) for row in told(page)], expected, rtol=0.01, atol=0.06)
    page.wait_for_function("location.hash === '#L3H3?mode=off&off=L2H3.L3'")
    page.get_by_role("button", name="All on").click()
    assert page.locator(".vm-cell.vm-out").count() == 0


def test_a_link_keeps_image_model_query_mode_and_heads(page, folder):
    load(page, folder, "one.html", "#L3H2?image=2&model=0&picture=2&mode=off&off=L1.L4H5")
    assert page.get_by_role("radio", name="chirp 2").is_checked()
    assert page.get_by_role("radio", name="undecorated").is_checked()
    assert page.locator(".vm-cell.vm-out").count() == HEADS + 1
    load(page, folder, "bare.html")
    load(page, folder, "one.html", "#L2H2?query=1.1")
    assert "row 1, column 1 as query" in page.locator(".vm-caption").inner_text()
    assert "patch in row 1, column 1" in page.locator(".vm-facts").inner_text()


def test_the_list_orders_filters_and_picks_by_keyboard(page, folder):
    effect = np.abs(small()["effect"]).ravel()
    load(page, folder, "one.html")
    first = page.locator(".vm-entry").first.inner_text().split()[0]
    layer, head = divmod(int(effect.argmax()), HEADS)
    assert first == f"L{layer + 1}H{head + 1}"
    page.get_by_label("Show in the list").select_option(label="the picked head's layer")
    assert page.locator(".vm-entry").count() == HEADS
    page.locator(".vm-list").press("End")
    assert (
        page.locator(".vm-entry[aria-selected=true]").inner_text()
        == page.locator(".vm-entry").last.inner_text()
    )


def test_two_heads_stay_pinned_and_layers_are_scrubbed(page, folder):
    load(page, folder, "one.html", "#L1H1")
    for row in (1, 2, 3):
        cell(page, row, 2).click()
        page.get_by_role("button", name=f"Pin layer {row}, head 2").click()
    names = page.locator(".vm-pinned > strong").all_inner_texts()
    assert names == ["Layer 2, head 2", "Layer 3, head 2"]
    page.get_by_label("Scrub through the layers").fill("5")
    assert picked(page) == "Layer 5 · head 2"
