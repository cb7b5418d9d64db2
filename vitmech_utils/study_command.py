"""`vitmech check` and `vitmech study`: a model of one's own from the command line."""

from __future__ import annotations

import argparse
import sys

from vitmech_utils.artefacts import RunError


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add both commands to the command line."""
    checking = commands.add_parser(
        "check", help="what of your own model can be analysed", description=check.__doc__
    )
    checking.set_defaults(command=check)
    studying = commands.add_parser(
        "study", help="the whole report of your own model, on one page", description=study.__doc__
    )
    studying.set_defaults(command=study)
    for command in (checking, studying):
        command.add_argument("model", metavar="MODEL", help="a folder of save_pretrained, or a hub id")
        command.add_argument(
            "images", metavar="IMAGES", help="a folder of images, or of one folder per class"
        )
        command.add_argument(
            "--adapter", metavar="DIR", help="a peft adapter's folder; MODEL is then its base"
        )
        command.add_argument(
            "--processor", metavar="DIR", help="where preprocessor_config.json lies (default: MODEL)"
        )
        command.add_argument(
            "--output-projection", metavar="PATTERN", help="where heads are: 'blocks.*.attn.proj'"
        )
        command.add_argument(
            "--heads", type=int, metavar="N", help="heads of a layer, beside --output-projection"
        )
        command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    studying.add_argument(
        "--labels", choices=["folders"], help="folders: each class has one (default: no labels)"
    )
    studying.add_argument(
        "--task", help="cross-entropy, squared error, divergence, ... (default: by the labels)"
    )
    studying.add_argument("--masks", metavar="DIR|JSON", help="a folder of PNG masks, or a COCO file")
    studying.add_argument("--regions", metavar="1=NAME,2=NAME", help="the names of the masks' numbers")
    studying.add_argument("--base", metavar="DIR", help="the model before fine-tuning: what is inherited")
    studying.add_argument("--mode", default="mean", help="zero, mean or resample (default: mean)")
    studying.add_argument(
        "--limit", "--images", dest="limit", type=int, default=256, help="images at most (256)"
    )
    studying.add_argument("--batch", type=int, default=16, help="images held at once (16)")
    studying.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    studying.add_argument("--out", default="study", metavar="DIR", help="where all is kept (default: study)")


def check(options: argparse.Namespace) -> int:
    """Tell whether heads can be ablated and maps drawn, which tokens are patches, and what the answer reads."""
    made = _made(options, limit=1, labels=None, task=None)
    found = made.check()
    print(found)
    for name, fact in made.images.facts.items():
        print(f"{name}: {fact}")
    return 1 if found.refused else 0


def study(options: argparse.Namespace) -> int:
    """Measure every head of a model on your images and write one page, tables as CSV and the code that repeats it.

    It says first how long it will take, keeps what it has layer by layer, and goes on after a kill.
    """
    made = _made(
        options, options.limit, options.labels, options.task, masks=options.masks,
        regions=_regions(options.regions), base=options.base, mode=options.mode, batch=options.batch, seed=options.seed,
        folder=options.out,
    )  # fmt: skip
    print(made.check(), flush=True)
    for name, fact in made.images.facts.items():
        print(f"{name}: {fact}")
    took = made.estimate()
    parts = ", ".join(
        f"{name} {_duration(seconds)}" for name, seconds in took.items() if name != "total" and seconds >= 1
    )
    told = f" ({parts})" if parts else ""
    print(f"this will take about {_duration(took['total'])}{told}", flush=True)
    print(_refusing(made.report))
    return 0


def _made(options: argparse.Namespace, limit: int, labels: str | None, task: str | None, **settings: object):
    from vitmech_utils.model.told_heads import Heads
    from vitmech_utils.study import Study

    heads = None
    if options.output_projection:
        heads = _refusing(lambda: Heads(options.output_projection, options.heads))
    elif options.heads is not None:
        raise RunError("--heads goes with --output-projection, which says where they are")
    model = (options.model, options.adapter) if options.adapter else options.model
    return _refusing(
        lambda: Study(
            model, options.images, labels, task, heads=heads, processor=options.processor, device=options.device,
            limit=limit, progress=sys.stderr.isatty(), **settings,
        )
    )  # fmt: skip


def _refusing(work):
    """What `work` returns; what the package refuses is told in a line."""
    from vitmech_utils.model.backbones import BackboneError
    from vitmech_utils.model.lora import AdapterError

    try:
        return work()
    except (ValueError, IndexError, BackboneError, AdapterError) as error:
        raise RunError(str(error)) from error


def _regions(text: str | None) -> dict[int, str] | None:
    if text is None:
        return None
    found: dict[int, str] = {}
    for part in text.split(","):
        number, equals, name = part.partition("=")
        if not equals or not number.strip().isdigit() or not name.strip():
            raise RunError(f"--regions: {part!r} is no number=name, expected such as 1=object,2=distractor")
        if int(number) in found:
            raise RunError(f"--regions names {int(number)} twice")
        found[int(number)] = name.strip()
    return found


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
