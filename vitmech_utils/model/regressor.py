"""The chirp regressor: a ViT with LoRA adapters, and a small head that reads three numbers off its CLS token."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from vitmech_utils import __version__
from vitmech_utils.arguments import checked_arguments, shown
from vitmech_utils.data.chirps import LABEL_MEAN, LABEL_NAMES, LABEL_STD
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.model.adapter_files import (
    ADAPTER,
    CARD,
    CONFIG,
    HEAD,
    LARGEST_TRAINING,
    SETTINGS,
    TRAINING,
    check_config,
    check_settings,
    check_weights,
    lora_of,
    read_object,
    read_settings,
    read_weights,
)
from vitmech_utils.model.anatomy import AnatomyError, find_blocks
from vitmech_utils.model.backbones import DEFAULT, BackboneError, load_backbone, tiny
from vitmech_utils.model.cards import card
from vitmech_utils.model.lora import (
    STUDY,
    AdapterError,
    LoraSettings,
    lora_config,
    name_for,
    settings_of,
    weights_fingerprint,
    wrap,
)
from vitmech_utils.own_folders import restore_folder, write_folder
from vitmech_utils.tasks import Task, squared_error

IMAGE_SIZE = 224
NEEDED = (SETTINGS, ADAPTER, HEAD, CONFIG)
FILES = (*NEEDED, TRAINING, CARD)
"""All that an adapter folder holds; a folder with anything else in it was not written by `save`."""


@dataclass(init=False)
class Prediction(ModelOutput):
    """What the regressor returns: standardized predictions, and the loss where labels were given."""

    loss: Tensor | None = None
    logits: Tensor | None = None

    def __init__(
        self, loss: Tensor | Mapping[str, Tensor] | None = None, logits: Tensor | None = None
    ) -> None:
        """Take both, or one mapping of both: so accelerate makes an output anew where it trains in bfloat16."""
        given = loss if isinstance(loss, Mapping) else {"loss": loss, "logits": logits}
        self.loss, self.logits = given.get("loss"), given.get("logits")
        self.__post_init__()


class ChirpRegressor(nn.Module):
    """A ViT backbone and a 256-128-3 regression head on the CLS token of its last hidden state.

    Predictions are standardized start time, start frequency and end frequency (dimensionless); `seconds_and_hertz`
    converts them. Make one with `build` or `load`, not through the constructor.

    A model for another task is a subclass: it names the task that its heads are judged by, what its adapter is trained
    for, and how far predictions are from labels.
    """

    task: ClassVar[Task] = squared_error(LABEL_NAMES, chance=1.0, regions=REGIONS)
    trained_for: ClassVar[str] = "regression"

    def __init__(self, backbone: nn.Module, backbone_name: str, fingerprint: str | None = None):
        super().__init__()
        self.backbone = backbone
        self.backbone_name = backbone_name
        self.fingerprint = fingerprint or weights_fingerprint(backbone)
        self.head = nn.Sequential(
            nn.Linear(backbone.config.hidden_size, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, len(self.task.targets)),
        )

    @classmethod
    @checked_arguments()
    def build(
        cls,
        backbone: str | PreTrainedModel = DEFAULT,
        lora: LoraSettings | None = STUDY,
        attention: str = "sdpa",
        seed: int = 0,
    ) -> ChirpRegressor:
        """Wrap a backbone (a name for `load_backbone`, or a loaded model) with fresh LoRA adapters and a fresh head.

        `lora=None` freezes the whole backbone and trains the head alone. `seed` sets the initial weights.
        """
        name = (
            backbone
            if isinstance(backbone, str)
            else (backbone.config.name_or_path or backbone.config.model_type)
        )
        model = load_backbone(backbone, attention) if isinstance(backbone, str) else backbone
        refuse_without_cls(model, name)
        fingerprint = weights_fingerprint(model)
        model.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if lora is not None:
                model = wrap(model, lora_config(model, lora))
            return cls(model, name, fingerprint).eval()

    @classmethod
    @checked_arguments()
    def tiny(cls, seed: int = 0, layers: int = 12, heads: int = 12) -> ChirpRegressor:
        """A merged random regressor of 12 x 12 heads, for unit tests alone."""
        return cls.build(tiny(seed, layers, heads), lora=None, seed=seed)

    def forward(
        self,
        pixel_values: Float[Tensor, "image 3 height width"],
        labels: Float[Tensor, "image target"] | None = None,
    ) -> Prediction:
        """Predict standardized labels [image, target]; with `labels`, also the loss: their mean squared error.

        Raises ValueError for images or labels of another shape.
        """
        for name, values in (("pixel_values", pixel_values), ("labels", labels)):
            if not (isinstance(values, Tensor) or (values is None and name == "labels")):
                raise ValueError(f"{name} is {shown(values)}, expected a torch tensor")
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, expected [image, 3, {IMAGE_SIZE}, {IMAGE_SIZE}]: "
                f"resize the images to {IMAGE_SIZE} x {IMAGE_SIZE} pixels"
            )
        if labels is not None and labels.shape != (len(pixel_values), len(self.task.targets)):
            expected = len(pixel_values), len(self.task.targets)
            raise ValueError(
                f"labels has shape {tuple(labels.shape)}, expected {expected}: one row per image, one column per target"
            )
        hidden = self.backbone(pixel_values=pixel_values).last_hidden_state
        logits = self.head(hidden[:, 0])
        loss = None if labels is None else self.distance(logits.float(), labels.float())
        return Prediction(loss=loss, logits=logits)

    @staticmethod
    def distance(logits: Float[Tensor, "image target"], labels: Float[Tensor, "image target"]) -> Tensor:
        """What the training minimizes: here the mean squared error."""
        return nn.functional.mse_loss(logits, labels)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head[0].weight.device

    @property
    def is_merged(self) -> bool:
        """True where no LoRA adapter stands beside the weights, as every analysis of heads requires."""
        return not isinstance(self.backbone, PeftModel)

    def merged(self) -> ChirpRegressor:
        """A copy in evaluation mode whose LoRA updates are added to the weights; `self` stays as it is."""
        twin = copy.deepcopy(self)
        if not twin.is_merged:
            twin.backbone = twin.backbone.merge_and_unload(safe_merge=True)
        return twin.requires_grad_(False).eval()

    def without_adapter(self) -> ChirpRegressor:
        """A copy whose backbone is the pre-trained one again, under the same (fine-tuned) head."""
        twin = copy.deepcopy(self)
        if twin.is_merged:
            twin.backbone = load_backbone(self.backbone_name)
        else:
            twin.backbone = twin.backbone.unload()
        return twin.requires_grad_(False).eval()

    def untrained_twin(self, seed: int = 0) -> ChirpRegressor:
        """The same architecture with random weights throughout, on the same device; `self` stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = type(self.backbone)(self.backbone.config)
        return type(self).build(backbone, lora=None, seed=seed).to(self.device)

    @checked_arguments(AdapterError)
    def save(self, folder: Path | str, training: dict | None = None) -> Path:
        """Write the adapter folder: peft's two files, the head, settings and a card; safetensors and text alone.

        `training` is a record of how it was made and how it scores, kept beside it as `training.json` (see
        `read_training`). The folder appears whole or not at all. One that is there is replaced only where an earlier
        `save` wrote it and nothing else lies in it. Raises `AdapterError` for a merged model, weights that are not
        finite, an adapter of another make than `build`'s, and a folder that holds anything else.
        """
        if self.is_merged:
            raise AdapterError(
                "this regressor is merged, its adapter no longer exists; save the model before .merged()"
            )
        if find_blocks(self).pruned:
            raise AdapterError(
                "this regressor is pruned, and an adapter alone does not record its heads; call .merged() and save it "
                "with vitmech_utils.heads.pruning.save_pruned"
            )
        made = self.backbone.peft_config["default"]
        check_config(self.backbone, made.to_dict(), settings_of(made), "this regressor's adapter")
        adapter = get_peft_model_state_dict(self.backbone)
        files = {
            name: {key: value.detach().cpu().contiguous() for key, value in state.items()}
            for name, state in ((ADAPTER, adapter), (HEAD, self.head.state_dict()))
        }
        for weights in files.values():
            check_weights("this regressor", weights)

        def fill(ready: Path) -> None:
            for name, weights in files.items():
                save_file(weights, ready / name, metadata={"format": "pt"})
            config = copy.deepcopy(made)
            config.base_model_name_or_path, config.inference_mode = self.backbone_name, True
            if not isinstance(
                config.target_modules, str
            ):  # peft keeps a set, whose order changes from run to run
                config.target_modules = sorted(config.target_modules)
            config.save_pretrained(ready)
            (ready / SETTINGS).write_text(json.dumps(self._settings(), indent=2) + "\n")
            (ready / CARD).write_text(card(self._settings(), training), encoding="utf-8")
            if training is not None:
                (ready / TRAINING).write_text(json.dumps(training, indent=2) + "\n")

        return write_folder(folder, fill, FILES, {SETTINGS}, AdapterError)

    @classmethod
    @checked_arguments(AdapterError)
    def load(cls, folder: Path | str, backbone: str | None = None, attention: str = "sdpa") -> ChirpRegressor:
        """Read an adapter folder onto its backbone, strictly; `backbone` says where to find it if it has moved.

        Raises `AdapterError`, which names the folder, where a file is missing or damaged, where two of them say
        different things or one holds what `save` never writes, where the adapter was trained on another backbone (the
        error names both) or for another task, and where a weight has no counterpart or is not finite. Raises
        `BackboneError` where the backbone cannot be had.
        """
        folder = restore_folder(Path(folder))
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise AdapterError(
                f"{folder}: not an adapter folder, it lacks {', '.join(missing)}. Train one with chapter 02 "
                "(vitmech run 02), or use the published one."
            )
        settings = read_settings(folder)
        if (task := settings["task"]) != cls.trained_for:
            raise AdapterError(
                f"{folder}: this adapter was trained for {task}, and a {cls.__name__} is for {cls.trained_for}; "
                "name an adapter of that task, or load it with the class that it was made by"
            )
        check_settings(folder, settings, cls._fixed_settings())
        lora, config = lora_of(folder, settings), read_object(folder / CONFIG)
        name = backbone or settings["backbone"]
        try:
            model = load_backbone(name, attention)
        except BackboneError as error:
            raise BackboneError(f"{folder}: {error}") from error
        if (fingerprint := weights_fingerprint(model)) != settings["backbone_fingerprint"]:
            raise AdapterError(
                f"{folder}: this adapter was trained on backbone {settings['backbone']!r} (fingerprint "
                f"{settings['backbone_fingerprint'][:12]}), but {name!r} was loaded (fingerprint {fingerprint[:12]}). "
                "Name the backbone that it was trained on, or train an adapter for this one."
            )
        check_config(model, config, lora, folder / CONFIG)
        model.requires_grad_(False)
        regressor = cls(wrap(model, lora_config(model, lora)), settings["backbone"], fingerprint)
        expected = get_peft_model_state_dict(regressor.backbone)
        adapter = read_weights(folder / ADAPTER, expected, name_for(model))
        head = read_weights(folder / HEAD, regressor.head.state_dict())
        set_peft_model_state_dict(regressor.backbone, adapter)
        regressor.head.load_state_dict(head, strict=True)
        return regressor.eval()

    @classmethod
    def label_settings(cls) -> dict:
        """What the saved settings say of the labels; for the regressor, how to standardize them."""
        return {
            "label_mean": [float(x) for x in LABEL_MEAN],
            "label_std": [float(x) for x in LABEL_STD],
        }

    @classmethod
    def _fixed_settings(cls) -> dict:
        return {"image_size": IMAGE_SIZE, "labels": list(cls.task.targets), **cls.label_settings()}

    def _settings(self) -> dict:
        return {
            "task": self.trained_for,
            "backbone": self.backbone_name,
            "backbone_fingerprint": self.fingerprint,
            **self._fixed_settings(),
            "lora": asdict(settings_of(self.backbone.peft_config["default"])),
            "versions": {
                **{name: version(name) for name in ("torch", "transformers", "peft")},
                "vitmech-utils": __version__,  # its code may lie beside an environment that it was not installed in
            },
        }


