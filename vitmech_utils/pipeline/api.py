"""The reference of the public API, from signatures and docstrings; sources are read, nothing is imported."""

import ast
import re
from pathlib import Path

from vitmech_utils.runs.manifests import RunError

# What users may build on: module and names, in the order of the pipeline.
PUBLIC_API: dict[str, tuple[str, ...]] = {
    "data.chirps": ("Chirp", "sample_chirp", "paint"),
    "data.figures": ("Style", "REGIONS", "draw", "draw_with_matplotlib"),
    "data.recordings": ("RecordingFolder", "window_grid"),
    "data.recordings.boxes": ("Box", "read_boxes"),
    "data.recordings.seizures": ("read_seizures", "colour_scale", "folds"),
    "data.sweep_labels": ("SweepDataset", "bend"),
    "data.dataset": ("ChirpDataset", "export_folder", "FolderDataset"),
    "model.backbones": ("load_backbone",),
    "model.regressor": ("ChirpRegressor",),
    "model.classifier": ("SweepClassifier",),
    "heads.hooks": ("capture_heads", "change_heads"),
    "heads.attention": ("attention_maps", "region_shares"),
    "tasks": (
        "Task",
        "find",
        "squared_error",
        "cross_entropy",
        "binary_cross_entropy",
        "pixel_cross_entropy",
        "logit_difference",
        "divergence",
    ),
    "heads.ablation": ("sweep", "first_order", "predict_without_heads"),
    "heads.optimal": ("optimal_constants",),
    "heads.constants": ("matched_noise", "mean_constants"),
    "heads.replacements": ("averaged_references",),
    "heads.sets": ("predict_without_sets", "losses_without_sets", "set_effects"),
    "heads.interactions": ("second_order", "exact_interactions", "shapley_values"),
    "heads.direct": ("predict_directly", "direct_effects"),
    "heads.attacks": ("attack", "random_noise"),
    "heads.semantics": ("classify",),
    "heads.effects": ("effects", "loss_changes", "Losses"),
    "heads.rank_agreement": ("disattenuated_correlation", "permutation_null", "depth_alone"),
    "studies.origin.measure": ("lift_changes", "transitions"),
    "heads.pruning": ("prune_heads", "recovering", "save_pruned", "load_pruned"),
    "heads.recoveries": ("save_recovery", "load_recovery"),
    "heads.costs": ("costs", "latency"),
    "report.picker": ("HeadPicker", "PickerData"),
    "report.claims": ("scoreboard",),
    "runs": ("open_chapter",),
}
PACKAGE = Path(__file__).resolve().parents[1]
_WIDTH = 92  # longer signatures get one argument a line
_OUTSIDE_CODE = re.compile(r"(`[^`]*`)|([\\*_{}\[\]<>#|$~])")


def reference() -> str:
    """Write the reference of the public API as MyST: a section per module, in it a heading per name.

    Raises `RunError` when a name has no docstring or is not where it should be.
    """
    return "\n\n".join(
        f"## `vitmech_utils.{module}`\n\n" + "\n\n".join(_entry(module, name) for name in names)
        for module, names in PUBLIC_API.items()
    )


def _entry(module: str, name: str) -> str:
    node = _find(module, name)
    if isinstance(node, ast.Assign):
        return f"### `{name}`\n\n{_code(ast.unparse(node))}"
    parts = [f"### `{name}`", _code(_signature(node)), _docstring(node, f"{module}.{name}")]
    if isinstance(node, ast.ClassDef):
        methods = [
            inner
            for inner in node.body
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
        ]
        parts += [_method(name, method) for method in methods]
    return "\n\n".join(parts)


def _method(owner: str, node: ast.FunctionDef) -> str:
    name = f"{owner}.{node.name}"
    return f"**`{name}`**\n\n{_code(_signature(node))}\n\n{_docstring(node, name)}"


def _find(module: str, name: str) -> ast.ClassDef | ast.FunctionDef | ast.Assign:
    """Find a name's definition, following the imports that pass it on."""
    base = PACKAGE.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        raise RunError(f"the reference names {module}, which is not there; fix PUBLIC_API in pipeline/api.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
            return node
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return _find((node.module or "").removeprefix("vitmech_utils."), name)
    raise RunError(
        f"the reference names {module}.{name}, which is not there; fix PUBLIC_API in pipeline/api.py"
    )


def _signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    if isinstance(node, ast.ClassDef):
        return _class_signature(node)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    decorators = "".join(f"@{ast.unparse(each)}\n" for each in node.decorator_list)
    return decorators + _laid_out(f"def {node.name}", _arguments(node), result)


def _class_signature(node: ast.ClassDef) -> str:
    init = [inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"]
    if init:
        return _laid_out(f"class {node.name}", _arguments(init[0])[1:], "")
    fields = [
        text
        for inner in node.body
        if isinstance(inner, ast.AnnAssign) and "ClassVar" not in (text := ast.unparse(inner))
    ]
    return _laid_out(f"class {node.name}", fields, "")


def _arguments(node: ast.FunctionDef) -> list[str]:
    found = node.args
    first = len(found.posonlyargs) + len(found.args) - len(found.defaults)
    listed = [
        _argument(each, found.defaults[place - first] if place >= first else None)
        for place, each in enumerate([*found.posonlyargs, *found.args])
    ]
    if found.vararg:
        listed.append(f"*{_argument(found.vararg)}")
    elif found.kwonlyargs:
        listed.append("*")
    listed += [_argument(*pair) for pair in zip(found.kwonlyargs, found.kw_defaults, strict=True)]
    return [*listed, f"**{_argument(found.kwarg)}"] if found.kwarg else listed


def _argument(argument: ast.arg, default: ast.expr | None = None) -> str:
    text = argument.arg + (f": {ast.unparse(argument.annotation)}" if argument.annotation else "")
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}" if argument.annotation else f"{text}={ast.unparse(default)}"


def _laid_out(start: str, arguments: list[str], end: str) -> str:
    line = f"{start}({', '.join(arguments)}){end}"
    if len(line) <= _WIDTH:
        return line
    return f"{start}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){end}"


def _docstring(node: ast.ClassDef | ast.FunctionDef, name: str) -> str:
    text = ast.get_docstring(node)
    if not text:
        raise RunError(f"{name} has no docstring; the reference is made of them")
    return _OUTSIDE_CODE.sub(lambda match: match[1] or f"\\{match[2]}", text)


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
