"""What code a chapter runs, and which part of it computes: the rest shows, and leaves the artefacts as they are."""

import ast
import functools
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vitmech_utils.artefacts import digest, text_hash
from vitmech_utils.runs.manifests import NON_RESULT_MODULES, PACKAGE, SHOWS, RunError
from vitmech_utils.runs.slicing import computing_statements

PARENT = Path(__file__).resolve().parents[2]
ASSETS = (".js", ".css", ".html", ".json", ".yaml")
TRAINING_MODULES = ("model.finetune", "model.classifier", "heads.pruning")
"""The modules whose functions train: what they import decides whether a half-finished training can go on."""
KINDS = ("computes", "saves", "shows")
NBFORMAT = 4
KEEPING = frozenset({"keep"})
SAVING = frozenset({"save_table", "save_json", "save_arrays"})
Wanted = dict[str, frozenset[str] | None]
"""Modules, each with the names that are wanted of it; None for all."""


def shows(module: str) -> bool:
    """Tell whether a module (or a name in one) draws and prints what others computed."""
    return any(fnmatchcase(module, f"{PACKAGE}.{pattern}{end}") for pattern in SHOWS for end in ("", ".*"))


def read_notebook(path: Path) -> Any:
    """Read a notebook, sources joined; raises `RunError` where it is none."""
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without ids
            return nbformat.read(path, as_version=4)
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise RunError(f"{path}: not a notebook ({str(error).splitlines()[0]})") from error


@dataclass(frozen=True)
class Cell:
    """What a chapter's code is read from: a cell's kind (`cell_type`), its text and its metadata."""

    cell_type: str
    source: str
    metadata: dict[str, Any]


def read_cells(path: Path) -> list[Cell]:
    """Read a notebook's cells without its outputs; raises `RunError` where it is none.

    A notebook of today's format is read as JSON: nbformat would be a second of every kernel's start, for its checks of
    addresses. Whatever does not look like one is left to nbformat to read or to refuse.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["nbformat"] == NBFORMAT:
            return [
                Cell(cell["cell_type"], "".join(cell["source"]), dict(cell["metadata"]))
                for cell in found["cells"]
            ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return [Cell(cell.cell_type, cell.source, cell.metadata) for cell in read_notebook(path).cells]


def notebook_source(notebook: Path) -> str:
    """Join a notebook's code cells into one module's text, magics left out."""
    lines = "\n".join(cell.source for cell in read_cells(notebook) if cell.cell_type == "code").splitlines()
    return "\n".join("" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)


def computing_source(notebook: Path) -> str:
    """The part of a notebook's code that decides what its chapter keeps, without comments and formatting.

    That are the statements that call `keep` or `open_chapter`, and those that they depend on; where nothing is kept,
    those that save. Raises `RunError` for code that is not Python.
    """
    source = notebook_source(notebook)
    return _slice(source, KEEPING if ".keep(" in source else KEEPING | SAVING, str(notebook))


def saving_source(notebook: Path) -> str:
    """The part that decides what it keeps and what tables and numbers it saves beside; figures are left out."""
    return _slice(notebook_source(notebook), KEEPING | SAVING, str(notebook))


@functools.lru_cache(maxsize=128)
def _slice(source: str, calls: frozenset[str], where: str) -> str:
    def is_root(statement: ast.stmt) -> bool:
        made = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
        return any(
            (isinstance(call, ast.Attribute) and call.attr in calls)
            or (isinstance(call, ast.Name) and call.id == "open_chapter")
            for call in made
        )

    try:
        statements = computing_statements(source, is_root, shows)
    except SyntaxError as error:
        raise RunError(f"{where}: its code is not Python ({error})") from error
    return "\n".join(ast.unparse(statement) for statement in statements)


def notebook_hashes(path: Path) -> dict[str, str]:
    """Hash what a notebook computes with, what it saves with, and its page (code, prose, metadata; no outputs)."""
    cells = read_cells(path)
    sources = [(cell.cell_type, cell.source) for cell in cells]
    metadata = [
        {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")} for cell in cells
    ]
    return {
        "computes": digest(computing_source(path)),
        "saves": digest(saving_source(path)),
        "shows": digest([sources, metadata]),
    }


def predecessors(notebook: Path) -> list[str]:
    """List the chapters whose run a notebook reads: those that its code names as plain strings."""
    return _chapters_in(notebook_source(notebook), notebook)


def computing_predecessors(notebook: Path) -> list[str]:
    """List those whose results decide what the notebook's chapter keeps."""
    return _chapters_in(computing_source(notebook), notebook)


def _chapters_in(source: str, notebook: Path) -> list[str]:
    names = {path.stem for path in notebook.parent.glob("[0-9][0-9]_*.ipynb")} - {notebook.stem}
    tree = ast.parse(source)
    return sorted({n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in names})


def uses_adapter(source: str) -> bool:
    """Tell whether a notebook's code loads the fine-tuned model through its chapter."""
    return any(call in source for call in (".regressor", ".adapter_folder("))


def uses_bare_adapter(source: str) -> bool:
    """Tell whether it also loads the model that was fine-tuned on bare figures."""
    return uses_adapter(source) and ('figures="bare"' in source or "figures='bare'" in source)


def uses_classifiers(source: str) -> bool:
    """Tell whether it loads the classifiers."""
    return ".classifier_folder(" in source


def module_files(source: str, parent: Path = PARENT) -> list[Path]:
    """List the package's files that code uses, by following its import statements.

    Scripts and styles of a package folder count with it; packages that only hand on what other modules define do not.
    """
    wanted = _imports(ast.parse(source), PACKAGE, parent)
    if uses_adapter(source):
        wanted[f"{PACKAGE}.model.regressor"] = None
    return _follow(wanted, parent)


