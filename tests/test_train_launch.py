"""Training under `accelerate launch`: two processes, one result, chapter 02 goes on from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import vitmech
from safetensors.torch import load_file
from small_book import ROOT, write_notebook
from test_model_finetune import weights as trained_weights
from train_in_parts import train

from vitmech_utils.model.regressor import ChirpRegressor

pytestmark = pytest.mark.slow
# Flags that stand for `accelerate launch --num_processes 2` on a machine with two GPUs: here both are processors.
LAUNCH = [
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
]


def launch(*arguments: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "--main_process_port=0"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    """The same images in every batch and the same averaged gradients: equal but for the order of sums."""
    done = launch(ROOT / "tests" / "train_in_parts.py", tmp_path / "two", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (load_file(tmp_path / f"weights-{rank}.safetensors") for rank in (0, 1))
    one, history = train(tmp_path / "one")
    start = trained_weights(ChirpRegressor.build("tiny"))
    for name, weight in trained_weights(one).items():
        assert torch.equal(first[name], second[name]), name
        moved = (weight - start[name]).abs().max()
        assert moved > 0, name
        assert (first[name] - weight).abs().max() < 0.02 * moved + 1e-6, name
    both = pd.read_json(tmp_path / "history-0.json")
    assert list(both["step"]) == list(history["step"])
    kept = json.loads((tmp_path / "two" / "checkpoint-12" / "trainer_state.json").read_text())
    assert kept["train_batch_size"] == 3  # each process's share of 6


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path, small: Path) -> None:
    write_notebook(small / "notebooks" / "02_lora_fine_tuning.ipynb", "02_lora_fine_tuning", ["print(1)"])
    values = ["-p", "backbone=tiny", "-p", "train.batch_size=3"]
    done = launch("-m", "vitmech_utils.train", "--profile", "quick", *values, root=small)
    assert done.returncode != 0
    assert "batch_size is 3, expected a multiple of the 2 processes" in done.stderr
    assert not list((small / "results" / "quick").glob("02*"))


def test_chapter_02_goes_on_from_what_was_launched(small: Path) -> None:
    cells = [
        "from vitmech_utils.model.finetune import fine_tune_profile",
        'folder = chapter.checkpoints / "seed-0"\n'
        "training = fine_tune_profile(chapter.profile, 0, folder, chapter.device)\n"
        'training.regressor.save(chapter.folder / "adapter")\n'
        'chapter.save_json(training.history["step"].tolist(), "steps")',
    ]
    write_notebook(small / "notebooks" / "02_lora_fine_tuning.ipynb", "02_lora_fine_tuning", cells)
    (small / "notebooks" / "02_second.ipynb").unlink()
    values = ["-p", "backbone=tiny", "-p", "train.images=16", "-p", "train.batch_size=4", "-p", "device=cpu"]
    done = launch("-m", "vitmech_utils.train", "--profile", "quick", *values, root=small)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("Trained.") == 1  # the first process alone speaks and writes
    run = small / "results" / "quick"
    assert not (run / "02_lora_fine_tuning").exists()
    (checkpoints,) = (run / ".checkpoints").glob("02_lora_fine_tuning-*/seed-0")
    kept = sorted(checkpoints.iterdir())
    assert [path.name for path in kept] == ["checkpoint-2", "checkpoint-4"]
    launched = [load_file(path / "model.safetensors") for path in kept]
    done = vitmech("run", "02", *values, root=small)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "02_lora_fine_tuning" / "steps.json").read_text())[-1] == 4
    assert not checkpoints.exists()  # the chapter is finished
    head = load_file(run / "02_lora_fine_tuning" / "adapter" / "head.safetensors")
    assert any(
        all(torch.equal(head[name], weights[f"head.{name}"]) for name in head) for weights in launched
    )  # dropout differs from process to process: these can only be the launched training's
    again = launch("-m", "vitmech_utils.train", "--profile", "quick", *values, root=small)
    assert "up to date" in again.stdout
