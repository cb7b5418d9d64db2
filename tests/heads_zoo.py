"""Small random models of every ViT family, with a different prime for every dimension, for the head tests."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import torch
from torch import Tensor, nn
from torchvision_here import has_torchvision
from transformers import (
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

LAYERS, HEADS, SIZE, MLP, PATCH, GRID, IMAGES, TARGETS = 5, 3, 7, 13, 11, 2, 2 + 3, 3
WIDTH, PIXELS = HEADS * SIZE, PATCH * GRID
FAMILIES = ("vit", "deit", "dinov2", "dinov2-registers", "timm")


class Reader(nn.Module):
    """A backbone and a linear head on the first token of its last hidden state."""

    def __init__(self, backbone: nn.Module, width: int = WIDTH, targets: int = TARGETS):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, targets)

    def forward(self, pixel_values: Tensor) -> Tensor:
        output = self.backbone(pixel_values)
        hidden = output if isinstance(output, Tensor) else output.last_hidden_state
        return self.head(hidden[:, 0])


def zoo(
    family: str,
    attention: str = "sdpa",
    seed: int = 0,
    layers: int = LAYERS,
    heads: int = HEADS,
    size: int = SIZE,
) -> Reader:
    """A float64 model of `family` whose weights and biases are all random and large enough to matter."""
    common = {
        "hidden_size": heads * size, "num_hidden_layers": layers, "num_attention_heads": heads,
        "image_size": PIXELS, "patch_size": PATCH, "attn_implementation": attention,
    }  # fmt: skip
    torch.manual_seed(seed)
    if family == "vit":
        backbone = ViTModel(ViTConfig(intermediate_size=MLP, **common), add_pooling_layer=False)
    elif family == "deit":
        backbone = DeiTModel(DeiTConfig(intermediate_size=MLP, **common), add_pooling_layer=False)
    elif family == "dinov2":
        backbone = Dinov2Model(Dinov2Config(mlp_ratio=2, **common))
    elif family == "dinov2-registers":
        backbone = Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=2, **common)
        )
    else:
        backbone = _timm(layers, heads, size, attention)
    model = Reader(backbone, heads * size).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 1.0 if "norm" in name or "lambda" in name or "gamma" in name else 0.0
            weight.copy_(scale + 0.25 * torch.randn_like(weight))
    return model


def pictures(
    images: int = IMAGES, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Random pixel values and labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images, 3, PIXELS, PIXELS, generator=generator, dtype=torch.float64)
    return pixels.to(dtype), torch.randn(images, TARGETS, generator=generator, dtype=torch.float64)


def _timm(layers: int, heads: int, size: int, attention: str) -> nn.Module:
    stand_in_for_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=PIXELS, patch_size=PATCH, embed_dim=heads * size, depth=layers, num_heads=heads, mlp_ratio=2,
        num_classes=0, global_pool="", init_values=1.0,
    )  # fmt: skip
    for block in model.blocks:
        block.attn.fused_attn = attention == "sdpa"
    return model


def stand_in_for_torchvision() -> None:
    """Let timm be imported where torchvision has no build: its ViT uses none of the names that it imports."""
    if "torchvision" in sys.modules or has_torchvision():
        return

    class AnyName(type):
        def __getattr__(cls, name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            return name

    class StandIn(types.ModuleType):
        __path__ = ()

        def __getattr__(self, name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            return AnyName(name, (), {})

    class Finder:
        @staticmethod
        def find_spec(name, _path=None, _target=None):
            if name.split(".")[0] == "torchvision":
                return importlib.machinery.ModuleSpec(name, Finder, is_package=True)
            return None

        @staticmethod
        def create_module(spec):
            return StandIn(spec.name)

        @staticmethod
        def exec_module(_module):
            return None

    sys.meta_path.append(Finder)
    try:
        import timm  # noqa: F401
    finally:
        sys.meta_path.remove(Finder)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
