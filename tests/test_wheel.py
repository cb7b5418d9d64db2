"""The package in an environment of its own, away from any clone: what its users install and import."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from small_book import ROOT

SWEEP = """
import vitmech_utils, torch
from pathlib import Path
from vitmech_utils.heads.ablation import sweep
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.report.picker import HeadPicker
model = ChirpRegressor.tiny(seed=0, layers=2, heads=2)
images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
table = sweep(model, images, torch.zeros(2, 3), "zero", bootstrap=10)
print(Path(vitmech_utils.__file__).parent)
print(len(table), bool(HeadPicker._esm), bool(HeadPicker._css))
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the package's wheel and, by a path file, the packages that it depends on."""
    folder = tmp_path_factory.mktemp("foreign")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    shutil.copytree(
        ROOT / "vitmech_utils", source / "vitmech_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True
    )
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "-q", "--no-deps", wheel], check=True)
    # Only the folder itself: path files inside it, such as that of an editable clone, are not followed.
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def call(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.pipeline
@pytest.mark.slow
def test_the_wheel_works_without_a_clone(foreign: Path, tmp_path: Path) -> None:
    done = call(foreign, "-c", SWEEP, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    where, found = done.stdout.splitlines()
    assert Path(where).is_relative_to(foreign.parents[1])
    assert found == "4 True True"


@pytest.mark.pipeline
@pytest.mark.slow
def test_the_command_says_that_it_needs_a_clone(foreign: Path, tmp_path: Path) -> None:
    done = call(foreign, "-m", "vitmech_utils.cli", "run", "01", cwd=tmp_path)
    assert done.returncode != 0
    assert "no clone of the book found" in done.stderr
    assert "VITMECH_ROOT" in done.stderr
    assert "Traceback" not in done.stderr


OWN = """
import json, torch
from pathlib import Path
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
torch.manual_seed(0)
for place, name in enumerate(("dark", "bright")):
    for number in range(2):
        Path("images", name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (200 * place + number,) * 3).save(Path("images", name, f"{number}.png"))
shape = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=48)
model = ViTForImageClassification(ViTConfig(**shape, image_size=32, patch_size=8, num_labels=2))
model.save_pretrained("own")
size = {"height": 32, "width": 32}
mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
settings = {"image_processor_type": "ViTImageProcessor", "size": size, **mean}
Path("own", "preprocessor_config.json").write_text(json.dumps(settings))
"""


@pytest.mark.pipeline
@pytest.mark.slow
def test_the_command_checks_a_model_of_one_s_own_without_a_clone(foreign: Path, tmp_path: Path) -> None:
    assert call(foreign, "-c", OWN, cwd=tmp_path).returncode == 0
    done = call(foreign, "-m", "vitmech_utils.cli", "check", "own", "images", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "3 x 3" in done.stdout
    assert "Traceback" not in done.stderr
