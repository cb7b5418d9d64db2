"""All adapters of a profile, side by side: every kind and every seed, each trained and scored in a process of its own.

    python -m vitmech_utils.adapters --profile gpu --at-once 6

Writes one adapter folder each to `results/adapters/<profile>`, with its score and its answers on held-out images. An
adapter that is there is left alone and a stopped training goes on from its last checkpoint, so the same command
finishes what another call began. `--only seed-0 bare-seed-1` names some of them.

    python -m vitmech_utils.adapters --rescore published/adapters

computes the answers and scores of a folder's adapters anew, in float32 whatever they were trained in.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitmech_utils.arguments import at_least, exit_status
from vitmech_utils.artefacts import to_plain, write_atomically, write_json
from vitmech_utils.devices import pick_device
from vitmech_utils.profiles import Profile, ProfileError, load_profile, parse_overrides, repository_root
from vitmech_utils.runs.manifests import RunError, code_version, machine, package_versions
from vitmech_utils.runs.run_folders import ADAPTERS, at_home, checkpoint_folder, find_run_dir

ANSWERS, SCORE = "answers.safetensors", "score.json"
TRAINED_IN = {"published": "02_lora_fine_tuning", "bare": "07_inherited_or_emergent"}
Wanted = tuple[str, int]


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing; the exit status is 0 when every adapter is there, 1 where one failed or was refused."""
    options = _parser().parse_args(arguments)
    work = _made if options.rescore is None else _rescored
    return exit_status(
        "vitmech_utils.adapters", lambda: work(options), (ProfileError, RunError, *_refusals())
    )


def _refusals() -> tuple[type[Exception], ...]:
    from vitmech_utils.model.backbones import BackboneError
    from vitmech_utils.model.regressor import AdapterError

    return AdapterError, BackboneError


def _made(options: argparse.Namespace) -> int:
    root = repository_root()
    profile = load_profile(options.profile, parse_overrides(options.parameter), root)
    out = root / (at_home(options.out) if options.out else Path("results", "adapters", profile.name))
    names = options.only or [name for name, wanted in adapters(profile).items() if wanted[0] in options.kinds]
    if unknown := sorted(set(names) - set(adapters(profile))):
        raise RunError(f"{', '.join(unknown)}: expected some of {', '.join(adapters(profile))}")
    if len(names) == 1:
        train_one(profile, *adapters(profile)[names[0]], out / names[0], root, options.workers, options.kept)
        return 0
    failed = train_all([name for name in names if not is_done(out / name)], out, options)
    print(f"{len(names) - len(failed)} of {len(names)} adapters are in {out}")
    return 1 if failed else 0


def adapters(profile: Profile) -> dict[str, Wanted]:
    """The adapters that a profile makes: the folder's name, to its kind (of `ADAPTERS`) and seed; seed by seed."""
    return {
        f"{prefix}seed-{seed}": (kind, seed)
        for seed in profile.seeds
        for kind, (prefix, _) in ADAPTERS.items()
    }


def is_done(folder: Path) -> bool:
    """Whether an adapter was trained and scored to the end."""
    return (folder / SCORE).is_file()


