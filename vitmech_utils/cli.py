"""The command line: chapters, the book (`vitmech run`, `book`, `publish`, ...), and models of your own (`study`)."""

import argparse
import sys
import time
from pathlib import Path

from vitmech_utils.arguments import exit_status
from vitmech_utils.profiles import ProfileError, load_profile, parse_overrides, repository_root
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.runs.run_folders import at_home
from vitmech_utils.study_command import add_commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 refused or failed, 2 misused, 130 interrupted)."""
    options = _parser().parse_args(arguments)
    return exit_status("vitmech", lambda: options.command(options), (ProfileError, RunError))


def run(options: argparse.Namespace) -> int:
    """Execute one chapter, or all in order (those that are up to date are skipped unless --force)."""
    from vitmech_utils.pipeline.execute import chapters, find_chapter, run_chapter
    from vitmech_utils.pipeline.warm.ahead import start_ahead

    root = repository_root()
    overrides = parse_overrides(options.parameter)
    load_profile(options.profile, overrides, root)  # refuse a bad value before anything runs
    everything = options.chapter == "all"
    names = chapters(root) if everything else [find_chapter(root, options.chapter)]
    skip = options.if_stale or (everything and not options.force)
    for name in names:
        started = time.perf_counter()
        executed = run_chapter(
            root, name, options.profile, overrides, _run_dir(options), skip, ahead=start_ahead
        )
        if executed:
            print(f"{name}: {executed} ({time.perf_counter() - started:.0f} s)", flush=True)
    return 0


def redraw(options: argparse.Namespace) -> int:
    """Draw one chapter's page again from what its run kept, or all that are not up to date; nothing is computed."""
    from vitmech_utils.pipeline.execute import chapters, find_chapter, redraw_chapter
    from vitmech_utils.pipeline.warm.ahead import start_ahead

    root = repository_root()
    overrides = parse_overrides(options.parameter)
    everything = options.chapter == "all"
    for name in chapters(root) if everything else [find_chapter(root, options.chapter)]:
        started = time.perf_counter()
        executed = redraw_chapter(
            root, name, options.profile, overrides, _run_dir(options), everything, ahead=start_ahead
        )
        if executed:
            print(f"{name}: {executed} ({time.perf_counter() - started:.0f} s)", flush=True)
    return 0


def stage(options: argparse.Namespace) -> int:
    """Bring a run folder's executed notebooks into the book's sources."""
    from vitmech_utils.pipeline.stage import stage as stage_run

    root = repository_root()
    target = root / "book" / "_build" / "src"
    stage_run(root, _run_folder(root, options), target)
    print(f"staged: {target}")
    return 0


def book(options: argparse.Namespace) -> int:
    """Stage a run folder and render the HTML book."""
    from vitmech_utils.pipeline.build import build

    root = repository_root()
    build(root, _run_folder(root, options), at_home(options.out).resolve() if options.out else None)
    return 0


def pdf(options: argparse.Namespace) -> int:
    """Print the book that was built last into one PDF, by the browser, and offer it on the opening page."""
    from vitmech_utils.pipeline.pdf import print_book

    root = repository_root()
    out = Path(options.out).expanduser().absolute() if options.out else root / "book" / "_build"
    file = print_book(root, out / "html")
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def publish(options: argparse.Namespace) -> int:
    """Put a finished run in place of the published one, if it is whole, of committed code, and not a quick run."""
    from vitmech_utils.pipeline.execute import find_chapter
    from vitmech_utils.pipeline.publish import publish as publish_run

    root = repository_root()
    left_out = tuple(find_chapter(root, chapter) for chapter in options.leave_out)
    sizes = publish_run(root, _run_folder(root, options), left_out)
    print("\n".join(f"{size / 1e6:6.2f} MB  {name}" for name, size in sizes.items()))
    print(f"{sum(sizes.values()) / 1e6:6.2f} MB  published")
    return 0


def check_in(options: argparse.Namespace) -> int:
    """Take the checked cells' outputs of a finished quick run into the notebooks' sources, for nbval to compare."""
    from vitmech_utils.pipeline.checked import take_over
    from vitmech_utils.pipeline.execute import chapters, find_chapter

    root = repository_root()
    names = chapters(root) if options.chapter == "all" else [find_chapter(root, options.chapter)]
    for name in names:
        print(f"{name}: {take_over(root, _run_folder(root, options), name)} checked cells")
    return 0


