"""Measure the head picker in headless Chromium: page size, first paint, and the time from a pick to its paint.

Run: python benchmarks/picker.py [--picks 200]. Times are of this machine; nothing is asserted. Where other work runs
beside it, `chrt -r 1 python benchmarks/picker.py` measures what an idle machine would show.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

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


def measure(browser: Browser, page_path: Path, picks: int) -> dict[str, float]:
    """Return milliseconds: the first paint (median of three loads) and pick to paint."""
    paints = []
    for _ in range(3):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(FIRST_PAINT)
        page.goto(page_path.as_uri())
        page.wait_for_function("window.firstPaint !== undefined")
        paints.append(page.evaluate("window.firstPaint"))
        if len(paints) < 3:
            page.close()
    rng = np.random.default_rng(0)
    keys = rng.choice(["ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft"], picks).tolist()
    page.evaluate(PICK, keys[:20])  # warm
    script, total = np.array(page.evaluate(PICK, keys)).T
    page.close()
    return {
        "first": float(np.median(paints)),
        "script": float(np.median(script)),
        "script95": float(np.quantile(script, 0.95)),
        "pick": float(np.median(total)),
        "pick95": float(np.quantile(total, 0.95)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picks", type=int, default=200)
    picks = parser.parse_args().picks
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    print(
        f"{'grid':<20} {'page MB':>8} {'first paint ms':>15} {'script ms (p95)':>16} {'pick to paint ms (p95)':>23}"
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        for name, case in CASES.items():
            path = Path(folder) / "page.html"
            save_page(path, [HeadPicker(**example_arrays(**case))])
            found = measure(browser, path, picks)
            script = f"{found['script']:.1f} ({found['script95']:.1f})"
            pick = f"{found['pick']:.1f} ({found['pick95']:.1f})"
            size = path.stat().st_size / 1e6
            print(f"{name:<20} {size:>8.2f} {found['first']:>15.0f} {script:>16} {pick:>23}")
        browser.close()


if __name__ == "__main__":
    main()
