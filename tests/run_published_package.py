"""Run the real `vision-mech-interp-attn-head` on a small random ViT; started by its test in an environment of its own.

Needs transformers 4, peft and the package. torchvision, which it imports for its data set alone, is replaced by
an empty stand-in, and the pre-trained weights, which it would fetch, by a small random model.
"""

import json
import sys
import tempfile
import types
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision"].transforms = types.ModuleType("torchvision.transforms")
sys.modules["torchvision.transforms"] = sys.modules["torchvision"].transforms

from vision_mech_interp_attn_head.ablation_analysis import perform_ablation_analysis  # noqa: E402
from vision_mech_interp_attn_head.evaluation import evaluate_model  # noqa: E402
from vision_mech_interp_attn_head.model import ViTForRegression  # noqa: E402

BATCH, IMAGES = 2, 5
CONFIG = {
    "hidden_size": 21, "num_hidden_layers": 5, "num_attention_heads": 3, "intermediate_size": 13,
    "image_size": 22, "patch_size": 11, "initializer_range": 0.3,
}  # fmt: skip


def main(folder: Path) -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        ViTModel(ViTConfig(**CONFIG), add_pooling_layer=False).save_pretrained(scratch)
        model = ViTForRegression(scratch)
    renamed = {"vit.base_model.model.": "backbone.", "base_layer.": "", "regression_head": "head"}
    weights = {}
    for name, weight in model.state_dict().items():
        if "lora_" not in name and "pooler" not in name:
            for old, new in renamed.items():
                name = name.replace(old, new)
            weights[name] = weight.clone()
    pixels, labels = torch.rand(IMAGES, 3, 22, 22), torch.rand(IMAGES, 3) * 50
    loader = list(zip(pixels.split(BATCH), labels.split(BATCH), strict=True))
    _, baseline, _ = evaluate_model(model, loader)
    with tempfile.TemporaryDirectory() as scratch:
        perform_ablation_analysis(model, loader, scratch)
        losses = pd.read_csv(Path(scratch) / "ablation_results.csv")
        scenarios = [
            torch.tensor(
                pd.read_csv(
                    Path(scratch) / f"scenario_layer_{row.layer:.0f}_head_{row.head:.0f}.csv"
                ).to_numpy()
            )
            for row in losses.itertuples()
        ]
    save_file(weights, folder / "weights.safetensors")
    save_file(
        {
            "pixels": pixels,
            "labels": labels,
            "baseline": torch.tensor(baseline),
            "scenarios": torch.stack(scenarios),
            "losses": torch.tensor(losses["loss"].to_numpy()),
        },
        folder / "run.safetensors",
    )
    settings = {"config": CONFIG, "batch": BATCH, "layers": CONFIG["num_hidden_layers"], "heads": 3}
    (folder / "settings.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
