"""The chapters as people run them: opened in JupyterLab, Run All Cells, looked at."""

import os
import shutil
from pathlib import Path

import jupyterlab_driver as jupyterlab
import pytest
from conftest import ALL, NEEDS_BROWSER
from small_book import ROOT

from vitmech_utils.model.backbones import cache_folder
from vitmech_utils.pipeline.execute import chapters

pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")
pytestmark = [pytest.mark.browser, pytest.mark.slow, NEEDS_BROWSER]
SHORT = ("03_attention_maps",)
"""The one with the head picker, which lives in JupyterLab."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on copies of the chapters, so that its autosave leaves the sources alone."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "work" / "notebooks")
    settings = {
        "VITMECH_ROOT": str(ROOT),
        "VITMECH_RUN_DIR": str(home / "run"),
        "VITMECH_CACHE": str(cache_folder()),
        "OMP_NUM_THREADS": "1",
    }
    with jupyterlab.server(home, **settings) as url:
        yield url, home / "run"


@pytest.mark.parametrize("name", chapters(ROOT))
def test_run_all_cells(name: str, server) -> None:
    if not ALL and name not in SHORT:
        pytest.skip("make test-all (VITMECH_TESTS=all) runs every chapter in JupyterLab")
    url, run = server
    errors: list[str] = []
    with jupyterlab.chromium() as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        jupyterlab.open_notebook(page, url, f"notebooks/{name}.ipynb")
        cells = jupyterlab.run_all_cells(page, seconds=1800)
        screenshots = os.environ.get("VITMECH_SCREENSHOTS")
        if screenshots:
            page.screenshot(path=Path(screenshots) / f"jupyterlab-{name}.png")
        # jupyterlab-myst draws the directives of the book: solutions are folded
        jupyterlab.scroll_to(page, "{dropdown} Solution")
        solutions = page.locator("details:has(summary:has-text('Solution'))")
        solutions.first.wait_for()
        assert not solutions.first.get_attribute("open")
        if name == "03_attention_maps":
            jupyterlab.scroll_to(page, "HeadPicker(")
            page.wait_for_selector(".vm-card")
            assert page.get_by_role("gridcell").count() >= 12 * 6
            if screenshots:
                page.screenshot(path=Path(screenshots) / f"jupyterlab-{name}-picker.png")
        jupyterlab.shut_down_kernel(page)

    outputs = [output for cell in cells for output in cell["outputs"]]
    failed = [output for output in outputs if output["output_type"] == "error"]
    assert not failed, failed[0]["evalue"]
    assert all(cell["execution_count"] for cell in cells if "".join(cell["source"]).strip())
    quiet = [cell for cell in cells if "remove-stderr" not in cell["metadata"].get("tags", [])]  # else a bar
    warned = [
        output["text"] for cell in quiet for output in cell["outputs"] if output.get("name") == "stderr"
    ]
    assert not warned, warned[0]
    assert not errors
    assert (run / name / "manifest.json").is_file()
