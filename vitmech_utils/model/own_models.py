"""Models of one's own from a folder, a hub id, or a base and its adapter; loaded strictly, without remote code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig

from vitmech_utils.model.backbones import DAMAGED, BackboneError, load_backbone, without_progress_bars
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.lora import AdapterError
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.strict_text import read_json

OWN_ADAPTER, PEFT_ADAPTER = "regressor.json", "adapter_config.json"


class Answering(nn.Module):
    """A model with a function of what it returns for its answer."""

    def __init__(self, model: nn.Module, output: Callable[[object], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The answer [image, ...]; `ValueError` where the function gives anything but a tensor of one row per image."""
        found = self.output(self.model(pixel_values))
        if not isinstance(found, Tensor) or found.ndim == 0 or len(found) != len(pixel_values):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"output= gives {what} for {len(pixel_values)} image(s), expected a tensor [image, ...]"
            )
        return found


def load_own_model(
    source: nn.Module | str | Path | tuple, output: Callable[[object], Tensor] | None = None
) -> nn.Module:
    """A model in evaluation mode, adapters merged: a module, a folder or hub id, or (base, adapter folder).

    Folders are those of transformers (`save_pretrained`, with the architecture that config.json names), of this
    package's adapters, or a peft adapter beside its base. `output` makes the answer of what the model returns. Raises
    `BackboneError` or `AdapterError`, which name the folder and what is missing.
    """
    if isinstance(source, nn.Module):
        model = source
    elif isinstance(source, tuple):
        if len(source) != 2:
            raise BackboneError(f"model is a tuple of {len(source)}, expected (base, adapter folder)")
        model = _with_adapter(_whole(source[0]), Path(source[1]))
    else:
        model = _whole(source)
    model = model if output is None else Answering(model, output)
    return model.eval()


def class_names(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's classes in order, as its configuration tells them; none where it tells none."""
    config = next(
        (m.config for m in model.modules() if hasattr(getattr(m, "config", None), "id2label")), None
    )
    names = getattr(config, "id2label", None) or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _whole(source: str | Path | nn.Module) -> nn.Module:
    if isinstance(source, nn.Module):
        return source
    name, folder = str(source), Path(source).expanduser()
    if folder.is_dir():
        if (folder / OWN_ADAPTER).is_file():
            task = read_json(folder / OWN_ADAPTER).get("task", "regression")
            kind = SweepClassifier if task == SweepClassifier.trained_for else ChirpRegressor
            return kind.load(folder).merged()
        if (folder / PEFT_ADAPTER).is_file() and not (folder / "config.json").is_file():
            raise AdapterError(
                f"{folder}: an adapter alone; pass it with the model that it was trained on: (base, {folder.name!r})"
            )
        if not (folder / "config.json").is_file():
            raise BackboneError(f"{folder}: no config.json in it, expected a folder of save_pretrained")
        name = str(folder)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        architecture = next(iter(config.architectures or []), "")
        if "For" not in architecture and "WithProjection" not in architecture:
            return load_backbone(name)
        kind = getattr(transformers, architecture, None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise BackboneError(
                f"{name}: its architecture {architecture!r} is none of transformers; load it yourself"
            )
        with without_progress_bars():
            model, report = kind.from_pretrained(
                name, config=config, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
    except BackboneError:
        raise
    except DAMAGED as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise BackboneError(
            f"{name}: could not be loaded ({first}). Expected a folder of save_pretrained"
        ) from error
    absent = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if absent or report.get("mismatched_keys"):
        raise BackboneError(
            f"{name}: its checkpoint lacks, or has in another shape, {', '.join(absent[:3]) or 'some weights'}, which "
            "would be random. Save the whole model (save_pretrained)"
        )
    return model


def _with_adapter(base: nn.Module, folder: Path) -> nn.Module:
    from peft import PeftModel

    folder = folder.expanduser()
    if not (folder / PEFT_ADAPTER).is_file():
        raise AdapterError(f"{folder}: no {PEFT_ADAPTER} in it, expected a folder of a peft adapter")
    if not list(folder.glob("*.safetensors")):
        raise AdapterError(f"{folder}: no safetensors in it; other files of weights are not read")
    try:
        wrapped = PeftModel.from_pretrained(base, str(folder))
        return wrapped.merge_and_unload(safe_merge=True)
    except DAMAGED as error:
        raise AdapterError(
            f"{folder}: does not fit its base ({(str(error).splitlines() or ['?'])[0][:200]})"
        ) from error
