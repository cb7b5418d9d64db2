"""The table of supported models, measured: small random models of every kind, each held against hooks by hand.

`python tests/support_matrix.py` writes book/supported_models.md; a test makes the same rows anew. Models of timm and
torchvision need these packages (the optional dependencies `models`); where one is missing its rows stay as they are.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers as T
from heads_zoo import stand_in_for_torchvision
from torch import Tensor, nn
from torchvision_here import has_torchvision

from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.check import HeadCheck, check_heads
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.anatomy import AnatomyError
from vitmech_utils.model.told_heads import Heads, tell_heads

PAGE = Path(__file__).resolve().parents[1] / "book" / "supported_models.md"
S = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
P = {"image_size": 32, "patch_size": 8}
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 3}


@dataclass(frozen=True)
class Case:
    """A model: how to make it, where its attentions for comparison come from, and what it needs to be installed."""

    name: str
    make: Callable[[], nn.Module]
    needs: str = "transformers"
    told: Heads | None = None
    images: tuple[int, ...] = (2, 3, 32, 32)
    refused: str = ""


class Answer(nn.Module):
    """A linear answer on a backbone's first token."""

    def __init__(self, backbone: nn.Module, width: int = 24):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        out = self.backbone(images)
        return self.head((out if isinstance(out, Tensor) else out.last_hidden_state)[:, 0])


def _timm(module: str, name: str, **settings: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        stand_in_for_torchvision()
        return getattr(importlib.import_module(f"timm.models.{module}"), name)(
            **{name: value for name, value in (TIMM | settings).items() if value is not None}
        )

    return make


def _torchvision() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=3)


def _swin_torchvision() -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=3)


def _vit_pytorch(order: str = "3hd") -> nn.Module:
    from test_own_models import OwnViT

    return OwnViT(order)


class Dino(nn.Module):
    """A ViT in the style of the DINO repository: `blocks`, `attn.qkv`, `attn.proj`, a token in front."""

    class Block(nn.Module):
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.num_heads, self.scale = 3, 8**-0.5
                self.qkv, self.attn_drop = nn.Linear(24, 72), nn.Dropout(0.0)
                self.proj, self.proj_drop = nn.Linear(24, 24), nn.Dropout(0.0)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                b, n, c = x.shape
                q, k, v = self.qkv(x).reshape(b, n, 3, 3, 8).permute(2, 0, 3, 1, 4)
                attn = self.attn_drop(((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1))
                x = (attn @ v).transpose(1, 2).reshape(b, n, c)
                return self.proj_drop(self.proj(x)), attn

        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.attn, self.mlp = nn.LayerNorm(24), self.Attention(), nn.Linear(24, 24)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(self.norm1(x))[0]
            return x + self.mlp(x)

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 24, 8, 8)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 24))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, 24))
        self.blocks = nn.ModuleList(self.Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def _vision_of(kind: str) -> nn.Module:
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32,
            "vocab_size": 20, "projection_dim": 16}  # fmt: skip
    config = getattr(T, f"{kind}Config")(text_config=text, vision_config=S | P | {"projection_dim": 16})
    config.num_labels = 3
    return config


def _backbone(kind: type, config: type) -> object:
    return config(**(S | P | {"out_features": ["stage2"], "num_hidden_layers": 2}))


def _dpt() -> nn.Module:
    config = T.DPTConfig(**(S | P | {"num_hidden_layers": 4}), backbone_out_indices=[0, 1, 2, 3],
                         neck_hidden_sizes=[8, 8, 8, 8],
                         fusion_hidden_size=8, is_hybrid=False, reassemble_factors=[4, 2, 1, 0.5])  # fmt: skip
    return T.DPTForDepthEstimation(config)


def _depth_anything() -> nn.Module:
    backbone = T.Dinov2Config(
        hidden_size=24, num_attention_heads=3, **P, num_hidden_layers=4, mlp_ratio=2, out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )  # fmt: skip
    config = T.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, patch_size=8, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )  # fmt: skip
    return T.DepthAnythingForDepthEstimation(config)


def _encoder_decoder() -> nn.Module:
    decoder = T.BertConfig(**S, vocab_size=20, is_decoder=True, add_cross_attention=True)
    config = T.VisionEncoderDecoderConfig.from_encoder_decoder_configs(T.ViTConfig(**S, **P), decoder)
    return T.VisionEncoderDecoderModel(config=config)


def _wrapper() -> nn.Module:
    if not has_torchvision():
        raise ImportError("TimmWrapper asks for torchvision")
    config = T.TimmWrapperConfig(architecture="vit_tiny_patch16_224", num_labels=3,
                                 model_args={k: v for k, v in TIMM.items() if k != "num_classes"})  # fmt: skip
    return T.TimmWrapperForImageClassification(config)


