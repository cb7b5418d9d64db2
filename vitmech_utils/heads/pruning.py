"""Remove attention heads for good: smaller query, key, value and output matrices, saved and read back."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from operator import index as as_int
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.check import TOLERANCE, check_heads, one_image, remember
from vitmech_utils.heads.hooks import Head, capture_heads, change_heads
from vitmech_utils.heads.replacements import check_images, check_linear, check_model, evaluating, verify
from vitmech_utils.heads.replay import answer, predict
from vitmech_utils.model.anatomy import Anatomy, AnatomyError, AttentionBlock, HeadNumbers, find_blocks
from vitmech_utils.model.backbones import DAMAGED
from vitmech_utils.model.regressor import ChirpRegressor, LoraSettings, weights_fingerprint
from vitmech_utils.own_folders import restore_folder, write_folder
from vitmech_utils.strict_text import read_json

RECORD, WEIGHTS = "pruned.json", "model.safetensors"
LARGEST_RECORD = 2**20  # bytes
MOST_LAYERS = 1000
MOST_OF_FILE = 16  # times the weights in a file: what the model that they were cut from may have had
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "depth")
# What ViT families call their head count, the joined heads' width, and the norm in front of the attention.
COUNTS, WIDTHS = ("num_attention_heads", "num_heads"), ("all_head_size", "attn_dim")
NORMS = ("layernorm_before", "norm1")


class PruningError(ValueError):
    """Heads that cannot be removed from this model, or a folder that holds no sound pruned model."""


class ConstantAttention(nn.Module):
    """What is left of an attention without heads: its output projection's bias, at every token.

    Its projections have no rows and are never called, so it costs no multiplication; `o_proj` reads no columns.
    `returns_tuple` says whether the attention in whose place it stands returns its weights too (here None).
    """

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, output: nn.Linear, returns_tuple: bool
    ):
        super().__init__()
        self.query, self.key, self.value = query, key, value
        self.o_proj = output
        self.returns_tuple = returns_tuple

    def forward(self, hidden_states: Tensor, *args, **kwargs) -> Tensor | tuple[Tensor, None]:
        """The constant, [image, token, hidden]; whatever else an attention is given changes nothing."""
        constant = self.o_proj(hidden_states[..., :0])
        return (constant, None) if self.returns_tuple else constant


@checked_arguments()
def prune_heads(
    model: nn.Module,
    heads: Iterable[Head],
    made_for: str | None = None,
    pixel_values: Tensor | None = None,
    hold: bool = True,
) -> nn.Module:
    """A copy of `model` without these heads; `model` stays as it is.

    `heads` are (layer, head) pairs, 0-based, numbered as in the unpruned model also where `model` has lost heads
    before. The copy computes what zero ablation of the heads through `change_heads` computes. A layer that loses
    all its heads keeps of its attention only the output projection's bias. The configuration goes on giving the
    unpruned model's heads, the width of the grid that tables use; each attention module gives its own. `made_for`,
    the `weights_fingerprint` of the model on which the heads were chosen, refuses another one. Before it is returned,
    the copy is held against zero ablation, on the first of `pixel_values` (default: random pixels of the model's size).
    `hold` False leaves that out, for many sets of heads of a model where the first was held so.

    Raises `PruningError` (a head twice, out of range, or gone; no head left; another model; an attention that cannot do
    with fewer heads), `ValueError` for an unmerged adapter, `AnatomyError` for an unknown model.
    """
    anatomy = check_model(model)
    chosen = _checked(anatomy, heads)
    if made_for is not None and (found := weights_fingerprint(model)) != made_for:
        raise PruningError(
            f"these heads were chosen on a model with fingerprint {made_for[:12]}, but this one has {found[:12]}: "
            "choose them anew on this model, or load the one that they belong to"
        )
    verify(model, pixel_values)
    pruned = copy.deepcopy(model)
    for block in find_blocks(pruned).blocks:
        gone = {head for layer, head in chosen if layer == block.index}
        if gone:
            kept = tuple(head for head in block.numbers.kept if head not in gone)
            try:
                _shrink(block, HeadNumbers(kept, anatomy.heads, anatomy.head_size))
            except (RuntimeError, AttributeError, KeyError, IndexError, TypeError) as error:
                raise PruningError(
                    f"{block.name}: {_more(block)}its matrices cannot be cut by heads ({error})"
                ) from error
    if hold:
        _hold_against_ablation(model, pruned, chosen, pixel_values)
    return pruned


def _hold_against_ablation(
    model: nn.Module, pruned: nn.Module, heads: set[Head], pixel_values: Tensor | None
) -> None:
    """Raise `PruningError` where a pruned model is not the model with these heads ablated to zero."""
    found = check_heads(model, pixel_values)
    image = one_image(model, found.anatomy, pixel_values)
    layer = found.anatomy.blocks[min(heads)[0]] if heads else found.anatomy.blocks[0]
    with evaluating(model), evaluating(pruned), torch.no_grad():
        with change_heads(model, dict.fromkeys(heads, 0.0)):
            expected = _any_answer(model(image))
        try:
            own = _any_answer(pruned(image))
        except Exception as error:
            raise PruningError(
                f"{layer.name}: {_more(layer)}the pruned model does not run ({error}); ablate its heads instead"
            ) from error
    scale = expected.float().abs().max().clamp_min(1e-6)
    off = float((own - expected).float().abs().max() / scale) if own.shape == expected.shape else float("inf")
    if not off <= TOLERANCE[expected.dtype]:
        raise PruningError(
            f"{layer.name}: {_more(layer)}the pruned model differs from zero ablation by {off:.1g} of its largest "
            "output; ablate its heads instead"
        )
    remember(pruned, found)


def _any_answer(output: object) -> Tensor:
    found = answer(output)
    if found is None:
        found = next((value for value in output.values() if isinstance(value, Tensor)), None)
    return found


def _more(block: AttentionBlock) -> str:
    """What an attention has beside its four projections, in words, for errors."""
    known = {id(part.linear) for part in block.parts or ()} | {id(block.output)}
    modules = {
        name: module for name, module in block.attention.named_modules()
        if name and id(module) not in known and any(True for _ in module.parameters(recurse=False))
    }  # fmt: skip
    extra = [*(name for name, _ in block.attention.named_parameters(recurse=False)), *modules]
    return f"its attention has parts of its own ({', '.join(extra[:4])}), and " if extra else ""


@checked_arguments()
def recovering(pruned: ChirpRegressor, lora: LoraSettings | None = None, seed: int = 0) -> ChirpRegressor:
    """A copy of a pruned regressor that `fine_tune` can train: fresh LoRA adapters, and its own head to go on from.

    Before the first step it predicts what `pruned` predicts, because a fresh adapter adds nothing. Train it, then
    call `merged()` on it to analyse or save it. `lora` defaults to the study's settings; layers without heads get no
    adapter. Raises `PruningError` where `pruned` carries an adapter already.
    """
    if not pruned.is_merged:
        raise PruningError("this regressor carries a LoRA adapter already: train it, or call merged() first")
    backbone = copy.deepcopy(pruned.backbone)
    regressor = type(pruned).build(backbone, lora or LoraSettings(), seed=seed)
    regressor.head.load_state_dict(pruned.head.state_dict())
    regressor.backbone_name, regressor.fingerprint = pruned.backbone_name, pruned.fingerprint
    return regressor.to(next(pruned.parameters()).dtype)


@checked_arguments()
def save_pruned(model: nn.Module, folder: Path | str, origin: nn.Module | str) -> Path:
    """Write a pruned model: weights as safetensors, and a JSON record of its heads and of where it came from.

    `origin` is the unpruned (merged) model or its `weights_fingerprint`. A `ChirpRegressor` can be read back by
    itself, any other module onto its unpruned original. The folder appears whole or not at all; one that is there is
    replaced only where an earlier call wrote it and nothing else lies in it, else `PruningError` is raised.
    """
    anatomy = check_model(model)
    record = {
        "origin_fingerprint": origin if isinstance(origin, str) else weights_fingerprint(origin),
        "fingerprint": weights_fingerprint(model),
        "heads": anatomy.heads,
        "kept": [list(block.numbers.kept) for block in anatomy.blocks],
        "versions": {name: version(name) for name in ("torch", "transformers", "vitmech-utils")},
    }
    if type(model) is ChirpRegressor:
        record |= {
            "backbone": model.backbone_name,
            "backbone_fingerprint": model.fingerprint,
            "config": model.backbone.config.to_dict(),
        }
    elif isinstance(model, PreTrainedModel) and getattr(transformers, type(model).__name__, None) is type(
        model
    ):
        record |= {"architecture": type(model).__name__, "config": model.config.to_dict()}

    def fill(ready: Path) -> None:
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(state, ready / WEIGHTS, metadata={"format": "pt"})
        (ready / RECORD).write_text(json.dumps(record, indent=2) + "\n")

    return write_folder(folder, fill, (RECORD, WEIGHTS), (RECORD,), PruningError)


@checked_arguments()
def load_pruned(
    folder: Path | str, origin: nn.Module | None = None, attention: str = "sdpa"
) -> ChirpRegressor | nn.Module:
    """Read a folder of `save_pruned`, strictly: every weight, and their fingerprint, must be as written.

    A `ChirpRegressor` and any model of transformers is rebuilt from its record, needing nothing but the folder; with
    `origin`, the unpruned model, any other is rebuilt on a copy of it. Raises `PruningError` where a file is missing or
    damaged, where `origin` is not the model that was pruned, or where it is needed and not given.
    """
    folder = restore_folder(Path(folder))
    record, state = _read(folder)
    if origin is not None:
        if (found := weights_fingerprint(origin)) != record["origin_fingerprint"]:
            raise PruningError(
                f"{folder}: pruned from a model with fingerprint {record['origin_fingerprint'][:12]}, but the given "
                f"one has {found[:12]}. Give the model that it was made from."
            )
        whole = origin
    elif "architecture" in record:
        whole = _unpruned_transformer(folder, record, state)
    elif "config" in record:
        whole = _unpruned_regressor(folder, record, state, attention)
    else:
        raise PruningError(
            f"{folder}: holds neither a ChirpRegressor nor a model of transformers, expected its unpruned model as "
            "`origin` to rebuild it"
        )
    try:
        model = _cut(whole, record)
    except (AnatomyError, PruningError) as error:
        raise PruningError(f"{folder}: {error}") from error
    model.to(next(value.dtype for value in state.values() if value.is_floating_point()))
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise PruningError(
            f"{folder}: its weights do not fit its record ({error}). Prune and save again."
        ) from error
    if weights_fingerprint(model) != record["fingerprint"]:
        raise PruningError(f"{folder}: its weights are not those that were saved. Prune and save again.")
    return model.requires_grad_(False).eval()


def _unpruned_transformer(folder: Path, record: dict, state: dict[str, Tensor]) -> nn.Module:
    """A model of the recorded class and configuration with meaningless weights, for the saved ones to replace."""
    name = record["architecture"]
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise PruningError(
            f"{folder}: {RECORD} names {name!r:.80}, which is no model of transformers. Prune and save again."
        )
    try:
        if (deepest := _most_layers(record["config"])) > MOST_LAYERS:
            raise ValueError(f"it asks for {deepest} layers, expected at most {MOST_LAYERS}")
        config = kind.config_class.from_dict(record["config"])
        with torch.device("meta"):  # sizes alone: a wrong number would ask for all memory there is
            planned = kind(config)
        if (layers := len(find_blocks(planned).blocks)) != len(record["kept"]):
            raise ValueError(
                f"it describes {layers} layers of attention, and the record of heads {len(record['kept'])}"
            )
        asked = sum(weight.numel() for weight in planned.parameters())
        if asked > (most := MOST_OF_FILE * sum(weight.numel() for weight in state.values())):
            raise ValueError(f"it describes {asked:,} weights, expected at most {most:,} for this file")
        with torch.random.fork_rng(devices=[]):
            made = kind(config)
    except DAMAGED as error:
        raise PruningError(
            f"{folder}: {RECORD} describes no model ({error}). Restore it, or prune and save again."
        ) from error
    for holder in made.modules():  # what transformers' add_pooling_layer=False gives
        if isinstance(getattr(holder, "pooler", None), nn.Module) and not any(
            "pooler." in key for key in state
        ):
            holder.pooler = None
    return made.eval()


def _most_layers(config: Any) -> int:
    """The largest count of layers that a configuration names, in itself or in what it holds."""
    if not isinstance(config, dict):
        return 0
    own = [value for name in LAYERS if isinstance(value := config.get(name), int)]
    return max([0, *own, *map(_most_layers, config.values())])


def _cut(whole: nn.Module, record: dict) -> nn.Module:
    """The model without the heads that a record does not keep."""
    anatomy, layers = find_blocks(whole), len(record["kept"])
    if (anatomy.layers, anatomy.heads) != (layers, record["heads"]):
        raise PruningError(
            f"{RECORD} speaks of {layers} layers x {record['heads']} heads, but the model has {anatomy.layers} x "
            f"{anatomy.heads}. Prune and save again."
        )
    present = {(layer, head) for layer, kept in enumerate(record["kept"]) for head in kept}
    gone = [pair for pair in anatomy.pairs if pair not in present]
    return prune_heads(whole, gone, pixel_values=_spectrogram(whole))


def _spectrogram(model: nn.Module) -> Tensor | None:
    """Noise, [1, time, frequency], for a model of spectrograms, which tells the size of no image; else None."""
    size = [getattr(getattr(model, "config", None), name, None) for name in ("max_length", "num_mel_bins")]
    if not all(isinstance(number, int) for number in size):
        return None
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(0))


def _checked(anatomy: Anatomy, heads: Iterable[Head]) -> set[Head]:
    pairs = [(as_int(layer), as_int(head)) for layer, head in heads]
    twice = sorted(pair for pair, count in Counter(pairs).items() if count > 1)
    if twice:
        raise PruningError(f"(layer, head) {_named(twice)} named more than once, expected each head once")
    outside = sorted(
        pair for pair in pairs if not (0 <= pair[0] < anatomy.layers and 0 <= pair[1] < anatomy.heads)
    )
    if outside:
        raise PruningError(
            f"(layer, head) {_named(outside)} not in this model, expected layers 0 to {anatomy.layers - 1} and heads "
            f"0 to {anatomy.heads - 1} (0-based): were they chosen on another model?"
        )
    gone = sorted(set(pairs) - set(anatomy.pairs))
    if gone:
        raise PruningError(f"(layer, head) {_named(gone)} already pruned from this model: leave them out")
    if set(pairs) == set(anatomy.pairs):
        raise PruningError(
            f"all {len(pairs)} heads that this model has are to go, expected at least one to stay: without "
            "attention no patch can reach the CLS token"
        )
    return set(pairs)


def _named(pairs: list[Head]) -> str:
    return ", ".join(map(str, pairs[:5])) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")


def _shrink(block: AttentionBlock, numbers: HeadNumbers) -> None:
    """Cut a layer's matrices down to the heads `numbers.kept`, in place."""
    attention, parts = block.attention, block.known_parts("pruning")
    if any(part.packed for part in parts):
        raise PruningError(
            f"{block.name}: torch's MultiheadAttention has one size for all its heads; none can go. Ablate them instead"
        )
    check_linear(block, "pruning")
    if any(isinstance(getattr(attention, name, None), nn.Linear | nn.LayerNorm) for name in ("gate", "norm")):
        raise PruningError(f"{block.name}: its attention normalizes or gates its heads together; none can go")
    returns_tuple = _returns_tuple(block)
    places = torch.tensor([block.numbers.kept.index(head) for head in numbers.kept], dtype=torch.long)
    columns = torch.arange(block.numbers.width).view(-1, numbers.size)[places].flatten()
    if block.query.linear is block.value.linear:  # timm: one fused layer, [query; key; value]
        _keep_rows(block.query.linear, torch.cat([columns + part.rows.start for part in parts]))
    else:
        for part in parts:
            _keep_rows(part.linear, columns)
    _keep_columns(block.output, columns)
    if numbers.kept:
        for name in COUNTS:
            _set_everywhere(attention, name, len(numbers.kept))
        for name in WIDTHS:
            _set_everywhere(attention, name, numbers.width)
    else:
        attention = ConstantAttention(*(part.linear for part in parts), block.output, returns_tuple)
        _drop_sublayer(block, attention)
    attention.head_numbers = numbers


def _keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    linear.weight = _part(linear.weight, 0, rows)
    linear.bias = None if linear.bias is None else _part(linear.bias, 0, rows)
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Tensor) -> None:
    linear.weight = _part(linear.weight, 1, columns)
    linear.in_features = len(columns)