def diff(options: argparse.Namespace) -> int:
    """Two runs side by side: effects, classes and verdicts, with intervals of the difference."""
    from vitmech_utils.pipeline.compare import compare

    found = compare(*(Path(run).expanduser().absolute() for run in (options.one, options.other)))
    print(found.text(), end="")
    if options.out:
        for file in found.save(Path(options.out).expanduser().absolute()):
            print(f"\nwritten: {file}", file=sys.stderr)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Print what is there and what is missing; exit status 1 when something needed is missing."""
    from vitmech_utils.doctor import report

    root = repository_root()
    overrides = parse_overrides(options.parameter)
    found, missing = report(root, load_profile(options.profile, overrides, root))
    print("\n".join(found))
    print("\n".join(["", "Missing:", *missing]) if missing else "\nNothing is missing.")
    return 1 if missing else 0


def _run_folder(root: Path, options: argparse.Namespace) -> Path:
    from vitmech_utils.runs.run_folders import find_run_dir

    return find_run_dir(root, load_profile(options.profile, root=root).name, _run_dir(options))


def _run_dir(options: argparse.Namespace) -> Path | None:
    return at_home(options.run_dir).absolute() if options.run_dir else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vitmech", description="Run the chapters of the vitmech book and build it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    running = commands.add_parser("run", help="execute one chapter, or all", description=run.__doc__)
    running.add_argument("chapter", help="a chapter's number (04), its name, or `all`")
    running.add_argument(
        "--if-stale", action="store_true", help="do no more than is needed: nothing, or draw the page again"
    )
    running.add_argument("--force", action="store_true", help="with `all`: run every chapter, stale or not")
    running.set_defaults(command=run)

    redrawing = commands.add_parser(
        "redraw", help="a chapter's page again, from its artefacts", description=redraw.__doc__
    )
    redrawing.add_argument("chapter", help="a chapter's number (04), its name, or `all`")
    redrawing.set_defaults(command=redraw)

    taking = commands.add_parser(
        "check-in", help="a run's checked outputs -> sources", description=check_in.__doc__
    )
    taking.add_argument("chapter", help="a chapter's number (04), its name, or `all`")
    taking.set_defaults(command=check_in)

    staging = commands.add_parser(
        "stage", help="executed notebooks -> the book's sources", description=stage.__doc__
    )
    staging.set_defaults(command=stage)

    building = commands.add_parser("book", help="stage, then render the HTML book", description=book.__doc__)
    building.add_argument("--out", help="where to build (default: book/_build)")
    building.set_defaults(command=book)

    printing = commands.add_parser("pdf", help="the built book as one PDF", description=pdf.__doc__)
    printing.add_argument("--out", help="where the book was built (default: book/_build)")
    printing.set_defaults(command=pdf)

    comparing = commands.add_parser("diff", help="two runs side by side", description=diff.__doc__)
    comparing.add_argument("one", metavar="RUN", help="a run folder, such as published")
    comparing.add_argument("other", metavar="RUN", help="another one, such as results/laptop")
    comparing.add_argument("--out", help="write the tables there, too, as CSV")
    comparing.set_defaults(command=diff)

    publishing = commands.add_parser(
        "publish", help="a finished run -> published/", description=publish.__doc__
    )
    publishing.add_argument(
        "--leave-out", action="append", default=[], metavar="CHAPTER", help="a chapter that has not run (08)"
    )
    publishing.set_defaults(command=publish)

    checking = commands.add_parser(
        "doctor", help="what is installed and what is missing", description=doctor.__doc__
    )
    checking.set_defaults(command=doctor)

    add_commands(commands)
    for command in (running, redrawing, taking, staging, building, publishing, checking):
        command.add_argument(
            "--profile", default="quick", help="quick, laptop, gpu, paper, or a YAML file (default: quick)"
        )
    for command in (running, redrawing, taking, staging, building, publishing):
        command.add_argument("--run-dir", help="the run folder (default: results/<profile>)")
    for command in (running, redrawing, checking):
        command.add_argument(
            "-p", "--parameter", action="append", default=[], metavar="KEY=VALUE",
            help="override one profile value, as in -p train.steps=3",
        )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
