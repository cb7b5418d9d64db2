"""Time the sweep of all heads against a plain hook per head, the published procedure, and nnsight.

    python benchmarks/ablation.py [--images 1] [--adapter published/adapters/seed-0]
    python benchmarks/ablation.py --grow                       # cost against images, heads and layers

All methods take turns on the same model and images, on one thread. Processor time is compared within turns, so that
other work on the machine disturbs little. The published package is run itself where `vision-mech-interp-attn-head` is
installed, else our retelling of its loop.
"""

import argparse
import importlib.util
from unittest.mock import patch

import numpy as np
import torch
from measuring import ADAPTER, not_measured, ratios, row, seconds, start, take_turns
from rivals import nnsight_predictions, package_predictions

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.ablation import HeadPredictions, effects, predict_without_heads
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.heads.published_code import literal_procedure
from vitmech_utils.model import half_attention
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.pipeline.benchmarks import Row
from vitmech_utils.runs.manifests import peak_memory_mib
from vitmech_utils.statistics import rank_correlation

# What float32 adds up otherwise in another order of batches; a missed head changes predictions by far more.
SAME = 1e-4


def build(settings: dict) -> ChirpRegressor:
    """The model under test: an adapter folder, or a random DINOv2 of given layers, heads, head size and patch."""
    if "adapter" in settings:
        return ChirpRegressor.load(settings["adapter"]).merged()
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=settings["heads"] * settings["size"], num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"], image_size=224, patch_size=settings["patch"],
    )  # fmt: skip
    return ChirpRegressor.build(Dinov2Model(config), lora=None)


def sweep(model, pixels) -> np.ndarray:
    """Ours: the prefix once, heads batched, the suffix alone."""
    return predict_without_heads(model, pixels, "zero", batch=12).ablated.numpy()


def hook(model, pixels) -> np.ndarray:
    """One full forward pass per head through a plain hook."""
    return predict_without_heads(model, pixels, "zero", batch=len(pixels), replay=False).ablated.numpy()


def retold(model, pixels) -> np.ndarray:
    """The published loop, retold: one full forward pass per scenario, weights zeroed between passes."""
    with torch.inference_mode():
        return literal_procedure(model, pixels, batch=len(pixels))[1].flatten(0, 1).numpy()


def slope(model, pixels) -> np.ndarray:
    """The first-order estimate of all heads."""
    return first_order(model, pixels, torch.zeros(len(pixels), 3).double(), bootstrap=1)["effect"].to_numpy()


def linearized(model, pixels, dtype: torch.dtype | None = None) -> np.ndarray:
    """Every head's linearized change of the outputs."""
    found = predict_linearized(model, pixels, "zero", dtype=dtype)
    return (found.ablated - found.baseline).numpy()


def bfloat16(model, pixels) -> np.ndarray:
    """The same, multiplied in bfloat16."""
    return linearized(model, pixels, torch.bfloat16)


def fused(model, pixels) -> np.ndarray:
    """The same by the fused kernel, which makes the attention weights anew in every backward pass."""
    with patch.object(half_attention, "LARGEST", 0):
        return bfloat16(model, pixels)


def forward(model, pixels) -> np.ndarray:
    """One plain forward pass."""
    with torch.inference_mode():
        return model(pixels).logits.numpy()


METHODS = {
    "sweep": sweep, "hook": hook, "retold": retold, "slope": slope, "linearized": linearized, "bfloat16": bfloat16,
    "fused": fused, "forward": forward,
    "package": package_predictions, "nnsight": nnsight_predictions,
}  # fmt: skip
OPTIONAL = {"package": "vision_mech_interp_attn_head", "nnsight": "nnsight"}


