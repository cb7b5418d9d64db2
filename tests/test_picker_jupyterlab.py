"""The head picker live in JupyterLab 4: traits both ways, and the state that a saved notebook keeps."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from conftest import CHROMIUM, NEEDS_BROWSER

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")
pytestmark = [pytest.mark.browser, pytest.mark.slow, NEEDS_BROWSER]
ROOT = Path(__file__).parents[1]
CELLS = [
    "from vitmech_utils.report.picker import HeadPicker, example_arrays\n"
    "picker = HeadPicker(**example_arrays(5, 7, (11, 13), 3, size=64, queries=4))\npicker",
    "picker.layer, picker.head, picker.image = 2, 4, 1",
    "print('picked', picker.layer, picker.head, picker.image, picker.measure)",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    settings = home / "settings" / "@jupyter-widgets" / "jupyterlab-manager"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text('{"saveState": true}')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "picker.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        "--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True",
        f"--LabApp.user_settings_dir={home / 'settings'}", f"--LabApp.workspaces_dir={home / 'workspaces'}",
        f"--ServerApp.root_dir={home / 'work'}",
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "HOME": str(home),
    }
    log = (home / "server.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)
    url = f"http://127.0.0.1:{port}"
    try:
        _await_server(url, process, home / "server.log")
        yield url, home / "work" / "picker.ipynb"
    finally:
        process.terminate()
        process.wait(30)


def _await_server(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{url}/api/status"):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def page():
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(90_000)
        page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
        page.route(
            "**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort()
        )
        yield page
        browser.close()


def open_notebook(page, url: str) -> None:
    page.goto(f"{url}/lab/tree/picker.ipynb?reset")
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate("jupyterapp.restored")
    page.wait_for_function("jupyterapp.shell.currentWidget?.context !== undefined")
    page.evaluate("jupyterapp.shell.currentWidget.context.ready")
    page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.ready")


def run_cell(page, index: int) -> str:
    """Run one cell and return its text output."""
    return page.evaluate(
        """async index => {
          const notebook = jupyterapp.shell.currentWidget.content;
          notebook.activeCellIndex = index;
          notebook.deselectAll();
          await jupyterapp.commands.execute('notebook:run-cell');
          const outputs = notebook.widgets[index].model.outputs.toJSON();
          return outputs.map(output => [output.text ?? output.traceback ?? ''].flat().join('')).join('');
        }""",
        index,
    )


def picked(page) -> str:
    return page.locator(".vm-name").first.inner_text()


def click(page, layer: int, head: int) -> None:
    page.get_by_role("gridcell", name=f"layer {layer}, head {head}").first.click()


def test_traits_go_both_ways_and_the_saved_notebook_keeps_them(server, page):
    url, path = server
    open_notebook(page, url)
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

    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)
    saved = json.loads(path.read_text())
    states = saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (state,) = (entry["state"] for entry in states.values() if "_spec" in entry["state"])
    assert (state["layer"], state["head"], state["image"], state["measure"]) == (4, 1, 2, "entropy")

    page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
    page.goto("about:blank")
    open_notebook(page, url)  # reopened with a fresh kernel that knows nothing of the picker
    page.wait_for_selector(".vm-card")
    assert picked(page) == "Layer 5 · head 2"
    assert page.get_by_role("radio", name="chirp 3").is_checked()
    click(page, 1, 1)  # and it still answers, without Python
    page.wait_for_function("document.querySelector('.vm-name').textContent === 'Layer 1 · head 1'")
