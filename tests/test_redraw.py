"""Computes or shows: what an edit costs, and what a redraw may and may not do."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_book
from conftest import snakemake, vitmech
from small_book import ROOT, write_notebook

from vitmech_utils.artefacts import folder_hashes
from vitmech_utils.pipeline.execute import run_chapter, up_to_date
from vitmech_utils.pipeline.provenance import literal
from vitmech_utils.pipeline.stage import stage
from vitmech_utils.profiles import load_profile
from vitmech_utils.runs.code import code_of
from vitmech_utils.runs.manifests import RunError, read_manifest, write_manifest
from vitmech_utils.runs.standing import standing_of

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]
KEEPS = [
    "import pathlib\n\nimport matplotlib.pyplot as plt\nimport pandas as pd\n\n"
    "from vitmech_utils.figures.plots import WIDTH\nfrom vitmech_utils.heads.hooks import change_heads",
    'def measure(count):\n    """What is measured."""\n    with open("calls", "a") as calls:\n'
    '        calls.write("x")\n    return pd.DataFrame({"count": [count]})',
    'counts = chapter.keep("counts", lambda: measure(chapter.profile.audit.images))',
    'hooks = chapter.keep("hooks", lambda: change_heads.__name__)',
    'colour = "#0072b2"\nfigure, ax = plt.subplots(figsize=(WIDTH, 2))',
    '_ = ax.plot(counts["count"], "o", color=colour)\n_ = chapter.save_figure(figure, "counts")',
    'doubled = 2 * counts["count"]\n_ = chapter.save_json({"doubled": int(doubled.sum())}, "doubled")',
    '# Exercise 1. Hint: look at the table.\nprint("The count is", int(counts["count"].sum()))',
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small book whose first chapter keeps what it computes; its run is finished."""
    small = small_book.make(tmp_path_factory.mktemp("redraw") / "clone")
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", KEEPS)
    reads = ['frame = chapter.read_table("01_first", "counts")', '_ = chapter.save_table(frame, "counts")']
    write_notebook(small / "notebooks" / "02_second.ipynb", "02_second", reads)
    write_notebook(
        small / "notebooks" / "03_third.ipynb", "03_third", ['chapter.save_json({"count": 1}, "numbers")']
    )
    done = vitmech("run", "all", root=small)
    assert done.returncode == 0, done.stderr
    page = small / "book" / "intro.md"
    page.write_text("# Small\n\n{{ run:status }}\n")
    return small


@pytest.fixture
def keeping(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "clone")


def run_of(root: Path) -> Path:
    return root / "results" / "quick"


def calls(root: Path) -> int:
    return len((root / "notebooks" / "calls").read_text())


def edit(root: Path, old: str, new: str, chapter: str = "01_first") -> None:
    path = root / "notebooks" / f"{chapter}.ipynb"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def state(root: Path, chapter: str = "01_first") -> str:
    try:
        there = standing_of(run_of(root), chapter, root, load_profile("quick", root=root))
    except RunError as error:
        return f"stale: {error}"
    return f"to redraw: {there.to_redraw}" if there.to_redraw else "up to date"


SHOWING = {
    "a colour": ("#0072b2", "#d55e00"),
    "a hint of an exercise": ("look at the table", "count the rows"),
    "a word on the page": ("The count is", "There are"),
    "prose": ("A claim.", "A better claim."),
    "what is saved beside": ("2 * counts", "3 * counts"),
    "a docstring": ("What is measured.", "What this chapter measures."),
    "a comment": ("# Exercise 1.", "# Exercise 1:"),
}
COMPUTING = {
    "a number": ('{\\"count\\": [count]}', '{\\"count\\": [count + 1]}'),
    "a call": ("measure(chapter.profile.audit.images)", "measure(chapter.profile.gallery.images)"),
    "a name": ('keep(\\"counts\\"', 'keep(\\"numbers\\"'),
}


