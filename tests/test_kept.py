"""Images kept as parts: put together, they are the drawn ones, bit for bit."""

import numpy as np
import pytest
import torch

from vitmech_utils.data import kept
from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.data.kept import KeptImages, keep
from vitmech_utils.data.sweep_labels import SweepDataset


def variants(size, **keywords):
    return {
        "published": ChirpDataset(size, **keywords),
        "bare": ChirpDataset(size, style="bare", **keywords),
        "titled": SweepDataset(size, "published", **keywords),
        "untitled": SweepDataset(size, "none", **keywords),
    }


@pytest.mark.parametrize("name", ["published", "bare", "titled", "untitled"])
def test_kept_images_are_the_drawn_ones(tmp_path, name, monkeypatch):
    monkeypatch.setattr(kept, "PART", 5)
    images = variants(13, seed=3, hard_share=0.4)
    keep(tmp_path, images["published"], processes=2)
    monkeypatch.setattr(kept, "parts", None)  # nothing is drawn any more
    again = KeptImages(images[name], tmp_path)
    batch = stack(again, 13)
    assert batch["pixel_values"].dtype == torch.uint8
    drawn = stack(images[name], 13)
    assert torch.equal(again.compose(batch["pixel_values"]), drawn["pixel_values"])
    assert torch.equal(batch["labels"], drawn["labels"])


@pytest.mark.parametrize("name", ["published", "untitled"])
def test_titles_with_long_numbers_and_images_that_are_not_kept(tmp_path, name):
    images = variants(99_999, seed=5, split="held-out")[name]
    chosen = [3, 98_765, 99_998]
    again = KeptImages(images, tmp_path)
    found = again.compose(torch.stack([again[i]["pixel_values"] for i in chosen]))
    assert torch.equal(found, torch.stack([images[i]["pixel_values"] for i in chosen]))


def test_another_style_and_a_finished_file(tmp_path):
    with pytest.raises(ValueError, match="untitled or the bare style"):
        KeptImages(ChirpDataset(2, style="moved"), tmp_path)
    images = ChirpDataset(2, seed=1)
    path = keep(tmp_path, images, processes=1)
    made = path.stat().st_mtime_ns
    assert keep(tmp_path, images) == path
    assert path.stat().st_mtime_ns == made
    assert np.load(path).shape == (2, kept.SIZE)