def training_files(notebook: Path, parent: Path = PARENT) -> list[Path]:
    """List the package's files that the trainings of a notebook run."""
    used = {path.relative_to(parent).as_posix() for path in module_files(notebook_source(notebook), parent)}
    names = [f"{PACKAGE}.{name}" for name in TRAINING_MODULES]
    return _follow({name: None for name in names if f"{name.replace('.', '/')}.py" in used}, parent)


def code_of(notebook: Path) -> dict[str, Any]:
    """Describe the code a chapter runs: the notebook's hashes and its modules', each under the first kind it is of.

    What is kept depends on the kind `computes`, what else is saved on `saves`, too, and all the page on `shows`.
    """
    modules: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    if not notebook.is_file():
        return {"notebook": None, "modules": modules}
    seen: set[str] = set()
    for kind, source in zip(KINDS, (computing_source, saving_source, notebook_source), strict=True):
        found = hashes(module_files(source(notebook)))
        modules[kind] = {name: value for name, value in found.items() if name not in seen}
        seen |= found.keys()
    return {"notebook": notebook_hashes(notebook), "modules": modules}


def hashes(files: list[Path], parent: Path = PARENT) -> dict[str, str]:
    """Hash files, keyed by their paths under `parent`."""
    return {path.relative_to(parent).as_posix(): text_hash(path) for path in files}


def _follow(wanted: Wanted, parent: Path) -> list[Path]:
    found: set[Path] = set()
    seen: set[tuple[str, frozenset[str] | None]] = set()
    waiting = list(wanted.items())
    while waiting:
        name, names = waiting.pop()
        path = _module_path(parent, name)
        if path is None or (name, names) in seen or name.removeprefix(f"{PACKAGE}.") in NON_RESULT_MODULES:
            continue
        seen.add((name, names))
        waiting += [(name.rsplit(".", count)[0], frozenset()) for count in range(1, name.count(".") + 1)]
        module = _read_module(path, name, parent, path.stat().st_mtime_ns)
        if path.name == "__init__.py":
            found.update(asset for asset in path.parent.iterdir() if asset.suffix in ASSETS)
            inside = {each for each in names or () if _module_path(parent, f"{name}.{each}")}
            waiting += [(f"{name}.{each}", None) for each in inside]
            handed_on = None if names is None else names - inside
            if module.defines_nothing and handed_on is not None and handed_on <= module.handed_on.keys():
                waiting += [module.handed_on[each] for each in handed_on]
                continue
        found.add(path)
        waiting += module.imports
    return sorted(found)


class _Module:
    """A module's imports, the names that it hands on from others, and whether that is all it does."""

    def __init__(self, path: Path, name: str, parent: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.imports = list(_imports(tree, package, parent).items())
        self.handed_on: dict[str, tuple[str, frozenset[str] | None]] = {}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    target = f"{_base(node, package)}.{alias.name}"
                    if _module_path(parent, target):
                        self.handed_on[alias.asname or alias.name] = (target, None)
                    else:
                        self.handed_on[alias.asname or alias.name] = (
                            _base(node, package), frozenset({alias.name}),
                        )  # fmt: skip
            elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
                self.handed_on |= _listed(
                    node.value, package, parent
                )  # names that are imported when asked for
        self.defines_nothing = path.name == "__init__.py" and all(map(_is_door, tree.body))


@functools.lru_cache(maxsize=512)
def _read_module(path: Path, name: str, parent: Path, changed: int) -> _Module:
    return _Module(path, name, parent)


def _is_door(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.If) or _is_text(node):
        return True
    if isinstance(node, ast.FunctionDef):
        return node.name in ("__getattr__", "__dir__")
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return value is not None and not any(isinstance(part, ast.Call | ast.Lambda) for part in ast.walk(value))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _listed(
    table: ast.Dict, package: str, parent: Path
) -> Iterator[tuple[str, tuple[str, frozenset[str] | None]]]:
    for key, value in zip(table.keys, table.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(value, ast.Constant)):
            continue
        where = str(value.value).lstrip(".")
        for module in (where, f"{package}.{where}", f"{PACKAGE}.{where}"):
            if module.startswith(PACKAGE) and _module_path(parent, module):
                yield str(key.value), (module, frozenset({str(key.value)}))


def _imports(tree: ast.AST, package: str, parent: Path) -> Wanted:
    """What a module imports of the package; of a module that is imported whole, the attributes that are asked of it."""
    wanted: dict[str, set[str] | None] = {}
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted |= {alias.name: None for alias in node.names if _is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom) and _is_ours(base := _base(node, package)):
            for alias in node.names:
                if _module_path(parent, f"{base}.{alias.name}"):
                    bound[alias.asname or alias.name] = f"{base}.{alias.name}"
                elif wanted.get(base, set()) is not None:
                    wanted.setdefault(base, set()).add(alias.name)
    attributes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    inside = {id(node.value) for node in attributes}
    for name, module in bound.items():
        bare = any(
            isinstance(node, ast.Name) and node.id == name and id(node) not in inside
            for node in ast.walk(tree)
        )
        asked = {node.attr for node in attributes if node.value.id == name}
        wanted[module] = (
            None if bare or wanted.get(module, set()) is None else wanted.get(module, set()) | asked
        )
    return {name: None if names is None else frozenset(names) for name, names in wanted.items()}


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _module_path(parent: Path, name: str) -> Path | None:
    base = parent.joinpath(*name.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)