def _stages(kind: str, **settings: object) -> Callable[[], nn.Module]:
    return lambda: getattr(T, f"{kind}Model")(getattr(T, f"{kind}Config")(**settings))


CASES = (
    Case("ViT", lambda: T.ViTForImageClassification(T.ViTConfig(**S, **P, num_labels=3))),
    Case("ViT, one channel, not square", lambda: T.ViTForImageClassification(
        T.ViTConfig(**S, image_size=(32, 48), patch_size=8, num_channels=1, num_labels=3)), images=(2, 1, 32, 48)),
    Case("ViT, patches of 8 x 4 pixels", lambda: T.ViTForImageClassification(
        T.ViTConfig(**S, image_size=32, patch_size=(8, 4), num_labels=3))),
    Case("DeiT", lambda: T.DeiTForImageClassification(T.DeiTConfig(**S, **P, num_labels=3))),
    Case("DeiT, distilled", lambda: T.DeiTForImageClassificationWithTeacher(T.DeiTConfig(**S, **P, num_labels=3))),
    Case("DINOv2", lambda: T.Dinov2ForImageClassification(T.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, **P, num_labels=3))),
    Case("DINOv2 with registers", lambda: T.Dinov2WithRegistersForImageClassification(T.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, num_register_tokens=2, **P,
        num_labels=3))),
    Case("DINOv3", lambda: Answer(T.DINOv3ViTModel(T.DINOv3ViTConfig(num_register_tokens=2, **S, **P)))),
    Case("MSN", lambda: T.ViTMSNForImageClassification(T.ViTMSNConfig(**S, **P, num_labels=3))),
    Case("BEiT, relative positions", lambda: T.BeitForImageClassification(
        T.BeitConfig(**S, **P, use_relative_position_bias=True, num_labels=3))),
    Case("BEiT, shared relative positions", lambda: T.BeitForImageClassification(
        T.BeitConfig(**S, **P, use_shared_relative_position_bias=True, num_labels=3))),
    Case("Data2Vec", lambda: T.Data2VecVisionForImageClassification(
        T.Data2VecVisionConfig(**S, **P, use_relative_position_bias=True, num_labels=3))),
    Case("CLIP classifier", lambda: T.CLIPForImageClassification(_vision_of("CLIP"))),
    Case("CLIP vision tower", lambda: T.CLIPVisionModelWithProjection(T.CLIPVisionConfig(**S, **P, projection_dim=16))),
    Case("CLIP, both towers", lambda: T.CLIPModel(_vision_of("CLIP"))),
    Case("SigLIP classifier", lambda: T.SiglipForImageClassification(_vision_of("Siglip"))),
    Case("SigLIP vision tower", lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**S, **P))),
    Case("I-JEPA", lambda: T.IJepaForImageClassification(T.IJepaConfig(**S, **P, num_labels=3))),
    Case("AIMv2", lambda: T.Aimv2VisionModel(T.Aimv2VisionConfig(**S, **P))),
    Case("YOLOS", lambda: T.YolosForObjectDetection(T.YolosConfig(
        **S, image_size=[32, 32], patch_size=8, num_detection_tokens=5, num_labels=3))),
    Case("AST (spectrograms)", lambda: T.ASTForAudioClassification(T.ASTConfig(
        **S, patch_size=8, max_length=32, num_mel_bins=24, frequency_stride=8, time_stride=8, num_labels=3)),
        images=(2, 32, 24)),
    Case("DPT", _dpt),
    Case("Depth Anything", _depth_anything),
    Case("VisionEncoderDecoder", _encoder_decoder),
    Case("VisionEncoderDecoder's encoder", lambda: Answer(_encoder_decoder().encoder)),
    Case("ViT-MAE, pre-training", lambda: T.ViTMAEForPreTraining(T.ViTMAEConfig(
        **S, **P, decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=3,
        decoder_intermediate_size=32))),
    Case("SAM, image encoder", lambda: T.SamVisionModel(T.SamVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_dim=32, image_size=32, patch_size=8,
        output_channels=8, window_size=2, global_attn_indexes=[1]))),
    Case("Swin", _stages("Swin", image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[1, 2],
                         window_size=4)),
    Case("Hiera", _stages("Hiera", image_size=[32, 32], embed_dim=8, depths=[1, 1], num_heads=[1, 2],
                          num_query_pool=1, masked_unit_size=[2, 2])),
    Case("PVT", _stages("Pvt", image_size=32, hidden_sizes=[8, 16], depths=[1, 1], num_attention_heads=[1, 2],
                        num_encoder_blocks=2, patch_sizes=[4, 2], strides=[4, 2], sequence_reduction_ratios=[2, 1],
                        mlp_ratios=[2, 2])),
    Case("SegFormer", _stages("Segformer", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
                              patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2])),
    Case("Swin v2", _stages("Swinv2", image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[1, 2],
                            window_size=4)),
    Case("PVT v2", _stages("PvtV2", image_size=64, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1],
                           num_attention_heads=[1, 2, 4, 8])),
    Case("MobileViT", _stages("MobileViT", image_size=64)),
    Case("CvT", _stages("Cvt")),
    Case("LeViT", _stages("Levit")),
    Case("ViTDet", _stages("VitDet", hidden_size=24, num_hidden_layers=2, num_attention_heads=3, **P)),
    Case("TimmWrapper", _wrapper, "timm and torchvision"),
    Case("timm ViT", _timm("vision_transformer", "VisionTransformer"), "timm"),
    Case("timm ViT, registers", _timm("vision_transformer", "VisionTransformer", reg_tokens=2), "timm"),
    Case("timm ViT, mean of patches", _timm("vision_transformer", "VisionTransformer", global_pool="avg"), "timm"),
    Case("timm ViT without CLS", _timm("vision_transformer", "VisionTransformer", class_token=False,
                                       global_pool="avg"), "timm"),
    Case("timm ViT, attention pooling", _timm("vision_transformer", "VisionTransformer", class_token=False,
                                              global_pool="map"), "timm"),
    Case("timm ViT, qk-norm", _timm("vision_transformer", "VisionTransformer", qk_norm=True), "timm"),
    Case("timm ViT, norm after attention", _timm("vision_transformer", "VisionTransformer", scale_attn_norm=True),
         "timm"),
    Case("timm ViT, difference attention", _timm("vision_transformer", "VisionTransformer", attn_layer="diff"), "timm"),
    Case("timm DINOv3 (EVA)", _timm("eva", "Eva", use_rot_pos_emb=True, qkv_bias=False), "timm"),
    Case("timm EVA-02", _timm("eva", "Eva", use_rot_pos_emb=True), "timm"),
    Case("timm EVA-02, separate", _timm("eva", "Eva", use_rot_pos_emb=True, qkv_fused=False), "timm"),
    Case("timm BEiT", _timm("beit", "Beit", use_rel_pos_bias=True), "timm"),
    Case("timm Swin", _timm("swin_transformer", "SwinTransformer", patch_size=4, embed_dim=12, window_size=4,
                            depths=(1, 1), num_heads=(1, 2), depth=None), "timm"),
    Case("torchvision ViT", _torchvision, "torchvision"),
    Case("torchvision Swin", _swin_torchvision, "torchvision"),
    Case("DINO repository style", Dino, "torch"),
    Case("vit-pytorch style, told", _vit_pytorch, "torch", Heads(output="layers.*.0.to_out.0", count=3)),
    Case("own fused [head, 3, size], told", lambda: _vit_pytorch("h3d"), "torch",
         Heads(output="layers.*.0.to_out.0", count=3)),
)  # fmt: skip


