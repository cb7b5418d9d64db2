"""Attention heads of fine-tuned vision transformers: data, model, interventions and reports of the vitmech book.

What most users need can be imported from here. It is loaded when it is first asked for, so that importing this package
loads no torch.
"""

import importlib
from typing import Any

from vitmech_utils import moved  # noqa: F401 (lets imports by old paths find their modules)
from vitmech_utils.version import __version__

_WHERE = {
    "Chirp": "data.chirps",
    "paint": "data.chirps",
    "sample_chirp": "data.chirps",
    "REGIONS": "data.figures",
    "Style": "data.figures",
    "draw": "data.figures",
    "draw_with_matplotlib": "data.figures",
    "ChirpDataset": "data.dataset",
    "FolderDataset": "data.dataset",
    "export_folder": "data.dataset",
    "stack": "data.dataset",
    "SweepDataset": "data.sweep_labels",
    "RecordingFolder": "data.recordings",
    "Task": "tasks",
    "find_blocks": "model.anatomy",
    "load_backbone": "model.backbones",
    "ChirpRegressor": "model.regressor",
    "SweepClassifier": "model.classifier",
    "capture_heads": "heads.hooks",
    "change_heads": "heads.hooks",
    "first_order": "heads.ablation",
    "losses_without_heads": "heads.ablation",
    "predict_without_heads": "heads.ablation",
    "sweep": "heads.ablation",
    "effects": "heads.effects",
    "loss_changes": "heads.effects",
    "predict_linearized": "heads.linearized",
    "losses_without_sets": "heads.sets",
    "predict_without_sets": "heads.sets",
    "set_effects": "heads.sets",
    "exact_interactions": "heads.interactions",
    "second_order": "heads.interactions",
    "shapley_values": "heads.interactions",
    "direct_effects": "heads.direct",
    "predict_directly": "heads.direct",
    "patch_heads": "heads.patching",
    "patched_losses": "heads.patching",
    "attack": "heads.attacks",
    "random_noise": "heads.attacks",
    "attention_maps": "heads.attention",
    "attention_statistics": "heads.attention",
    "region_shares": "heads.attention",
    "find_sinks": "heads.sinks",
    "classify": "heads.semantics",
    "load_pruned": "heads.pruning",
    "prune_heads": "heads.pruning",
    "save_pruned": "heads.pruning",
    "Study": "study",
    "check_heads": "heads.check",
    "Heads": "model.told_heads",
    "tell_heads": "model.told_heads",
    "HeadPicker": "report.picker",
    "PickerData": "report.picker",
    "scoreboard": "report.claims",
    "open_chapter": "runs",
}
"""Names, and the modules that define them."""
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
