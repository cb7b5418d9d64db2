"""Attention heads of fine-tuned vision transformers: data, model, interventions and reports of the vitmech book.

What most users need can be imported from here. It is loaded when it is first asked for, so that importing this package
loads no torch.
"""

import importlib
from typing import Any

from vitmech_utils import moved

__version__ = "0.1.0"

_WHERE = {
    "data.chirps": ("Chirp", "paint", "sample_chirp"),
    "data.figures": ("REGIONS", "Style", "draw", "draw_with_matplotlib"),
    "data.dataset": ("ChirpDataset", "FolderDataset", "export_folder", "stack"),
    "data.sweep_labels": ("SweepDataset",),
    "data.recordings": ("RecordingFolder",),
    "tasks": ("Task",),
    "model.anatomy": ("find_blocks",),
    "model.backbones": ("load_backbone",),
    "model.regressor": ("ChirpRegressor",),
    "model.classifier": ("SweepClassifier",),
    "heads.hooks": ("capture_heads", "change_heads"),
    "heads.ablation": ("first_order", "losses_without_heads", "predict_without_heads", "sweep"),
    "heads.effects": ("effects", "loss_changes"),
    "heads.linearized": ("predict_linearized",),
    "heads.sets": ("losses_without_sets", "predict_without_sets", "set_effects"),
    "heads.interactions": ("exact_interactions", "second_order", "shapley_values"),
    "heads.direct": ("direct_effects", "predict_directly"),
    "heads.patching": ("patch_heads", "patched_losses"),
    "heads.attacks": ("attack", "random_noise"),
    "heads.attention": ("attention_maps", "attention_statistics", "region_shares"),
    "heads.sinks": ("find_sinks",),
    "heads.semantics": ("classify",),
    "heads.pruning": ("load_pruned", "prune_heads", "save_pruned"),
    "report.picker": ("HeadPicker",),
    "report.claims": ("scoreboard",),
    "runs": ("open_chapter",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}
__all__ = ["__version__", *_HOME]

moved.forward_old_paths()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