def train_one(
    profile: Profile,
    kind: str,
    seed: int,
    folder: Path,
    root: Path,
    workers: int | None = None,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Train one adapter, save it with the record of its training, score it on `train.eval_images`; returns the record.

    `workers` processes draw its images; `kept` is a folder with their parts (`vitmech_utils.data.kept`). The
    score's images are those of chapter 02 (or 12): held-out, seed 0.
    """
    from safetensors.numpy import save_file

    from vitmech_utils.data.dataset import ChirpDataset
    from vitmech_utils.data.kept import KeptImages, keep
    from vitmech_utils.data.sweep_labels import SweepDataset
    from vitmech_utils.model.classifier import fine_tune_classifier
    from vitmech_utils.model.finetune import computes_in_bfloat16, fine_tune_profile
    from vitmech_utils.model.scores import predict_dataset

    if kept is not None:
        asked_for = (
            profile.task.steps * profile.task.batch_size if ", title " in kind else profile.train.images
        )
        keep(kept, ChirpDataset(asked_for, seed, hard_share=profile.train.hard_share))
    device = pick_device(profile)
    checkpoints = checkpoints_of(profile, kind, seed, folder, root)
    plan = profile.train
    style, _, title = kind.partition(", title ")
    if title:
        training = fine_tune_classifier(profile, seed, title, checkpoints, device, workers, kept)
        test = SweepDataset(plan.eval_images, title, seed=0, split="held-out")
        batch, asked = profile.task.batch_size, profile.task.steps
    else:
        training = fine_tune_profile(profile, seed, checkpoints, device, style, workers, kept)
        test = ChirpDataset(plan.eval_images, seed=0, style=style, split="held-out")
        batch, asked = plan.batch_size, plan.steps
    if kept is not None:
        keep(kept, test)
        test = KeptImages(test, kept)
    began = time.perf_counter()
    answers, labels = predict_dataset(training.regressor, test, batch_size=128, workers=workers)
    bfloat16 = plan.precision == "bfloat16" or (plan.precision == "auto" and computes_in_bfloat16(device))
    steps = int(training.history["step"].max())
    record = {
        "profile": profile.name,
        "seed": seed,
        "device": device.type,
        "hardware": machine(str(device))["name"],
        **({"title": title} if title else {"figures": style}),
        "steps": steps,
        "batch_size": batch,
        "restart": (plan.restart or 0) if plan.has_restart and not title else 0,
        "distinct_images": asked * batch if title else min(plan.images, asked * batch),
        "images_visited": steps * batch,
        "hard_share": plan.hard_share,
        "wall_seconds": round(training.seconds, 1),
        "precision": "bfloat16" if bfloat16 else "float32",
        "packages": package_versions(),
        "code": code_version(root),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "history": training.history.to_dict("records"),
        **scores_of(answers, labels, bool(title)),
        "score_seconds": round(time.perf_counter() - began, 1),
    }
    training.regressor.save(folder, training=record)
    write_atomically(folder / ANSWERS, lambda path: save_file({"answers": answers}, path))
    short = {key: value for key, value in record.items() if key not in ("history", "code")}
    write_json(folder / SCORE, to_plain(short))
    return record


def _rescored(options: argparse.Namespace) -> int:
    folders = {path.parent.name: path.parent for path in sorted(options.rescore.glob(f"*/{SCORE}"))}
    unknown = sorted(set(options.only or []) - set(folders))
    if unknown or not folders:
        raise RunError(
            f"{options.rescore}: {f'no adapter {unknown[0]}' if folders else 'no adapters'} with a {SCORE} there; "
            f"expected {', '.join(folders) or 'the folder that such adapters lie in'}"
        )
    for name in options.only or sorted(folders, key=lambda name: (name.startswith("classifier"), name)):
        if rescore(folders[name], options.workers):
            print(f"{name}: {_outcome(0, options.rescore, name)}", flush=True)
    return 0


def rescore(folder: Path, workers: int | None = None) -> bool:
    """Give an adapter its answers and scores on its held-out images anew, in float32; False where it has them.

    As many images as its last score is of. Its answers, the record of its training, its card and, last, its score are
    replaced one by one, so that a stopped call is repeated as a whole.
    """
    import torch
    from safetensors.numpy import save_file

    from vitmech_utils.data.dataset import ChirpDataset
    from vitmech_utils.data.sweep_labels import SweepDataset
    from vitmech_utils.model.adapter_files import LARGEST_TRAINING, TRAINING
    from vitmech_utils.model.cards import write_card
    from vitmech_utils.model.classifier import SweepClassifier
    from vitmech_utils.model.regressor import ChirpRegressor, read_training
    from vitmech_utils.model.scores import predict_dataset
    from vitmech_utils.strict_text import read_json

    short = read_json(folder / SCORE, LARGEST_TRAINING)
    if short.get("score_precision", short["precision"]) == "float32":
        return False
    images = short["score"][0]["images"]
    if title := short.get("title"):
        model, test = SweepClassifier, SweepDataset(images, title, seed=0, split="held-out")
    else:
        model, test = ChirpRegressor, ChirpDataset(images, seed=0, style=short["figures"], split="held-out")
    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    regressor = model.load(folder).merged().to(device)
    answers, labels = predict_dataset(regressor, test, batch_size=32, workers=workers)
    found = {
        **scores_of(answers, labels, bool(title)),
        "score_precision": "float32",
        "score_device": machine(str(device))["name"],
        "score_seconds": round(time.perf_counter() - began, 1),
    }
    write_atomically(folder / ANSWERS, lambda path: save_file({"answers": answers}, path))
    write_json(folder / TRAINING, to_plain(read_training(folder) | found))
    write_card(folder)
    write_json(folder / SCORE, to_plain(short | found))
    return True


def checkpoints_of(profile: Profile, kind: str, seed: int, folder: Path, root: Path) -> Path:
    """Where a training keeps its checkpoints: where the chapter looks that trains it too, which then finds it finished.

    That is so for chapters 02 and 07 in the profile's own run folder, as long as the code and
    the values that train stay as they are.
    """
    if kind not in TRAINED_IN:
        return folder.parent / ".checkpoints" / folder.name
    run = find_run_dir(root, profile.name)
    return checkpoint_folder(run, TRAINED_IN[kind], root, profile) / folder.name


def scores_of(answers: Any, labels: Any, classifies: bool) -> dict[str, Any]:
    """The score's rows, and of a regressor the share of unread images."""
    from vitmech_utils.model.scores import score, score_classes, unread, wilson

    if classifies:
        return {"score": score_classes(answers, labels).to_dict("records")}
    unread_share = wilson(unread(answers, labels))
    return {
        "score": score(answers, labels, bootstrap=2000).to_dict("records"),
        "unread": {**vars(unread_share), "images": len(labels)},
    }


def train_all(names: list[str], out: Path, options: argparse.Namespace) -> list[str]:
    """Train several adapters, `at_once` of them at a time; returns the names of those that failed."""
    waiting, running, failed = list(names), {}, []
    (out / ".logs").mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            for _ in range(min(len(waiting), options.at_once - len(running))):
                name = waiting.pop(0)
                running[name] = _start(name, out, options)
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                print(f"{name}: {_outcome(process.returncode, out, name)}", flush=True)
                failed += [name] if process.returncode else []
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.kill()
    return failed


def _start(name: str, out: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vitmech_utils.adapters", "--profile", options.profile, "--only", name]
    command += ["--out", str(out), *(f"-p{value}" for value in options.parameter)]
    command += [f"--workers={options.workers}"] if options.workers is not None else []
    command += [f"--kept={options.kept}"] if options.kept is not None else []
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # they share the cores
    with (out / ".logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _outcome(status: int, out: Path, name: str) -> str:
    if status:
        lines = (out / ".logs" / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return f"failed, {lines[-1] if lines else f'exit status {status}'}"
    record = json.loads((out / name / SCORE).read_text())
    parts = [f"{row['target']} {row.get('r', row.get('accuracy')):.4f}" for row in record["score"]]
    unread = f", unread {record['unread']['value']:.2%}" if "unread" in record else ""
    return (
        f"{', '.join(parts)}{unread}; {record['images_visited']:,} images in {record['wall_seconds']:.0f} s"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vitmech_utils.adapters", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--profile", default="quick", help="a profile's name, or a YAML file (default: quick)"
    )
    parser.add_argument("--out", type=Path, help="where to (default: results/adapters/<profile>)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these adapters, such as bare-seed-0")
    parser.add_argument("--kinds", nargs="+", choices=ADAPTERS, default=list(ADAPTERS), help="these kinds")
    parser.add_argument(
        "--at-once", type=at_least(1), default=1, metavar="N", help="trainings at a time (default: 1)"
    )
    parser.add_argument(
        "--workers", type=at_least(0), metavar="N", help="processes that draw images for each training"
    )
    parser.add_argument(
        "--kept", type=Path, help="a folder with parts of the images (vitmech_utils.data.kept)"
    )
    parser.add_argument(
        "--rescore", type=Path, metavar="FOLDER", help="score that folder's adapters anew, in float32"
    )
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="KEY=VALUE", help="as in run"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
