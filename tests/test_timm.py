"""Models and images of timm and torchvision themselves: `make timm` lays torchvision over the environment."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as T
from PIL import Image
from small_book import ROOT
from torchvision_here import has_torchvision

from vitmech_utils import Study
from vitmech_utils.cli import main
from vitmech_utils.heads.ablation import sweep
from vitmech_utils.heads.pruning import PruningError, load_pruned, prune_heads, save_pruned

if not has_torchvision():
    pytest.skip("needs torchvision: make timm", allow_module_level=True)

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in two folders of four images."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for kind in ("one", "two"):
        (root / kind).mkdir()
        for number in range(4):
            picture = rng.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(picture).save(root / kind / f"{number}.png")
    return root


def test_torchvision_is_the_release_that_goes_with_torch() -> None:
    (asked,) = [
        line for line in (ROOT / "requirements-timm.txt").read_text().splitlines() if line[:1] not in "#"
    ]
    locked = next(
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("torch==")
    )
    minor = int(locked.split(";")[0].split(".")[1])
    assert asked.startswith(f"torchvision==0.{minor + 15}.")
    assert asked == f"torchvision=={version('torchvision').split('+')[0]}"


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2"]
)
def test_a_model_of_timm_s_registry_is_studied_on_torchvision_s_images(
    folder: Path, tmp_path: Path, name: str
) -> None:
    import timm
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=2, **SMALL).eval()
    prepare = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    images = ImageFolder(folder, prepare)
    made = Study(model, torch.utils.data.DataLoader(images, 3), folder=tmp_path / "study", progress=False)
    assert made.labels.tolist() == [0] * 4 + [1] * 4
    pixels = torch.stack([image for image, _ in images])
    expected = sweep(model, pixels, made.labels, "mean", "cross-entropy")
    assert made.ablate()["effect"].to_numpy() == pytest.approx(expected["effect"].to_numpy(), abs=1e-6)
    assert made.report().is_file()
    pruned = prune_heads(model, [(0, 1)], pixel_values=pixels)
    save_pruned(pruned, tmp_path / "pruned", model)
    with pytest.raises(PruningError, match="expected its unpruned model as `origin`"):
        load_pruned(tmp_path / "pruned")
    with torch.no_grad():
        assert torch.equal(load_pruned(tmp_path / "pruned", origin=model)(pixels), pruned(pixels))


def test_torchvision_s_own_vit_is_studied(folder: Path, tmp_path: Path) -> None:
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=2).eval()
    pixels = torch.rand(4, 3, 32, 32)
    made = Study(
        model, pixels, torch.tensor([0, 1, 0, 1]), folder=tmp_path, progress=False, task="cross-entropy"
    )
    assert len(made.ablate()) == 6
    assert made.maps().shape == (4, 2, 3, 4, 4)
    made.report()
    assert any("pruning is refused" in text for text in made.unsaid)


def test_a_folder_of_timm_s_model_in_transformers_is_checked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(0)
    config = T.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", num_labels=2, label2id={"one": 0, "two": 1},
        model_args=dict(SMALL),
    )  # fmt: skip
    T.TimmWrapperForImageClassification(config).save_pretrained(tmp_path / "model")
    assert main(["check", str(tmp_path / "model"), str(folder)]) == 0
    assert "ablation verified; maps verified" in capsys.readouterr().out