def big(model: nn.Module) -> nn.Module:
    """The model in float64, with weights large enough to matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = "norm" in name or "ln_" in name or "lambda" in name or "gamma" in name
            weight.normal_(0, 0.3) if weight.ndim >= 2 else weight.copy_(
                norm + 0.1 * torch.randn_like(weight)
            )
    return model.double().eval()


def measured(case: Case) -> dict[str, str] | None:
    """A row of the table, or None where its package is missing."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = case.make()
    except ImportError:
        return None
    model = big(model)
    if case.told is not None:
        tell_heads(model, case.told)
    images = torch.rand(case.images, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    row = {"model": case.name, "from": case.needs}
    try:
        found = check_heads(model, images)
    except AnatomyError as error:
        return row | {"tokens": "", "reads": "", "ablation": f"refused: {error}", "maps": "", "pruning": ""}
    return row | {
        "tokens": found.facts["tokens"],
        "reads": found.facts["the answer reads"],
        "ablation": _ablation(model, found, images),
        "maps": _maps(model, found, images),
        "pruning": _pruning(model, found, images),
    }


def _ablation(model: nn.Module, found: HeadCheck, images: Tensor) -> str:
    try:
        right = predict_without_heads(model, images, "mean", layers=[1], heads=[2])
    except ValueError as error:
        return f"refused: {error}"
    block, size = found.anatomy.blocks[1], found.anatomy.head_size
    columns, seen = slice(2 * size, 3 * size), []
    handle = block.output.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0][..., columns].mean(0))
    )
    with torch.no_grad():
        model(images)
        handle.remove()

        def change(_module: nn.Module, args: tuple) -> tuple:
            changed = args[0].clone()
            changed[..., columns] = seen[0]
            return (changed,)

        handle = block.output.register_forward_pre_hook(change)
        output = model(images)
        handle.remove()
    fields = ("logits", "predicted_depth", "image_embeds", "pooler_output")
    expected = output if isinstance(output, Tensor) else next(
        value for name in fields if (value := getattr(output, name, None)) is not None
    )  # fmt: skip
    off = float((right.ablated[0] - expected).abs().max() / expected.abs().max())
    return "right" if off < 1e-9 else f"WRONG by {off:.1g}"


