"""The head picker live in JupyterLab 4: traits both ways, and the state that a saved notebook keeps."""

import json
import os
from pathlib import Path

import jupyterlab_driver as jupyterlab
import nbformat
import pytest
from conftest import NEEDS_BROWSER
from jupyterlab_driver import run_cell

pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")
pytestmark = [pytest.mark.browser, pytest.mark.slow, NEEDS_BROWSER]
CELLS = [
    "from vitmech_utils.report.picker import HeadPicker, example_arrays\n"
    "picker = HeadPicker(**example_arrays(5, 7, (11, 13), 3, size=64, queries=4))\npicker",
    "picker.layer, picker.head, picker.image = 2, 4, 1",
    "print('picked', picker.layer, picker.head, picker.image, picker.measure)",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "picker.ipynb")
    with jupyterlab.server(home) as url:
        yield url, home / "work" / "picker.ipynb"


@pytest.fixture
def page():
    with jupyterlab.chromium() as page:
        yield page


def picked(page) -> str:
    return page.locator(".vm-name").first.inner_text()


def click(page, layer: int, head: int) -> None:
    page.get_by_role("gridcell", name=f"layer {layer}, head {head}").first.click()


def test_traits_go_both_ways_and_the_saved_notebook_keeps_them(server, page):
    url, path = server
    jupyterlab.open_notebook(page, url, "picker.ipynb")
    assert "Error" not in run_cell(page, 0)
    page.wait_for_selector(".vm-card")
    assert (
        page.locator(".jp-OutputArea-output script[data-vm-chunk]").count() == 0
    )  # the live view, not the HTML

    run_cell(page, 1)  # Python sets
    page.wait_for_function("document.querySelector('.vm-name').textContent === 'Layer 3 · head 5'")
    assert page.get_by_role("radio", name="chirp 2").is_checked()

    click(page, 5, 2)  # the reader sets
    page.get_by_label("Colour the grid by").select_option("entropy")
    page.get_by_role("radio", name="chirp 3").check(force=True)
    page.wait_for_timeout(500)
    assert run_cell(page, 2) == "picked 4 1 2 entropy\n"
    assert page.evaluate("location.hash") == ""  # JupyterLab's address is its own
    screenshots = os.environ.get("VITMECH_SCREENSHOTS")
    if screenshots:
        page.screenshot(path=Path(screenshots) / "jupyterlab.png")

    jupyterlab.save(page)
    saved = json.loads(path.read_text())
    states = saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (state,) = (entry["state"] for entry in states.values() if "_spec" in entry["state"])
    assert (state["layer"], state["head"], state["image"], state["measure"]) == (4, 1, 2, "entropy")

    page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
    page.goto("about:blank")
    jupyterlab.open_notebook(
        page, url, "picker.ipynb"
    )  # reopened with a fresh kernel that knows nothing of the picker
    page.wait_for_selector(".vm-card")
    assert picked(page) == "Layer 5 · head 2"
    assert page.get_by_role("radio", name="chirp 3").is_checked()
    click(page, 1, 1)  # and it still answers, without Python
    page.wait_for_function("document.querySelector('.vm-name').textContent === 'Layer 1 · head 1'")
