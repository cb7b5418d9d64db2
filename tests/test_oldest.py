"""The oldest releases: `make oldest` lays them over the environment, and the tests then run with those."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest
import small_book
import torch

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.model.regressor import ChirpRegressor

OLDEST = [
    line.split("==")
    for line in (small_book.ROOT / "requirements-oldest.txt").read_text().split()
    if "==" in line
]


def test_make_oldest_runs_the_releases_that_it_names():
    if "oldest" not in Path(os.environ.get("PYTHONPATH", "")).name:
        pytest.skip("the environment's own releases are in place; make oldest runs the oldest")
    assert {name: version(name) for name, _ in OLDEST} == dict(OLDEST)


@pytest.mark.parametrize("name", ["seed-0", "seed-2"])
def test_published_adapters_are_read_and_taken_apart(name):
    folder = small_book.ROOT / "published" / "adapters" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in this clone")
    model = ChirpRegressor.load(folder).merged()
    data = stack(ChirpDataset(2, split="held-out"), 2)
    found = predict_without_heads(model, data["pixel_values"], "zero", layers=[10], heads=[4])
    assert found.method == "replay"
    assert torch.allclose(found.baseline, data["labels"].double(), atol=0.5)
