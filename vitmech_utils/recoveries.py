"""The longer recovery of chapter 08, trained once in the background and kept like an adapter.

    python -m vitmech_utils.recoveries --profile laptop --adapter published/adapters/seed-0

Removes the heads of layers 1-3 of an adapter's model, trains what is left for `pruning.long_recovery_steps`, and does
the same with the whole model, the control. Writes one folder each to `results/recoveries`, with what the model answers
on the first `train.eval_images` held-out images, so that nobody has to ask it again. What is there is left alone, and a
stopped training goes on from its last checkpoint.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from vitmech_utils.arguments import exit_status
from vitmech_utils.devices import pick_device
from vitmech_utils.profiles import Profile, ProfileError, load_profile, parse_overrides, repository_root
from vitmech_utils.runs.manifests import RunError, code_version, machine, package_versions
from vitmech_utils.runs.run_folders import RECOVERIES, at_home, published_adapter


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing; returns the exit status (0 done, 1 refused)."""
    options = _parser().parse_args(arguments)
    from vitmech_utils.model.adapter_files import AdapterError
    from vitmech_utils.model.backbones import BackboneError

    return exit_status(
        "vitmech_utils.recoveries",
        lambda: _made(options),
        (ProfileError, RunError, AdapterError, BackboneError),
    )


def _made(options: argparse.Namespace) -> int:
    root = repository_root()
    profile = load_profile(options.profile, parse_overrides(options.parameter), root)
    adapter = root / at_home(options.adapter or published_adapter(profile.seeds[0]))
    from vitmech_utils.model.scores import ANSWERS

    out = root / at_home(options.out)
    for name in options.only or RECOVERIES:
        folder = out / f"{name}-seed-{profile.seeds[0]}"
        if not folder.is_dir():
            train_one(profile, adapter, name, folder, root)
        if not (folder / ANSWERS).is_file():
            answer(profile, adapter, folder)
        print(f"{folder.name}: kept in {folder}")
    return 0


def train_one(profile: Profile, adapter: Path, name: str, folder: Path, root: Path) -> Path:
    """Recover one of `RECOVERIES` from an adapter's model and keep it in a folder; returns the folder."""
    from vitmech_utils.heads.recoveries import save_recovery
    from vitmech_utils.model.anatomy import find_blocks
    from vitmech_utils.model.regressor import ChirpRegressor
    from vitmech_utils.studies.ablation.measure import EARLY
    from vitmech_utils.studies.pruning.measure import further_training, long_recipe

    device = pick_device(profile)
    whole = ChirpRegressor.load(adapter).merged().to(device)
    heads = find_blocks(whole).sizes["heads"]
    gone = [(layer, head) for layer in EARLY for head in range(heads)] if name == RECOVERIES[0] else []
    recipe = long_recipe(profile)
    began = time.perf_counter()
    trained = further_training(whole, gone, profile, recipe, folder.with_name(f".checkpoints-{folder.name}"))
    record = {
        "profile": profile.name,
        "adapter": adapter.name,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "images_visited": recipe.steps * recipe.batch_size,
        "hard_share": profile.train.hard_share,
        "learning_rate": recipe.learning_rate,
        "device": device.type,
        "hardware": machine(str(device))["name"],
        "wall_seconds": round(max(trained.seconds, time.perf_counter() - began), 1),
        "packages": package_versions(),
        "code": code_version(root),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "history": trained.history.to_dict("records"),
    }
    return save_recovery(trained.regressor, whole, gone, folder, record)


def answer(profile: Profile, adapter: Path, folder: Path) -> Path:
    """Keep what a recovery in a folder answers on the profile's held-out images; returns the file."""
    from vitmech_utils.data.dataset import ChirpDataset
    from vitmech_utils.heads.recoveries import load_recovery
    from vitmech_utils.model.regressor import ChirpRegressor
    from vitmech_utils.model.scores import predict_dataset, save_answers

    whole = ChirpRegressor.load(adapter).merged()
    recovered = load_recovery(folder, whole).to(pick_device(profile))
    images = ChirpDataset(profile.train.eval_images, seed=0, split="held-out")
    return save_answers(folder, *predict_dataset(recovered, images))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vitmech_utils.recoveries", description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="laptop", help="a profile's name, or a YAML file")
    parser.add_argument(
        "--adapter", help="the adapter folder to begin from (default: the published one of the first seed)"
    )
    parser.add_argument("--out", default="results/recoveries", help="where the folders are written")
    parser.add_argument("--only", nargs="+", choices=RECOVERIES, help="some of them (default: both)")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one profile value",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
