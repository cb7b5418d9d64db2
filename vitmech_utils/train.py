"""Chapter 02's training in several processes, one a GPU; chapter 02 then finds it finished.

    accelerate launch --num_processes 4 -m vitmech_utils.train --profile paper
    vitmech run 02 --profile paper

Every process takes its share of each batch. Only the first one writes: checkpoints, where chapter 02 looks for them.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vitmech_utils.arguments import exit_status
from vitmech_utils.devices import pick_device
from vitmech_utils.profiles import Profile, ProfileError, load_profile, parse_overrides, repository_root
from vitmech_utils.runs import TRAINING, open_chapter
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.runs.run_folders import at_home, checkpoint_folder, find_run_dir
from vitmech_utils.runs.standing import check_chapter


def main(arguments: list[str] | None = None) -> int:
    """Train every seed of a profile; returns the exit status (0 done, 1 refused)."""
    options = _parser().parse_args(arguments)
    from vitmech_utils.model.backbones import BackboneError

    return exit_status(
        "vitmech_utils.train", lambda: _trained(options), (ProfileError, RunError, BackboneError)
    )


def _trained(options: argparse.Namespace) -> int:
    first = os.environ.get("RANK", "0") == "0"
    root = repository_root()
    profile = load_profile(options.profile, parse_overrides(options.parameter), root)
    run = find_run_dir(root, profile.name, at_home(options.run_dir).absolute() if options.run_dir else None)
    if _stands(run, profile, root):
        if first:
            print(f"{TRAINING}: up to date")
        return 0
    with _chapter_held(run, profile, root) if first else contextlib.nullcontext():
        train(run, profile, root)
    if first:
        print(f"Trained. `vitmech run {TRAINING[:2]}` with the same values goes on from here.")
    return 0


def train(run: Path, profile: Profile, root: Path) -> None:
    """Train each seed into the checkpoints that chapter 02 of this run folder, profile and code goes on from."""
    from vitmech_utils.model.finetune import fine_tune_profile

    checkpoints = checkpoint_folder(run, TRAINING, root, profile)
    device = pick_device(profile)
    for seed in profile.seeds:
        fine_tune_profile(profile, seed, checkpoints / f"seed-{seed}", device)


def _stands(run: Path, profile: Profile, root: Path) -> bool:
    try:
        check_chapter(run, TRAINING, root, profile)
    except RunError:
        return False
    return True


@contextlib.contextmanager
def _chapter_held(run: Path, profile: Profile, root: Path) -> Iterator[None]:
    """Keep others off the chapter while it trains; what it had stays as it was."""
    chapter = open_chapter(TRAINING, profile, run, root=root)
    try:
        yield
    finally:
        chapter.abandon()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vitmech_utils.train", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--profile", default="quick", help="a profile's name, or a YAML file (default: quick)"
    )
    parser.add_argument("--run-dir", help="the run folder (default: results/<profile>)")
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
