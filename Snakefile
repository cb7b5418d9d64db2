# The series of chapters: only what is stale, in parallel where chapters do not depend on each other, resumable.
#   snakemake --cores 2 [--config profile=laptop run_dir=DIR set="train.steps=3 audit.images=4" threads=2]
# What a chapter depends on is read from its notebook: the modules it imports, the chapters it names.
# The shell command below may be run anywhere. It finds out what is to be done: where only what shows has changed, it
# draws the page again from what the chapter kept; where what computes has changed, it runs the chapter; else nothing.
# Outputs are marked `update`: Snakemake would delete others before it runs the command, and the last good run with them.
import json
import shlex
import sys
from pathlib import Path

from vitmech_utils.pipeline.execute import chapters
from vitmech_utils.runs.code import (
    module_files,
    notebook_source,
    predecessors,
    uses_adapter,
    uses_bare_adapter,
    uses_classifiers,
)
from vitmech_utils.profiles import load_profile, parse_overrides
from vitmech_utils.runs.run_folders import find_run_dir, note_profile, published_adapter
from vitmech_utils.runs import TRAINING

ROOT = Path(workflow.basedir)
PROFILE = str(config.get("profile", "quick"))
OVERRIDES = str(config.get("set") or "").split()
VALUES = load_profile(PROFILE, parse_overrides(OVERRIDES), ROOT)
RUN = find_run_dir(ROOT, VALUES.name, config.get("run_dir"))
CHAPTERS = chapters(ROOT)
VALUES_FILE = note_profile(RUN, VALUES)  # an input: changed values rerun, a changed comment does not


def notebook(chapter):
    return ROOT / "notebooks" / f"{chapter}.ipynb"


def command(chapter):
    words = [sys.executable, "-m", "vitmech_utils", "run", chapter, "--if-stale"]
    words += ["--profile", PROFILE, "--run-dir", str(RUN)]
    return shlex.join([*words, *(part for text in OVERRIDES for part in ("-p", text))])


def inputs(chapter):
    code = notebook_source(notebook(chapter))
    before = set(predecessors(notebook(chapter)))
    files = [notebook(chapter), VALUES_FILE, *module_files(code)]
    if uses_adapter(code):
        if VALUES.adapter == "published":
            files += sorted((ROOT / published_adapter(VALUES.seeds[0])).glob("*"))
        elif chapter != TRAINING:
            before.add(TRAINING)
    if uses_bare_adapter(code) and VALUES.bare_adapter == "published":
        files += sorted((ROOT / published_adapter(VALUES.seeds[0], "bare")).glob("*"))
    if uses_classifiers(code) and VALUES.classifiers == "published":
        for title in ("published", "none"):
            files += sorted((ROOT / published_adapter(VALUES.seeds[0], f"classifier, title {title}")).glob("*"))
    return [str(path) for path in [*files, *(RUN / name / "manifest.json" for name in sorted(before))]]


BEFORE = {chapter: set(predecessors(notebook(chapter))) for chapter in CHAPTERS}


def took(folder):
    """CPU seconds of the chapters of a finished run of this profile; nothing where a manifest is missing or damaged.

    They only say what goes first, so nothing is checked or mended here: the command below does that.
    """
    seconds = {}
    for chapter in CHAPTERS:
        try:
            manifest = json.loads((folder / chapter / "manifest.json").read_text(encoding="utf-8"))
            if manifest["profile"]["name"] != VALUES.name:
                return {}
            seconds[chapter] = float(manifest["cpu_seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
    return seconds


RECORD = ROOT / "profiles" / "seconds.json"
TIMES = json.loads(RECORD.read_text(encoding="utf-8"))["chapters"] if RECORD.is_file() else {}
SECONDS = took(RUN) or took(ROOT / "published") or TIMES.get(VALUES.name) or TIMES.get("quick", {})


def waiting(chapter):
    """Seconds of the longest chain of chapters that begins with this one: it goes first.

    By this run's last time, the published run's or the record; of a profile that has none, by quick's: chapters differ
    alike. Without any, each counts for one.
    """
    own = SECONDS.get(chapter, 1)
    return round(own + max([waiting(later) for later in CHAPTERS if chapter in BEFORE[later]], default=0))


rule all:
    input:
        [str(RUN / chapter / name) for chapter in CHAPTERS for name in ("manifest.json", f"{chapter}.ipynb")],


# The same in one job, without files for Snakemake to move: for executors that share no file system with it (Kubernetes).
# The command itself skips what is up to date.
rule series:
    params:
        command=command("all"),
    threads: int(config.get("threads", 2))
    resources:
        mem_mb=int(config.get("mem_mb", 8000)),
    shell:
        "{params.command}"


for chapter in CHAPTERS:

    rule:
        name:
            f"chapter_{chapter}"
        input:
            inputs(chapter),
        output:
            manifest=update(str(RUN / chapter / "manifest.json")),
            notebook=update(str(RUN / chapter / f"{chapter}.ipynb")),
        params:
            command=command(chapter),
        threads: int(config.get("threads", 2))
        priority: waiting(chapter)
        resources:
            mem_mb=int(config.get("mem_mb", 8000)),
        shell:
            "{params.command}"