def refuse_without_cls(backbone: nn.Module, name: str) -> None:
    """Raise `BackboneError` for a backbone whose first token is a patch (SigLIP, I-JEPA)."""
    with contextlib.suppress(AnatomyError):
        if find_blocks(backbone).prefix == 0:
            raise BackboneError(
                f"backbone {name!r} has no CLS token, and the head reads the first one: a patch in a corner. "
                "Take a backbone with one (ViT, DeiT, DINOv2, CLIP), or analyse your own model: vitmech study"
            )


@checked_arguments()
def seconds_and_hertz(standardized: Float[Tensor, "*image 3"]) -> Float[Tensor, "*image 3"]:
    """Convert standardized labels or predictions to seconds, hertz and hertz."""
    mean, std = (
        torch.as_tensor(x, dtype=standardized.dtype, device=standardized.device)
        for x in (LABEL_MEAN, LABEL_STD)
    )
    return standardized * std + mean


@checked_arguments(AdapterError)
def read_training(folder: Path | str) -> dict:
    """The record of an adapter's training: profile, steps, images, device, wall time, history, score.

    Raises `AdapterError` where the adapter folder holds none, or one that is damaged.
    """
    path = Path(folder) / TRAINING
    if not path.is_file():
        raise AdapterError(f"{path} does not exist: this adapter was saved without a record of its training")
    return read_object(path, LARGEST_TRAINING, unknown=True)  # a history holds NaN where nothing was taken