def test_edits_of_what_shows_compute_nothing(keeping: Path) -> None:
    before = folder_hashes(run_of(keeping) / "01_first")
    for what, (old, new) in SHOWING.items():
        edit(keeping, old, new)
        assert state(keeping) == "to redraw: notebooks/01_first.ipynb changed since", what
        assert state(keeping, "02_second") == "up to date"
        edit(keeping, new, old)
        assert state(keeping) == "up to date"
    edit(keeping, "#0072b2", "#d55e00")
    done = vitmech("run", "all", root=keeping)
    assert done.returncode == 0, done.stderr
    assert "01_first: to redraw (notebooks/01_first.ipynb changed since)" in done.stdout
    assert done.stdout.count("up to date") == 2
    assert calls(keeping) == 1
    after = folder_hashes(run_of(keeping) / "01_first")
    assert {file for file in after if after[file] != before[file]} == {"counts.png", "01_first.ipynb"}


def test_edits_of_what_computes_make_the_chapter_and_its_readers_stale(keeping: Path) -> None:
    for what, (old, new) in COMPUTING.items():
        edit(keeping, old, new)
        assert "stale: notebooks/01_first.ipynb changed since; run `vitmech run 01" in state(keeping), what
        assert "stale" in state(keeping, "02_second")
        refused = vitmech("redraw", "01", root=keeping)
        assert refused.returncode == 1
        assert "run `vitmech run 01 --profile quick` first" in refused.stderr
        edit(keeping, new, old)
    assert calls(keeping) == 1


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("vitmech_utils/figures/plots.py", "to redraw: vitmech_utils/figures/plots.py changed since"),
        ("vitmech_utils/heads/hooks.py", "stale: "),
    ],
)
def test_modules_count_by_what_they_are_used_for(
    keeping: Path, monkeypatch: pytest.MonkeyPatch, module: str, expected: str
) -> None:
    def edited(notebook: Path) -> dict:
        code = code_of(notebook)
        for kind in code["modules"].values():
            kind.update({module: "0" * 64} if module in kind else {})
        return code

    monkeypatch.setattr("vitmech_utils.runs.standing.code_of", edited)
    assert expected in state(keeping)
    assert module in state(keeping)
    assert state(keeping, "03_third") == "up to date"


def test_a_redraw_keeps_when_and_where_it_was_computed(keeping: Path) -> None:
    folder = run_of(keeping) / "01_first"
    before = read_manifest(folder, "")
    write_manifest(
        folder, {**before, "wall_seconds": 1234.5, "device": {**before["device"], "name": "Another"}}
    )
    edit(keeping, "A claim.", "A better claim.")
    assert vitmech("redraw", "01", root=keeping).returncode == 0
    after = read_manifest(folder, "")
    assert (after["wall_seconds"], after["device"]["name"]) == (1234.5, "Another")
    assert (after["started"], after["packages"]) == (before["started"], before["packages"])
    assert after["drawn"]["wall_seconds"] < 60
    assert after["drawn"]["device"]["name"] != "Another"
    assert {file: after["outputs"][file] for file in before["computed"]} == {
        file: before["outputs"][file] for file in before["computed"]
    }
    assert before["computed"] == ["counts.parquet", "hooks.json"]
    assert "A better claim." in (folder / "01_first.ipynb").read_text()
    assert up_to_date(run_of(keeping), "01_first", keeping, load_profile("quick", root=keeping))


def test_a_redraw_of_an_unchanged_page_is_the_same_page(keeping: Path) -> None:
    before = folder_hashes(run_of(keeping) / "01_first")
    assert vitmech("redraw", "01", root=keeping).returncode == 0
    assert folder_hashes(run_of(keeping) / "01_first") == before
    assert "up to date" in vitmech("redraw", "all", root=keeping).stdout


def test_what_is_saved_with_the_page_is_read_only_when_it_stands(keeping: Path) -> None:
    edit(
        keeping,
        'read_table(\\"01_first\\", \\"counts\\")',
        'read_json(\\"01_first\\", \\"doubled\\")',
        "02_second",
    )
    edit(keeping, "save_table(frame", "save_json(frame", "02_second")
    edit(keeping, "#0072b2", "#d55e00")
    assert vitmech("run", "02", root=keeping).returncode == 0  # a colour decides nothing that is saved
    edit(keeping, "2 * counts", "3 * counts")
    refused = vitmech("run", "02", root=keeping)
    assert "doubled.json is made with its page; run `vitmech redraw 01 --profile quick`" in refused.stderr
    assert vitmech("redraw", "01", root=keeping).returncode == 0
    assert "stale: 01_first was run again since, with another doubled.json" in state(
        keeping, "02_second"
    ).replace(str(keeping), "")


