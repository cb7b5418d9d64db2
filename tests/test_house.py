"""The arrows of the house: who may import whom, and what `import vitmech_utils` offers and loads."""

import ast
import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

import vitmech_utils
from vitmech_utils.moved import MOVED

PACKAGE = "vitmech_utils"
FOUNDATION = {
    "__init__",
    "moved",
    "version",
    "profile_sections",
    "profiles",
    "arguments",
    "strict_text",
    "own_folders",
    "downloads",
    "artefacts",
    "statistics",
    "intervals",
    "tasks",
    "devices",
}
CORE = [{"data"}, {"model"}, {"heads"}]
COMMANDS = {"__main__", "cli", "doctor", "train", "adapters", "recoveries", "study", "study_command"}
SHOWS = ("figures", "report", "pipeline")
SHARED_STUDIES = ("trainings",)  # what holds beyond one training: asked by the studies that have several


def allowed() -> dict[str, set[str]]:
    """What each folder may import beside itself: those before it, figures and runs beside, commands on top."""
    places = {"figures": FOUNDATION, "runs": FOUNDATION} | dict.fromkeys(FOUNDATION, FOUNDATION)
    before = set(FOUNDATION)
    for step in CORE:
        places |= {part: set(before) for part in step}
        before |= step
        before -= {"data"} if "model" in step else set()
    before |= {"data", "figures", "runs"}
    for step in ("studies", "report", "pipeline"):
        places[step] = set(before)
        before.add(step)
    return places | dict.fromkeys(COMMANDS, before | COMMANDS)


def modules(root: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The package's modules that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in full)


def place_of(module: str) -> str:
    """The part of the house that a module lies in."""
    return [*module.split("."), "__init__"][1]


def study(module: str) -> str | None:
    """The study that a module belongs to; None where it belongs to none, or to what all studies share."""
    parts = module.split(".")
    return parts[2] if len(parts) > 3 and parts[1] == "studies" else None


def shows(module: str) -> bool:
    """Whether a module draws, words or judges what others computed."""
    return place_of(module) in SHOWS or (
        study(module) is not None and module.split(".")[-1] in ("plots", "judge")
    )


def computes(module: str) -> bool:
    """Whether results depend on a module."""
    return place_of(module) in {*FOUNDATION, "data", "model", "heads"} or (
        study(module) is not None and not shows(module)
    )


def wrong_arrows(root: Path) -> list[str]:
    """Every import that the house does not allow, with the rule that it breaks."""
    known, places, found = modules(root), allowed(), []
    for module, path in known.items():
        if place_of(module) not in places:
            found.append(f"{module} is in no folder of the layout")
            continue
        for other in sorted(set(imports(path, known))):
            if place_of(other) != place_of(module) and place_of(other) not in places[place_of(module)]:
                found.append(f"{module} imports {other}: imports run one way")
            if study(module) and study(other) not in (None, study(module), *SHARED_STUDIES):
                found.append(f"{module} imports {other}: a study imports no other study")
            if computes(module) and shows(other):
                found.append(f"{module} imports {other}: what computes imports nothing that shows")
    return found


def test_imports_run_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_heads_know_nothing_of_the_data() -> None:
    known = modules(ROOT)
    of_heads = {
        module: set(imports(path, known)) for module, path in known.items() if place_of(module) == "heads"
    }
    assert len(of_heads) > 20
    assert {
        module for module, others in of_heads.items() if any(place_of(other) == "data" for other in others)
    } == set()


def test_no_module_imports_a_notebook() -> None:
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for path in modules(ROOT).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            )
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in imported:
                assert name.split(".")[0] not in {"notebooks", "import_ipynb", "nbimporter", *names}, path


@pytest.mark.parametrize(
    ("module", "text", "rule"),
    [
        ("data/chirps.py", "from vitmech_utils.heads import hooks", "imports run one way"),
        ("heads/sets.py", "def late():\n    from vitmech_utils.data.chirps import Chirp", "imports run one way"),
        ("heads/sets.py", "from vitmech_utils.figures.plots import bars", "what computes imports nothing"),
        ("statistics.py", "import vitmech_utils.model.anatomy", "imports run one way"),
        ("studies/one/measure.py", "from vitmech_utils.studies.two.measure import f", "no other study"),
        ("studies/one/measure.py", "from vitmech_utils.studies.one import plots", "what computes imports nothing"),
        ("studies/one/plots.py", "from vitmech_utils.studies.one import measure", ""),
        ("cellar/wine.py", "", "in no folder"),
    ],
)  # fmt: skip
def test_a_wrong_arrow_is_seen(tmp_path: Path, module: str, text: str, rule: str) -> None:
    for name in ("data/chirps", "heads/hooks", "heads/sets", "figures/plots", "model/anatomy", "studies/one/measure",
                 "studies/one/plots", "studies/two/measure"):  # fmt: skip
        (tmp_path / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / PACKAGE / f"{name}.py").write_text("")
    (tmp_path / PACKAGE / module).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / PACKAGE / module).write_text(text)
    found = wrong_arrows(tmp_path)
    assert any(rule in arrow for arrow in found) if rule else found == []


def test_no_module_imports_itself_in_a_circle() -> None:
    known = modules(ROOT)
    left = {module: set(imports(path, known)) - {module, PACKAGE} for module, path in known.items()}
    left.pop(PACKAGE)
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    assert left == {}


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, vitmech_utils\n"
        "assert 'sweep' in dir(vitmech_utils)\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'torch', 'numpy', 'pandas', 'transformers', 'matplotlib'}))\n"
        "from vitmech_utils import Chirp\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


@pytest.mark.parametrize("name", [name for name in vitmech_utils.__all__ if name != "__version__"])
def test_a_name_of_the_package_is_that_of_its_module(name: str) -> None:
    home = importlib.import_module(f"{PACKAGE}.{vitmech_utils._WHERE[name]}")
    assert getattr(vitmech_utils, name) is getattr(home, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vitmech_utils' has no attribute 'brooms'"):
        getattr(vitmech_utils, "brooms")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'brooms'"):
        exec("from vitmech_utils import brooms")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vitmech_utils.heads.brooms")


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_goes_to_the_new_module_and_says_so(old: str) -> None:
    sys.modules.pop(f"{PACKAGE}.{old}", None)
    new = importlib.import_module(f"{PACKAGE}.{MOVED[old]}")
    with pytest.warns(
        DeprecationWarning, match=f"{PACKAGE}.{old} is now {new.__name__}: import it from there"
    ):
        found = importlib.import_module(f"{PACKAGE}.{old}")
    public = next(name for name in vars(new) if not name.startswith("_"))
    assert getattr(found, public) is getattr(new, public)


def test_the_new_paths_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for new in MOVED.values():
            importlib.import_module(f"{PACKAGE}.{new}")
