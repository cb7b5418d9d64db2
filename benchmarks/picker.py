"""Measure the head picker in headless Chromium: page size, first paint, and the time from a pick to its paint.

    python benchmarks/picker.py [--picks 200]

Times are of this machine. Where other work runs beside it, `chrt -r 1 python benchmarks/picker.py` measures what an
idle machine would show.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from measuring import not_measured, row, start
from playwright.sync_api import Browser, sync_playwright

from vitmech_utils.pipeline.benchmarks import Row, judge
from vitmech_utils.report.picker import HeadPicker, example_arrays, save_page

CASES = {
    "12 x 6 at 16 x 16": {"layers": 12, "heads": 6, "grid": (16, 16), "images": 8, "queries": 16},
    "12 x 12 at 14 x 14": {"layers": 12, "heads": 12, "grid": (14, 14), "images": 8, "queries": 14},
    "24 x 16 at 37 x 37": {"layers": 24, "heads": 16, "grid": (37, 37), "images": 6, "twins": False, "variants": 1,
                           "size": 518, "queries": 9, "query_heads": 24},
}  # fmt: skip

# From navigation to the first frame after the picker has replaced its fallback.
FIRST_PAINT = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('.vm-card')) return;
  observer.disconnect();
  requestAnimationFrame(() => { const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { window.firstPaint = performance.now(); }; port2.postMessage(0); });
}).observe(document, { childList: true, subtree: true });
"""

# One key press on the grid: script time alone, and until the frame that shows it has been handed to the compositor
# (a message posted in the animation frame arrives after style, layout and paint).
PICK = """
async keys => {
  const times = [];
  const frame = () => new Promise(resolve => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel(); port1.onmessage = resolve; port2.postMessage(0); }));
  for (const key of keys) {
    await new Promise(resolve => setTimeout(resolve, 20 + Math.random() * 30)); // any phase of the frame clock
    const cell = document.querySelector('.vm-cell[tabindex="0"]');
    const start = performance.now();
    cell.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
    await null; await null; // the update runs as a microtask
    const script = performance.now() - start;
    await frame();
    times.push([script, performance.now() - start]);
  }
  return times;
}
"""


def visit(browser: Browser, page_path: Path, picks: int, loads: int) -> tuple[list[float], np.ndarray]:
    """Milliseconds of each load's first paint, and of each pick: script alone, and until its paint [pick, 2]."""
    paints = []
    for left in reversed(range(loads)):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(FIRST_PAINT)
        page.goto(page_path.as_uri())
        page.wait_for_function("window.firstPaint !== undefined")
        paints.append(page.evaluate("window.firstPaint"))
        if left:
            page.close()
    rng = np.random.default_rng(0)
    keys = rng.choice(["ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft"], picks).tolist()
    page.evaluate(PICK, keys[:20])  # warm
    times = np.array(page.evaluate(PICK, keys))
    page.close()
    return paints, times


def measure(options: argparse.Namespace) -> list[Row]:
    """Size, first paint and picks of every grid."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return [not_measured("The picker in a browser", "ms", "no Chromium on this machine")]
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        path = Path(folder) / "page.html"
        for name, case in CASES.items():
            save_page(path, [HeadPicker(**example_arrays(**case))])
            paints, times = visit(browser, path, options.picks, options.loads)
            rows += case_rows(name, path.stat().st_size, paints, times)
        browser.close()
    return rows


def case_rows(name: str, size: int, paints: list[float], times: np.ndarray) -> list[Row]:
    """The rows of one grid; `times` holds script and pick to paint, in ms [pick, 2]."""
    script, pick = (float(np.median(column)) for column in times.T)
    low, high = np.quantile(times[:, 1], (0.05, 0.95))
    return [
        row(f"Page of a picker, {name}", [size / 1e6], "MB", at_most=6),
        Row(what=f"From a pick to its paint, {name}", unit="ms", figure=pick, low=float(low), high=float(high),
            repeats=len(times), spread="middle 90 %", at_most=16, met=judge(pick, None, 16),
            how=f"of which script {script:.1f} ms"),
        row(f"First paint of the page, {name}", paints, "ms"),
    ]  # fmt: skip


if __name__ == "__main__":
    start(
        __doc__, "The head picker in a browser", measure,
        full={"picks": 200, "loads": 3}, quick={"picks": 5, "loads": 1},
    )  # fmt: skip