def test_a_kept_value_edited_by_hand_is_refused(keeping: Path) -> None:
    path = run_of(keeping) / "01_first" / "hooks.json"
    path.write_text('"other"')
    refused = vitmech("redraw", "01", root=keeping)
    assert refused.returncode == 1
    assert "hooks.json: changed since the run that made it; run `vitmech run 01" in refused.stderr


def test_a_value_that_the_run_did_not_keep_is_asked_for_by_name(
    keeping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitmech_utils.runs import REDRAW, open_chapter

    monkeypatch.setenv(REDRAW, str(run_of(keeping) / "01_first"))
    chapter = open_chapter("01_first", root=keeping)
    assert chapter.keep("hooks", lambda: pytest.fail("computed in a redraw")) == "change_heads"
    with pytest.raises(RunError, match=r"its run kept no 'nothing'; run `vitmech run 01 --profile quick`"):
        chapter.keep("nothing", lambda: pytest.fail("computed in a redraw"))
    chapter.abandon()
    assert up_to_date(run_of(keeping), "01_first", keeping, load_profile("quick", root=keeping))


def test_an_old_manifest_is_refused_with_the_command(keeping: Path) -> None:
    folder = run_of(keeping) / "01_first"
    write_manifest(folder, {**read_manifest(folder, ""), "format": 1})
    refused = vitmech("redraw", "01", root=keeping)
    assert (
        "format 1, and this version reads format 2; run `vitmech run 01 --profile quick` first"
        in refused.stderr
    )
    assert vitmech("run", "01", "--if-stale", root=keeping).returncode == 0
    assert calls(keeping) == 2


def test_pages_and_status_say_what_is_to_be_drawn_again(keeping: Path) -> None:
    edit(keeping, "A claim.", "A better claim.")
    stage(keeping, run_of(keeping), keeping / "staged")
    page = (keeping / "staged" / "notebooks" / "01_first.ipynb").read_text()
    changed = literal("notebooks/01_first.ipynb changed since")
    assert f"Its page is older than its code: {changed}." in page
    assert "`vitmech redraw 01 --profile quick` draws it again." in page
    rows = (keeping / "staged" / "book" / "intro.md").read_text().splitlines()
    states = [row.split("|")[-2].strip() for row in rows if "01_first" in row or "02_second" in row]
    assert states == ["to redraw", "up to date"]
    assert vitmech("redraw", "01", root=keeping).returncode == 0
    stage(keeping, run_of(keeping), keeping / "staged")
    page = (keeping / "staged" / "notebooks" / "01_first.ipynb").read_text()
    assert "The page was drawn again from what that run kept on" in page
    assert "older than its code" not in page


@pytest.mark.parametrize("moment", ["in a cell", "before the page is written", "before it takes its place"])
def test_a_kill_in_a_redraw_leaves_the_last_page_whole(keeping: Path, moment: str) -> None:
    before = folder_hashes(run_of(keeping) / "01_first")
    edit(keeping, "look at the table", "count the rows")
    if moment == "in a cell":
        edit(
            keeping,
            "# Exercise 1.",
            "import os, signal; os.kill(os.getppid(), signal.SIGKILL)  # Exercise 1.",
        )
    target = {
        "in a cell": "nothing_at_all",
        "before the page is written": "write_atomically",
        "before it takes its place": "replace_folder",
    }[moment]
    code = (
        "import os, signal, sys\nimport vitmech_utils.pipeline.execute as execute\n"
        f"execute.{target} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        'from vitmech_utils.cli import main\nsys.exit(main(["redraw", "01"]))'
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code], cwd=keeping, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert folder_hashes(run_of(keeping) / "01_first") == before
    if moment == "in a cell":
        edit(
            keeping,
            "import os, signal; os.kill(os.getppid(), signal.SIGKILL)  # Exercise 1.",
            "# Exercise 1.",
        )
    done = vitmech("redraw", "01", root=keeping)
    assert done.returncode == 0, done.stderr
    assert "count the rows" in (run_of(keeping) / "01_first" / "01_first.ipynb").read_text()
    assert not [path for path in run_of(keeping).iterdir() if path.name.endswith((".partial", ".finished"))]
    assert calls(keeping) == 1


def test_a_chapter_run_by_hand_needs_its_page_drawn_and_nothing_computed(
    keeping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitmech_utils.runs import open_chapter

    chapter = open_chapter("01_first", root=keeping)
    import pandas as pd

    chapter.keep("counts", lambda: pd.DataFrame({"count": [16]}))
    chapter.keep("hooks", lambda: "change_heads")
    chapter.save_json({"doubled": 32}, "doubled")
    chapter.close()
    assert state(keeping) == "to redraw: it has no page yet"
    assert run_chapter(keeping, "01_first", "quick", {}, only_if_stale=True, say=lambda line: None)
    assert calls(keeping) == 1
    assert state(keeping) == "up to date"


def test_snakemake_redraws_after_an_edited_colour_and_computes_after_an_edited_hook(tmp_path: Path) -> None:
    root = small_book.make(tmp_path / "clone")
    shutil.copytree(
        ROOT / "vitmech_utils", root / "vitmech_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    write_notebook(root / "notebooks" / "01_first.ipynb", "01_first", KEEPS)
    write_notebook(
        root / "notebooks" / "02_second.ipynb", "02_second", ['chapter.save_json({"count": 1}, "numbers")']
    )
    (root / "notebooks" / "03_third.ipynb").unlink()
    package = {"PYTHONPATH": str(root)}

    def series() -> tuple[dict, str]:
        done = snakemake(root=root, **package)
        assert done.returncode == 0, done.stderr
        return read_manifest(run_of(root) / "01_first", ""), done.stdout

    first, _ = series()
    other = folder_hashes(run_of(root) / "02_second")
    assert calls(root) == 1
    assert "drawn" not in first

    plots = root / "vitmech_utils" / "figures" / "plots.py"
    plots.write_text(plots.read_text().replace('"chirp": "#D55E00"', '"chirp": "#D55E01"'))
    drawn, said = series()
    assert "01_first: to redraw (vitmech_utils/figures/plots.py changed since)" in said
    assert calls(root) == 1
    assert drawn["drawn"]["started"] > first["started"] == drawn["started"]
    assert {name: drawn["outputs"][name] for name in drawn["computed"]} == {
        name: first["outputs"][name] for name in first["computed"]
    }

    hooks = root / "vitmech_utils" / "heads" / "hooks.py"
    hooks.write_text(hooks.read_text() + "\nEDITED = True\n")
    computed, said = series()
    assert "01_first: to redraw" not in said
    assert calls(root) == 2
    assert computed["started"] > first["started"]
    assert "drawn" not in computed
    assert folder_hashes(run_of(root) / "02_second") == other  # it uses neither
    assert series()[0] == computed
    assert calls(root) == 2


def test_a_model_that_a_chapter_trained_survives_a_redraw(keeping: Path) -> None:
    train = (
        'def train():\n    folder = chapter.folder / "bare-adapter-seed-0"\n    folder.mkdir(exist_ok=True)\n'
        '    (folder / "training.json").write_text("{}")\n    return folder.name'
    )
    cells = [train, 'trained = chapter.keep("trained", train)', 'print("It is", trained)']
    write_notebook(keeping / "notebooks" / "03_third.ipynb", "03_third", cells)
    assert vitmech("run", "03", root=keeping).returncode == 0
    folder = run_of(keeping) / "03_third"
    before = folder_hashes(folder)
    assert "bare-adapter-seed-0/training.json" in read_manifest(folder, "")["computed"]
    edit(keeping, "It is", "There is", "03_third")
    done = vitmech("redraw", "03", root=keeping)
    assert done.returncode == 0, done.stderr
    after = folder_hashes(folder)
    assert {file for file in after.keys() | before.keys() if after.get(file) != before.get(file)} == {
        "03_third.ipynb"
    }
    manifest = read_manifest(folder, "")
    assert (
        manifest["outputs"]["bare-adapter-seed-0/training.json"]
        == before["bare-adapter-seed-0/training.json"]
    )
    assert state(keeping, "03_third") == "up to date"