def _maps(model: nn.Module, found: HeadCheck, images: Tensor) -> str:
    try:
        maps = attention_maps(model, images, "patches")
    except ValueError as error:
        return f"refused: {error}"
    own = _eager(model, images)
    if own is not None:
        order = torch.arange(own.shape[-1]) if found.order is None else found.order
        prefix = found.anatomy.prefix
        expected = own[..., order, :][..., order][..., prefix:, prefix:].mean(3)
        off = float((maps.flatten(3).double() - expected).abs().max())
        if off > 1e-5:
            return f"WRONG by {off:.1g}"
    return "right" + (", from the softmax" if found.layers[0].source == "softmax" else "")


def _eager(model: nn.Module, images: Tensor) -> Tensor | None:
    """The attentions that transformers itself returns, [image, layer, head, token, token]; None where it has none."""
    inner = next((m for m in model.modules() if isinstance(m, T.PreTrainedModel)), None)
    if inner is None:
        return None
    kernel = inner.config._attn_implementation
    try:
        inner.set_attn_implementation("eager")
        with torch.no_grad():
            found = getattr(inner(images, output_attentions=True), "attentions", None)
    except (ValueError, TypeError):
        return None
    finally:
        inner.set_attn_implementation(kernel)
    return torch.stack(found, 1) if found and found[0] is not None else None


def _pruning(model: nn.Module, found: HeadCheck, images: Tensor) -> str:
    if found.refused:
        return ""
    try:
        prune_heads(model, [(0, 1)], pixel_values=images)
    except ValueError:
        return "refused"
    return "right"


def page(rows: list[dict[str, str]]) -> str:
    """The page: one line per model, and the reasons below it."""
    reasons: list[str] = []

    def cell(text: str) -> str:
        if not text.startswith("refused: "):
            return text
        reason = text.removeprefix("refused: ")
        if reason not in reasons:
            reasons.append(reason)
        return f"refused ({reasons.index(reason) + 1})"

    columns = ["model", "from", "tokens", "reads", "ablation", "maps", "pruning"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row[column]) or '-' for column in columns)} |" for row in rows]
    told = [f"{number}. {_escaped(reason)}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(
        [
            "# Supported models",
            "",
            "Measured by `python tests/support_matrix.py` on small random models in float64: ablation against a hook "
            "written by hand, maps against the attentions that transformers returns where it returns any, pruning "
            "against zero ablation. What a model's own row says is what `vitmech check` says of yours.",
            "",
            *lines,
            "",
            "The reasons, word for word:",
            "",
            *told,
            "",
        ]
    )


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a page as `measured` makes them, reasons in full; none where there is no page."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")
    ]
    rows = [[*row, *[""] * (7 - len(row))] for row in rows]
    plain = {match[1]: match[2] for line in lines if (match := re.match(r"(\d+)\. (.*)", line))}
    found = []
    for row in rows[1:]:
        cells = [
            ""
            if cell == "-"
            else re.sub(r"refused \((\d+)\)", lambda m: f"refused: {_plain(plain[m[1]])}", cell)
            for cell in row
        ]
        found.append(dict(zip(rows[0], cells, strict=True)))
    return found


def _plain(text: str) -> str:
    return text.replace("\\_", "_").replace("\\*", "*").replace("&lt;", "<").replace("\\|", "|")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    T.logging.set_verbosity_error()
    before = {row["model"]: row for row in read(PAGE)}
    table = []
    for case in CASES:
        found = measured(case)
        if found is None:
            print(f"{case.name}: needs {case.needs}, its row stays as it is", file=sys.stderr)
            if case.name in before:
                table.append(before[case.name])
            continue
        table.append(found)
        print({name: value[:110] for name, value in found.items()})
    PAGE.write_text(page(table), encoding="utf-8")
