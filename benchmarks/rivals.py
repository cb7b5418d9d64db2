"""The rivals that may or may not be installed, run on our model as their own documentation runs them."""

import contextlib
import importlib
import io
import sys
import tempfile
import types
from unittest import mock

import numpy as np
import torch
from torch import nn

from vitmech_utils.model.anatomy import find_blocks

# What `make bench` fetches, without dependencies, into a folder beside the environment.
PACKAGES = ("chirp-spectrogram-generator==0.1.6", "vision-mech-interp-attn-head==0.1.8", "nnsight==0.8.1")


def package_predictions(model: nn.Module, pixels: torch.Tensor) -> np.ndarray:
    """Run the published package's `perform_ablation_analysis` over one batch; [scenario, image, target].

    Its weight edits stay in `model` until the end and are then undone. Its loop, forward pass and evaluation are its
    own; only its names for the parts of a ViT are led to ours, and its CSV files go to a scratch folder.
    """
    analysis, regression, evaluation = _published_modules()
    shown, predictions = _as_published(model, regression.ViTForRegression), []

    def evaluate(*arguments: object, **keywords: object) -> tuple:
        found = evaluation.evaluate_model(*arguments, **keywords)
        predictions.append(found[1])
        return found

    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    targets = torch.zeros(len(pixels), 3)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(analysis, "evaluate_model", evaluate),
    ):
        analysis.perform_ablation_analysis(shown, [(pixels, targets)], folder)
    model.load_state_dict(kept)
    return np.stack(predictions)


def nnsight_predictions(model: nn.Module, pixels: torch.Tensor) -> np.ndarray:
    """nnsight: one trace per head, its columns of the output projection's input set to zero; [head, image, target]."""
    from nnsight import NNsight

    anatomy, wrapped, found = find_blocks(model), NNsight(model), []
    for layer in range(anatomy.layers):
        for head in range(anatomy.heads):
            columns = anatomy.columns(head)
            with torch.inference_mode(), wrapped.trace(pixels):
                wrapped.backbone.encoder.layer[layer].attention.o_proj.input[:, :, columns] = 0
                logits = wrapped.head.output.save()
            found.append(logits.numpy())
    return np.stack(found)


def _published_modules() -> list[types.ModuleType]:
    """Import the package; torchvision and seaborn, which it wants for reading files and plots, are stood in for."""
    import peft  # noqa: F401  # before the stand-ins, so that no other package meets them
    from transformers import ViTModel  # noqa: F401

    stand_ins = {
        name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms", "seaborn")
    }
    stand_ins["torchvision"].transforms = stand_ins["torchvision.transforms"]
    absent = [name for name in stand_ins if name not in sys.modules]
    sys.modules.update({name: stand_ins[name] for name in absent})
    try:
        package = "vision_mech_interp_attn_head"
        return [
            importlib.import_module(f"{package}.{part}")
            for part in ("ablation_analysis", "model", "evaluation")
        ]
    finally:
        for name in absent:
            del sys.modules[name]


def _as_published(model: nn.Module, published: type[nn.Module]) -> nn.Module:
    """Our model behind the published class's own `forward`, under the names that it uses."""
    anatomy = find_blocks(model)
    layers = [
        types.SimpleNamespace(
            attention=types.SimpleNamespace(
                attention=types.SimpleNamespace(
                    key=block.key.linear, value=block.value.linear, query=block.query.linear
                )
            )
        )
        for block in anatomy.blocks
    ]

    class Vit(nn.Module):
        encoder = types.SimpleNamespace(layer=layers)
        config = types.SimpleNamespace(num_attention_heads=anatomy.heads)

        def forward(self, pixel_values: torch.Tensor) -> object:
            return model.backbone(pixel_values=pixel_values)

    shown = published.__new__(published)
    nn.Module.__init__(shown)
    shown.vit, shown.regression_head, shown.device = Vit(), model.head, next(model.parameters()).device
    return shown.eval()
