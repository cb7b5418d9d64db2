"""Recoveries that are kept: a LoRA adapter on a model without some of its heads, as small as any adapter.

A recovered model is four things: the whole model that heads were removed from, which heads, an adapter and the
regression head. The first is an adapter folder of its own, so a kept recovery holds the other three, and says by its
weights' fingerprint which whole model it goes on.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.pruning import prune_heads, recovering
from vitmech_utils.model.adapter_files import AdapterError, check_weights, read_object, read_weights
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.lora import weights_fingerprint
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import ANSWERS
from vitmech_utils.own_folders import restore_folder, write_folder

ADAPTER, HEAD, RECORD = "adapter_model.safetensors", "head.safetensors", "recovery.json"
FILES = (ADAPTER, HEAD, RECORD)
LARGEST_RECORD = 1 << 18  # bytes


@checked_arguments(AdapterError)
def save_recovery(
    recovered: ChirpRegressor,
    whole: ChirpRegressor,
    gone: Iterable[Head],
    folder: Path | str,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write what a further training of `recovering(prune_heads(whole, gone))` learned; returns the folder.

    `recovered` still carries its adapter; `whole` is the merged model that the heads were removed from. `gone` are
    pairs of layer and head, from 0, none for the control. `training` is a record kept beside it. The folder appears
    whole or not at all. Raises `AdapterError` for a merged model, for one that lacks other heads than `gone`, for
    weights that are not finite, and for a folder that holds anything else.
    """
    gone = sorted((int(layer), int(head)) for layer, head in gone)
    if recovered.is_merged:
        raise AdapterError("this model is merged, its adapter no longer exists; keep it before .merged()")
    expected, found = _kept(prune_heads(whole, gone) if gone else whole), _kept(recovered)
    if found != expected:
        raise AdapterError(f"this model keeps the heads {found}, and without {gone} it would keep {expected}")
    files = {
        ADAPTER: get_peft_model_state_dict(recovered.backbone),
        HEAD: recovered.head.state_dict(),
    }
    files = {
        name: {key: value.detach().cpu().contiguous() for key, value in state.items()}
        for name, state in files.items()
    }
    for weights in files.values():
        check_weights("this model", weights)
    record = {
        "whole_fingerprint": weights_fingerprint(whole),
        "heads_gone": [list(head) for head in gone],
        "training": dict(training or {}),
    }

    def fill(ready: Path) -> None:
        for name, weights in files.items():
            save_file(weights, ready / name, metadata={"format": "pt"})
        (ready / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    return write_folder(folder, fill, (*FILES, ANSWERS), {RECORD}, AdapterError)


@checked_arguments(AdapterError)
def load_recovery(folder: Path | str, whole: ChirpRegressor) -> ChirpRegressor:
    """Read a kept recovery onto the whole, merged model that it was made from; returns the recovered one, merged.

    Raises `AdapterError`, which names the folder, where a file is missing or damaged, and where it was made from
    another model (see `belongs`).
    """
    folder = restore_folder(Path(folder))
    record = read_recovery(folder)
    if (fingerprint := weights_fingerprint(whole)) != record["whole_fingerprint"]:
        raise AdapterError(
            f"{folder}: this recovery goes on a model with fingerprint {record['whole_fingerprint'][:12]}, but this "
            f"one has {fingerprint[:12]}. Train one for it: python -m vitmech_utils.recoveries"
        )
    gone = [tuple(head) for head in record["heads_gone"]]
    model = recovering(prune_heads(whole, gone) if gone else whole)
    adapter = read_weights(folder / ADAPTER, get_peft_model_state_dict(model.backbone))
    head = read_weights(folder / HEAD, model.head.state_dict())
    set_peft_model_state_dict(model.backbone, adapter)
    model.head.load_state_dict(head, strict=True)
    return model.merged()


@checked_arguments(AdapterError)
def read_recovery(folder: Path | str) -> dict[str, Any]:
    """The record of a kept recovery: whole_fingerprint, heads_gone, training. Raises `AdapterError`."""
    folder = Path(folder)
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise AdapterError(f"{folder}: no kept recovery, it lacks {', '.join(missing)}")
    record = read_object(folder / RECORD, LARGEST_RECORD, unknown=True)
    gone = record.get("heads_gone")
    pairs = isinstance(gone, list) and all(
        isinstance(head, list) and len(head) == 2 and all(type(number) is int for number in head)
        for head in gone
    )
    if not pairs or not isinstance(record.get("whole_fingerprint"), str):
        raise AdapterError(
            f"{folder / RECORD}: expected whole_fingerprint, a text, and heads_gone, pairs of layer and head"
        )
    return record


@checked_arguments(AdapterError)
def belongs(folder: Path | str, whole: ChirpRegressor) -> bool:
    """Whether there is a kept recovery in a folder, and it was made from this whole, merged model."""
    folder = Path(folder)
    return folder.is_dir() and read_recovery(folder)["whole_fingerprint"] == weights_fingerprint(whole)


def _kept(model: ChirpRegressor) -> list[list[int]]:
    return [list(block.numbers.kept) for block in find_blocks(model).blocks]
