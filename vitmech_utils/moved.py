"""Modules that moved: an import by the path of an earlier version goes to the new one, with a warning."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = __name__.partition(".")[0]
MOVED = {
    "manifests": "runs.manifests",
    "data.boxes": "data.recordings.boxes",
    "data.colour_bar": "data.lettering",
    "data.ink": "data.lettering",
    "data.matched": "studies.recordings.matched",
    "data.real_signals": "studies.recordings.sources",
    "heads.attack_trials": "studies.attacks.measure",
    "heads.attention_sinks": "heads.sinks",
    "heads.attention_weights": "heads.check",
    "heads.by_image": "heads.attention",
    "heads.class_effects": "heads.effects",
    "heads.enough": "heads.stopping",
    "heads.layers": "studies.ablation.measure",
    "heads.origin": "studies.origin.measure",
    "heads.pruning_choices": "studies.pruning.choices",
    "heads.pruning_means": "heads.pruning",
    "heads.pruning_trials": "studies.pruning.measure",
    "heads.semantics_twins": "studies.semantics.measure",
    "heads.shapley": "heads.interactions",
    "heads.shared_order": "heads.rank_agreement",
    "model.classifier_score": "model.scores",
    "model.readout": "model.classifier",
    "model.regressor_score": "model.scores",
    "model.updates": "model.lora",
}
"""Where modules were, and where what they hold is now."""


class _Forward(MetaPathFinder, Loader):
    """Asked after all others, so that it sees only what is not there; the new module answers for the old one."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        known = name.startswith(f"{PACKAGE}.") and name.removeprefix(f"{PACKAGE}.") in MOVED
        return ModuleSpec(name, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        old = spec.name.removeprefix(f"{PACKAGE}.")
        new = f"{PACKAGE}.{MOVED[old]}"
        warnings.warn(f"{spec.name} is now {new}: import it from there", DeprecationWarning, stacklevel=2)
        forwarding = ModuleType(spec.name, f"Forwards to {new}.")
        forwarding.__getattr__ = lambda name: getattr(importlib.import_module(new), name)
        return forwarding

    def exec_module(self, _module: ModuleType) -> None:
        """Nothing: names are looked up in the new module when they are asked for."""


if not any(type(finder).__name__ == _Forward.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_Forward())