def _part(weight: nn.Parameter, dim: int, places: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().index_select(dim, places.to(weight.device)), weight.requires_grad)


def _set_everywhere(attention: nn.Module, name: str, value: int) -> None:
    """Set an attribute on the module that has it: transformers before 5.20 counts heads one module deeper."""
    for module in attention.modules():
        if name in vars(module):
            setattr(module, name, value)


@torch.no_grad()
def _returns_tuple(block: AttentionBlock) -> bool:
    """Whether the attention returns (output, weights) or the output alone: asked of one blank token."""
    weight = block.output.weight
    return isinstance(block.attention(weight.new_zeros(1, 1, weight.shape[0])), tuple)


def _drop_sublayer(block: AttentionBlock, constant: ConstantAttention) -> None:
    """Put `constant` in the attention's place; the norm in front of it, which nothing reads now, goes too."""
    name = next(name for name, child in block.block.named_children() if child is block.attention)
    setattr(block.block, name, constant.train(block.attention.training))
    for norm in NORMS:
        if hasattr(block.block, norm):
            setattr(block.block, norm, nn.Identity())


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    missing = [name for name in (RECORD, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise PruningError(
            f"{folder}: not a pruned model, it lacks {', '.join(missing)}. Make one with save_pruned."
        )
    try:
        record, state = read_json(folder / RECORD, LARGEST_RECORD), load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise PruningError(f"{folder}: damaged ({error}). Restore it, or prune and save again.") from error
    if (wrong := _wrong_in(record)) is not None:
        raise PruningError(f"{folder}: {RECORD} {wrong}. Restore it, or prune and save again.")
    for name, weight in state.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise PruningError(f"{folder}: {name} holds values that are not finite. Prune and save again.")
    if not any(weight.is_floating_point() for weight in state.values()):
        raise PruningError(f"{folder}: {WEIGHTS} holds no weights. Restore it, or prune and save again.")
    return record, state


def _wrong_in(record: Any) -> str | None:
    """What of a record is not as `save_pruned` writes it, or None."""
    if not isinstance(record, dict):
        return f"holds {type(record).__name__}, expected keys and values"
    kinds = {"origin_fingerprint": str, "fingerprint": str, "heads": int, "kept": list}
    if "architecture" in record:
        kinds |= {"config": dict, "architecture": str}
    elif "config" in record:
        kinds |= {"config": dict, "backbone": str, "backbone_fingerprint": str}
    for key, kind in kinds.items():
        if type(record.get(key)) is not kind:
            return f"has {key} {record.get(key)!r:.80}, expected a {kind.__name__}"
    if len(record["kept"]) > MOST_LAYERS:
        return f"speaks of {len(record['kept'])} layers, expected at most {MOST_LAYERS}"
    for layer, kept in enumerate(record["kept"]):
        numbers = isinstance(kept, list) and all(type(head) is int for head in kept)
        if not numbers or kept != sorted(set(kept)) or not all(0 <= head < record["heads"] for head in kept):
            return f"keeps {kept!r:.80} in layer {layer}, expected heads from 0 to {record['heads'] - 1}, in order"
    return None


def _unpruned_regressor(
    folder: Path, record: dict, state: dict[str, Tensor], attention: str
) -> ChirpRegressor:
    """A regressor of the recorded architecture with meaningless weights, for the saved ones to replace."""
    try:
        if record["config"].get("num_hidden_layers") != len(record["kept"]):
            raise ValueError(
                f"num_hidden_layers is not {len(record['kept'])}, as the record of its heads has it"
            )
        config = AutoConfig.for_model(**record["config"])
        with torch.device("meta"):  # sizes alone: a wrong number would ask for all memory there is
            asked = sum(weight.numel() for weight in AutoModel.from_config(config).parameters())
        if asked > (most := MOST_OF_FILE * sum(weight.numel() for weight in state.values())):
            raise ValueError(f"it describes {asked:,} weights, expected at most {most:,} for this file")
        with torch.random.fork_rng(devices=[]):
            backbone = AutoModel.from_config(config, attn_implementation=attention)
            if not any(name.startswith("backbone.pooler.") for name in state):
                backbone.pooler = None  # what transformers' add_pooling_layer=False gives
            return ChirpRegressor(backbone, record["backbone"], record["backbone_fingerprint"])
    except DAMAGED as error:
        raise PruningError(
            f"{folder}: {RECORD} describes no model ({error}). Restore it, or prune and save again."
        ) from error


@checked_arguments()
@torch.no_grad()
def prune_keeping_means(
    model: nn.Module,
    heads: Iterable[Head],
    means: Sequence[Float[Tensor, "head size"]],
    hold: bool = True,
) -> nn.Module:
    """A copy of `model` without these heads, as `prune_heads` makes it, whose biases hold the means of what they wrote.

    `means` are those of `mean_writings`, layer by layer; what a head writes differently from token to token is lost. It
    computes what replacing each head's output by its mean computes. `hold` as in `prune_heads`. Raises as that, and
    `PruningError` for an output projection without a bias or for means of another number of layers.
    """
    heads = list(heads)
    pruned = prune_heads(model, heads, hold=hold)
    parts = list(zip(find_blocks(model).blocks, find_blocks(pruned).blocks, strict=True))
    if len(means) != len(parts):
        raise PruningError(
            f"means of {len(means)} layers, expected the {len(parts)} of this model: see mean_writings"
        )
    for layer, (whole, less) in enumerate(parts):
        for head in (head for of, head in heads if of == layer):
            if less.output.bias is None:
                raise PruningError(f"{less.name}: its output projection has no bias that could hold a mean")
            place = whole.numbers.kept.index(head) * whole.numbers.size
            columns = whole.output.weight[:, place : place + whole.numbers.size]
            less.output.bias += columns @ means[layer][head]
    return pruned


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
@torch.no_grad()
def mean_writings(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 16
) -> list[Float[Tensor, "head size"]]:
    """What each head writes on average over tokens and images, layer by layer, for `prune_keeping_means`.

    Heads go by their numbers in the unpruned model; raises `ValueError` where there is no image.
    """
    check_images(pixel_values)
    weight, sums = next(model.parameters()), None
    with evaluating(model):
        for images in pixel_values.split(batch):
            with capture_heads(model) as found:
                predict(model, images.to(device=weight.device, dtype=weight.dtype))
            each = [found[layer].mean(1).sum(0) for layer in range(len(found))]
            sums = each if sums is None else [one + other for one, other in zip(sums, each, strict=True)]
    return [total / len(pixel_values) for total in sums]