def arithmetic_limit(model: ChirpRegressor) -> float:
    """Multiplications of a full pass per head over those that no exact sweep can avoid.

    Unavoidable, per head and image: the ablated layer's MLP (what goes into it has changed), every layer after it,
    and of the last layer one CLS row, which is neglected here.
    """
    anatomy = find_blocks(model)
    block, width = anatomy.blocks[0], anatomy.heads * anatomy.head_size
    tokens = (224 // anatomy.patch) ** 2 + anatomy.prefix
    weights, attention = (
        sum(m.weight.numel() for m in part.modules() if isinstance(m, torch.nn.Linear))
        for part in (block.block, block.attention)
    )
    full = tokens * weights + 2 * tokens**2 * width
    embedding = tokens * 3 * anatomy.patch**2 * width
    plain = anatomy.layers * (anatomy.layers * full + embedding)
    needed = sum(
        tokens * (weights - attention) + (anatomy.layers - 2 - i) * full for i in range(anatomy.layers - 1)
    )
    return plain / needed


def run_methods(names: list[str], settings: dict, images: int, turns: int) -> tuple[dict, dict, float]:
    """Processor seconds of each method, turn by turn; what each found; the sweep's rise of peak memory (MiB)."""
    torch.set_num_threads(1)
    model = build(settings)
    pixels = stack(ChirpDataset(images, split="held-out"), images)["pixel_values"]
    forward(model, pixels)
    held = peak_memory_mib()
    outcomes = {"sweep": sweep(model, pixels)}
    risen = peak_memory_mib() - held

    def once(name: str) -> None:
        outcomes[name] = METHODS[name](model, pixels)

    ways = {name: lambda name=name: seconds(lambda: once(name)) for name in names}
    return take_turns(ways, turns), outcomes, float(risen)


def images_saved(found: HeadPredictions, labels: torch.Tensor) -> np.ndarray:
    """How many times fewer images a paired interval needs than an unpaired one of the same width, per head.

    The published procedure reports one loss per scenario beside one baseline loss, so its reader can only treat the
    two as separate samples. Keeping each image's error with and without the head gives the paired interval.
    """
    changed, baseline = found.losses(labels.double()).mean()
    return (changed.var(1) + baseline.var()) / (changed - baseline).var(1)


def measure(options: argparse.Namespace) -> list[Row]:
    """The sweep against its rivals on a fine-tuned model, and the first-order estimate against the sweep."""
    if options.grow:
        return grow(options)
    settings = {"adapter": options.adapter}
    here = {name for name, module in OPTIONAL.items() if importlib.util.find_spec(module)}
    published = "package" if "package" in here else "retold"
    names = [
        "forward",
        "slope",
        "linearized",
        "bfloat16",
        "fused",
        "sweep",
        "hook",
        published,
        *(["nnsight"] if "nnsight" in here else []),
    ]
    taken, outcomes, risen = run_methods(names, settings, options.images, options.turns)
    how = f"{options.images} image(s), one thread"
    model, data = build(settings), stack(ChirpDataset(options.paired, split="held-out"), options.paired)
    found = predict_without_heads(model, data["pixel_values"], "zero", batch=12)
    saved = images_saved(found, data["labels"])
    return [
        *_speed_rows(
            taken, outcomes, published, f"{how}; arithmetic allows {arithmetic_limit(model):.2f} times"
        ),
        _nnsight_row(taken, outcomes, how),
        row("Rise of the peak memory through the sweep", [risen], "MiB", how=how),
        _same_width_row(taken, published, saved, options),
        *_first_order_rows(taken, model, data, found, how),
        *_linearized_rows(taken, model, data, found, how),
    ]


def _speed_rows(taken: dict, outcomes: dict, published: str, how: str) -> list[Row]:
    rival = {"package": "the published package's own loop", "retold": "the published loop, retold"}[published]
    difference = np.abs(outcomes["sweep"] - outcomes["hook"]).max()
    return [
        row("Sweeping all heads", ratios(taken["hook"], taken["sweep"]), "times as fast", at_least=2,
            against="one full pass per head through a plain hook", how=how),
        row("Largest difference of a prediction without a head", [difference], "(standardized)", at_most=SAME,
            against="the plain hook's"),
        row("Sweeping all heads", ratios(taken[published], taken["sweep"]), "times as fast",
            against=f"{rival}, as many images"),
    ]  # fmt: skip


def _nnsight_row(taken: dict, outcomes: dict, how: str) -> Row:
    what, against = "Sweeping all heads", "nnsight, one trace per head"
    if "nnsight" not in taken:
        return not_measured(what, "times as fast", "nnsight is not installed", against=against)
    difference = np.abs(outcomes["sweep"] - outcomes["nnsight"]).max()
    how = f"{how}; largest difference of a prediction {difference:.1e}"
    return row(what, ratios(taken["nnsight"], taken["sweep"]), "times as fast", against=against, how=how)


def _same_width_row(taken: dict, published: str, saved: np.ndarray, options: argparse.Namespace) -> Row:
    return row(
        "Intervals of the same width for all heads",
        [speed * float(np.median(saved)) for speed in ratios(taken[published], taken["sweep"])],
        "times as fast", at_least=10, against="the published procedure",
        how=f"pairing saves {np.median(saved):.0f} times the images for the median head and "
        f"{saved.min():.1f} times for the worst, on {options.paired} images",
    )  # fmt: skip


def _first_order_rows(
    taken: dict, model: ChirpRegressor, data: dict, found: HeadPredictions, how: str
) -> list[Row]:
    exact = effects(found, data["labels"], bootstrap=1)["effect"].to_numpy()
    estimate = first_order(model, data["pixel_values"], data["labels"], bootstrap=1)["effect"].to_numpy()
    rank = rank_correlation(exact, estimate)
    return [
        row("First-order estimate of all heads", ratios(taken["slope"], taken["forward"]), "forward passes",
            at_most=4, against="one plain forward pass", how=how),
        row("Rank correlation of the first-order estimate", [rank.value], "(Spearman)", against="the exact sweep",
            how=f"95 % interval {rank.low:.2f} to {rank.high:.2f} over heads, {len(data['labels'])} images"),
    ]  # fmt: skip


def _linearized_rows(
    taken: dict, model: ChirpRegressor, data: dict, found: HeadPredictions, how: str
) -> list[Row]:
    pixels, labels = data["pixel_values"], data["labels"]
    exact = effects(found, labels, bootstrap=1)["effect"].to_numpy()
    cheap = predict_linearized(model, pixels, "zero")
    rank = rank_correlation(exact, effects(cheap, labels, bootstrap=1)["effect"].to_numpy())
    one, other = linearized(model, pixels).ravel(), bfloat16(model, pixels).ravel()
    return [
        row("Linearized outputs of all heads", ratios(taken["linearized"], taken["forward"]), "forward passes",
            against="one plain forward pass", how=f"{how}; one backward pass for each of the three outputs"),
        row("Rank correlation of linearized effects", [rank.value], "(Spearman)", against="the exact sweep",
            how=f"95 % interval {rank.low:.2f} to {rank.high:.2f} over heads, {len(labels)} images"),
        row("Linearized outputs in bfloat16", ratios(taken["linearized"], taken["bfloat16"]), "times as fast",
            against="in float32", how=f"{how}; faster where the processor multiplies in it"),
        row("Linearized outputs in bfloat16, attention weights kept", ratios(taken["fused"], taken["bfloat16"]),
            "times as fast", against="by the fused kernel", how=how),
        row("Changes of the outputs in bfloat16", [float(np.corrcoef(one, other)[0, 1])], "(Pearson)", at_least=0.99,
            against="in float32", how=f"{len(labels)} images, all heads and outputs"),
    ]  # fmt: skip


def grow(options: argparse.Namespace) -> list[Row]:
    """How the sweep's cost and gain grow with heads, layers and images, on small random models."""
    base, rows = {"layers": 6, "heads": 3, "size": 32, "patch": 28, "images": 4}, []
    for change in ({}, {"heads": 6, "size": 16}, {"layers": 12}, {"images": 8}):
        shape = {**base, **change}
        images = shape.pop("images")
        taken, _, risen = run_methods(["sweep", "hook"], shape, images, options.turns)
        limit = arithmetic_limit(build(shape))
        how = f"arithmetic allows {limit:.2f} times; peak memory rises by {risen:.0f} MiB"
        what = f"{shape['layers']} layers x {shape['heads']} heads, {images} images"
        pairs = shape["layers"] * shape["heads"] * images
        speed = [pairs / taken_once for taken_once in taken["sweep"]]
        rows += [
            row(
                what, ratios(taken["hook"], taken["sweep"]), "times as fast", against="a plain hook", how=how
            ),
            row(what, speed, "pairs of image and head per second of processor time"),
        ]
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapter", default=str(ADAPTER), help="adapter folder (default: the published one, seed 0)"
    )
    parser.add_argument("--grow", action="store_true", help="instead: cost against images, heads and layers")


if __name__ == "__main__":
    start(
        __doc__, "Ablating every head", measure,
        full={"images": 1, "turns": 3, "paired": 8}, quick={"images": 1, "turns": 1, "paired": 2},
        extend=add_options,
    )  # fmt: skip
