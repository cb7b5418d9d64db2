"""Run the unit tests of what differs from main, nearest first, for about two minutes (`--list`: only say which).

Nearest are test files that changed, then those that import a changed module, then those that import one that does.
How long each takes is known from earlier runs (results/.test_seconds.json). What did not fit is named.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = "results/.test_seconds.json"
BUDGET, UNKNOWN = 120.0, 10.0
ALWAYS = ("tests/test_house.py",)


def main() -> int:
    chosen, left = choose(changed_files(ROOT), ROOT, recorded(ROOT))
    print(f"{len(chosen)} test files: {' '.join(path.removeprefix('tests/') for path in chosen)}")
    if left:
        print(f"left to `make test`: {' '.join(path.removeprefix('tests/') for path in left)}", flush=True)
    if "--list" in sys.argv[1:]:
        return 0
    return subprocess.call(
        [sys.executable, "-m", "pytest", "-m", "not pipeline and not browser and not slow", *chosen], cwd=ROOT
    )


def changed_files(root: Path) -> list[str]:
    """Files that differ from where this branch left main (on main itself: from its last commit but one where all is
    committed), with those that git does not know yet."""
    changed = _git(root, "diff", "--name-only", "HEAD") + _git(
        root, "ls-files", "--others", "--exclude-standard"
    )
    for main in ("origin/main", "main"):
        if base := _git(root, "merge-base", "HEAD", main):
            changed += _git(root, "diff", "--name-only", base[0], "HEAD")
            break
    return sorted({*(changed or _git(root, "diff", "--name-only", "HEAD~1", "HEAD"))})


def choose(changed: Iterable[str], root: Path, seconds: dict[str, float]) -> tuple[list[str], list[str]]:
    """The test files to run, nearest first, and those for which there is no time."""
    changed = set(changed)
    tests = sorted(path.relative_to(root).as_posix() for path in (root / "tests").glob("test_*.py"))
    modules = sorted((root / "vitmech_utils").rglob("*.py"))
    names = {path: _module(path.relative_to(root)) for path in modules}
    known = set(names.values())
    touched = {name for path, name in names.items() if path.relative_to(root).as_posix() in changed}
    above = {names[path] for path in modules if _imports(path, known) & touched} - touched
    helpers = {path for path in changed if path.startswith("tests/")} - set(tests)
    shared = {Path(path).stem for path in helpers}
    ranks: dict[str, int] = {}
    for test in tests:
        text = (root / test).read_text(encoding="utf-8")
        uses = _imports(root / test, known)
        if test in changed or test in ALWAYS:
            ranks[test] = 0
        elif uses & touched or shared & _top_names(text) or any(_mentions(text, path) for path in changed):
            ranks[test] = 1
        elif uses & above:
            ranks[test] = 2
    ordered = sorted(ranks, key=lambda test: (ranks[test], seconds.get(test, UNKNOWN), test))
    chosen, left, spent = [], [], 0.0
    for test in ordered:
        spent += seconds.get(test, UNKNOWN)
        (chosen if spent <= BUDGET or not ranks[test] else left).append(test)
    return chosen, left


def recorded(root: Path) -> dict[str, float]:
    """Seconds of each test file's quick unit tests, as far as an earlier run has told."""
    try:
        found = json.loads((root / SECONDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    totals: dict[str, float] = {}
    for test, one in found.items():
        if not one["marks"]:
            file = test.partition("::")[0]
            totals[file] = totals.get(file, 0.0) + one["seconds"]
    return totals


def _mentions(text: str, path: str) -> bool:
    """Whether a test names a changed file that is neither a module nor a test."""
    return not path.startswith(("tests/", "vitmech_utils/", "published/")) and f'"{Path(path).name}"' in text


def _top_names(text: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(text)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def _imports(path: Path, known: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _git(root: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main())
