"""JupyterLab 4 as the tests use it: a server of its own, a page in Chromium, and its commands."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import CHROMIUM

ROOT = Path(__file__).parents[1]


@contextmanager
def server(home: Path, **environment: str) -> Iterator[str]:
    """Serve the folder `home/work`; yields the address. It keeps widget state and reads no settings of the user's."""
    settings = home / "settings" / "@jupyter-widgets" / "jupyterlab-manager"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text('{"saveState": true}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        "--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True",
        f"--LabApp.user_settings_dir={home / 'settings'}", f"--LabApp.workspaces_dir={home / 'workspaces'}",
        f"--ServerApp.root_dir={home / 'work'}",
    ]  # fmt: skip
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "HOME": str(home),
        **environment,
    }
    log = home / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, cwd=home)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{url}/api/status"):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@contextmanager
def chromium() -> Iterator[object]:
    """A page that reaches nothing but the server, and answers "leave the page?" with yes."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(90_000)
        page.on("dialog", lambda dialog: dialog.accept())
        page.route(
            "**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort()
        )
        yield page
        browser.close()


def open_notebook(page, url: str, name: str) -> None:
    """Open a notebook in a fresh workspace and wait until its kernel is there."""
    page.goto(f"{url}/lab/tree/{name}?reset")
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


def run_all_cells(page, seconds: float) -> list[dict]:
    """Run the whole notebook as its menu does; returns its code cells as a saved notebook holds them."""
    page.evaluate(
        """() => {
          window.finished = false;
          jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.finished = true; });
        }"""
    )
    page.wait_for_function("window.finished", timeout=1000 * seconds, polling=500)
    return page.evaluate(
        """jupyterapp.shell.currentWidget.content.widgets
             .filter(cell => cell.model.type === 'code').map(cell => cell.model.toJSON())"""
    )


def scroll_to(page, text: str) -> None:
    """Scroll to the last cell whose source holds `text`; JupyterLab draws only what is in sight."""
    page.evaluate(
        """async text => {
          const notebook = jupyterapp.shell.currentWidget.content;
          const index = notebook.widgets.findLastIndex(cell => cell.model.sharedModel.source.includes(text));
          notebook.activeCellIndex = index;
          await notebook.scrollToItem(index, 'start');
        }""",
        text,
    )


def save(page) -> None:
    """Save the notebook that is open."""
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)


def shut_down_kernel(page) -> None:
    """Shut the open notebook's kernel down, so that its memory is free for the next."""
    page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
