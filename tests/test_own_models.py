"""Models of others: what the check finds of them, and that maps, ablation and pruning are right or refused by name."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import transformers as T
from heads_zoo import Reader, stand_in_for_torchvision, zoo
from torch import Tensor, nn

from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.attention import attention_maps, attention_statistics
from vitmech_utils.heads.check import check_heads
from vitmech_utils.heads.hooks import HeadHookError, capture_heads, change_heads
from vitmech_utils.heads.pruning import PruningError, load_pruned, prune_heads, save_pruned
from vitmech_utils.model.anatomy import AnatomyError, find_blocks
from vitmech_utils.model.told_heads import Heads, tell_heads

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
PIXELS = {"image_size": 32, "patch_size": 8}
ENCODERS = {
    "ViT": (lambda: T.ViTModel(T.ViTConfig(**SIZES, **PIXELS), add_pooling_layer=False), 1),
    "CLIP": (lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**SIZES, **PIXELS)), 1),
    "SigLIP": (lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**SIZES, **PIXELS)), 0),
    "DINOv3": (lambda: T.DINOv3ViTModel(T.DINOv3ViTConfig(num_register_tokens=2, **SIZES, **PIXELS)), 3),
    "BEiT": (lambda: T.BeitModel(T.BeitConfig(use_relative_position_bias=True, **SIZES, **PIXELS)), 1),
    "I-JEPA": (lambda: T.IJepaModel(T.IJepaConfig(**SIZES, **PIXELS), add_pooling_layer=False), 0),
}


def big(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model in float64 with weights large enough to matter."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0, 0.3) if weight.ndim >= 2 else weight.copy_(
                ("norm" in name) + 0.1 * torch.randn_like(weight)
            )
    return model.double().eval()


def pixels(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Answer(nn.Module):
    """A backbone whose answer is a linear map of some of its tokens, averaged."""

    def __init__(self, backbone: nn.Module, tokens: slice | list[int] = slice(0, 1), width: int = 24):
        super().__init__()
        self.backbone, self.tokens, self.head = backbone, tokens, nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        out = self.backbone(images)
        hidden = out if isinstance(out, Tensor) else out.last_hidden_state
        return self.head(hidden[:, self.tokens].mean(1))


class Attention(nn.Module):
    """Attention written by hand: queries, keys and values in one layer, in an order of its own."""

    def __init__(self, width: int, heads: int, order: str = "3hd", out: str = "hd"):
        super().__init__()
        self.heads, self.order, self.out = heads, order, out
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attend = nn.Softmax(dim=-1)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1] // self.heads
        sizes = {"3": 3, "h": self.heads, "d": size}
        parts = self.to_qkv(x).unflatten(-1, [sizes[axis] for axis in self.order])
        q, k, v = parts.permute(
            2 + self.order.index("3"), 0, 2 + self.order.index("h"), 1, 2 + self.order.index("d")
        )
        written = torch.matmul(self.attend(torch.matmul(q, k.transpose(-1, -2)) * size**-0.5), v)
        joined = written.transpose(1, 2) if self.out == "hd" else written.permute(0, 2, 3, 1)
        return self.to_out(joined.flatten(2))


class OwnViT(nn.Module):
    """A ViT written by hand, with lists of layers as vit-pytorch has them; it reads the mean of its patches."""

    def __init__(self, order: str = "3hd", out: str = "hd", width: int = 24, heads: int = 3, side: int = 8):
        super().__init__()
        self.side = side
        self.embed = nn.Linear(3 * side * side, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 17, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(width, heads, order, out), nn.Linear(width, width)]) for _ in range(2)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        cut = images.unfold(2, self.side, self.side).unfold(3, self.side, self.side)
        x = self.embed(cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.position
        for attention, mlp in self.layers:
            x = x + attention(x)
            x = x + mlp(x)
        return self.head(x[:, 1:].mean(1))


TOLD = Heads(output="layers.*.0.to_out.0", count=3)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_maps_are_the_model_s_own_and_tokens_are_found(name: str, kernel: str) -> None:
    make, prefix = ENCODERS[name]
    torch.manual_seed(0)
    model = big(make())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        own = torch.stack(model(pixels(), output_attentions=True).attentions, 1)
    model.set_attn_implementation(kernel)
    found = check_heads(model, pixels())
    assert (found.anatomy.prefix, found.grid, found.refused) == (prefix, (4, 4), False)
    expected = own[..., 0, prefix:] if prefix else own.mean(3)
    query = "cls" if prefix else "patches"
    assert torch.allclose(attention_maps(model, pixels(), query).flatten(3).double(), expected, atol=1e-6)
    each = attention_maps(model, pixels(), query=5).flatten(3).double()
    assert torch.allclose(each, own[..., prefix + 5, prefix:], atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "reads", "query"),
    [([0], (0,), (0,)), ([0, 1], (0, 1), (0, 1)), (slice(2, None), ("patches",), slice(2, None))],
)
def test_what_the_answer_reads_is_found_and_is_the_default_query(tokens, reads, query) -> None:
    torch.manual_seed(0)
    model = big(Answer(T.DeiTModel(T.DeiTConfig(**SIZES, **PIXELS), add_pooling_layer=False), tokens))
    found = check_heads(model, pixels())
    assert (found.anatomy.prefix, found.reads, found.query) == (2, reads, query)
    default = attention_maps(model, pixels())
    if isinstance(query, slice):
        assert torch.allclose(default, attention_maps(model, pixels(), "patches"), atol=1e-7)
    regions = torch.zeros(2, 32, 32, dtype=torch.uint8)
    regions[:, :8] = 1
    table = attention_statistics(
        model, {"pixel_values": pixels(), "regions": regions}, regions=("other", "top"), replicates=3
    ).regions
    name = "cls" if reads == (0,) else "read"
    share = table[(table["query"] == name) & (table["weighting"] == "raw") & (table["region"] == "top")]
    on_patches = default / default.sum((-2, -1), keepdim=True)
    expected = on_patches[..., :1, :].sum((-2, -1)).mean(0).flatten().double().numpy()
    assert share["attention_share"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_detection_tokens_after_the_patches_are_found() -> None:
    torch.manual_seed(0)
    config = T.YolosConfig(image_size=[32, 32], patch_size=8, num_detection_tokens=5, **SIZES)
    model = big(T.YolosModel(config, add_pooling_layer=False))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        own = torch.stack(model(pixels(), output_attentions=True).attentions, 1)
    found = check_heads(model, pixels())
    assert (found.anatomy.prefix, found.order.tolist()[:7]) == (6, [0, 17, 18, 19, 20, 21, 1])
    assert torch.allclose(
        attention_maps(model, pixels(), "cls").flatten(3).double(), own[..., 0, 1:17], atol=1e-6
    )


@pytest.mark.parametrize("order", ["3hd", "h3d", "hd3"])
def test_a_model_written_by_hand_needs_one_line(order: str) -> None:
    torch.manual_seed(0)
    model = big(OwnViT(order))
    with pytest.raises(AnatomyError, match="tell_heads"):
        find_blocks(model)
    tell_heads(model, TOLD)
    found = check_heads(model, pixels())
    assert (found.anatomy.shape, found.anatomy.prefix, found.grid, found.anatomy.patch) == (
        (2, 3),
        1,
        (4, 4),
        8,
    )
    assert found.reads == ("patches",)
    weights: list[Tensor] = []
    handles = [one.register_forward_hook(lambda *args: weights.append(args[2])) for one in _softmaxes(model)]
    with torch.no_grad():
        model(pixels())
    for handle in handles:
        handle.remove()
    own = torch.stack(weights, 1)[..., 1:, 1:].mean(3)
    assert torch.allclose(attention_maps(model, pixels()).flatten(3).double(), own, atol=1e-6)
    by_replay, by_hook = (
        predict_without_heads(model, pixels(), "mean", replay=replay).ablated for replay in (True, False)
    )
    assert torch.allclose(by_replay, by_hook, atol=1e-12)
    assert torch.allclose(by_hook, _ablated_by_hand(model), atol=1e-12)
    copied = copy.deepcopy(nn.Sequential(model))
    assert find_blocks(copied).shape == (2, 3)


def test_columns_that_are_no_heads_are_refused() -> None:
    torch.manual_seed(0)
    model = tell_heads(big(OwnViT(out="dh")), TOLD)
    with pytest.raises(AnatomyError, match="no block of columns is a head"):
        predict_without_heads(model, pixels(), "zero")


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_torch_s_own_attention_is_run_open(norm_first: bool, batch_first: bool) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 24, 8, 8)
            layer = nn.TransformerEncoderLayer(24, 3, 32, batch_first=batch_first, norm_first=norm_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(24, 3)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.embed(images).flatten(2).transpose(1, 2)
            tokens = self.encoder(tokens if batch_first else tokens.transpose(0, 1))
            return self.head((tokens if batch_first else tokens.transpose(0, 1)).mean(1))

    torch.manual_seed(0)
    model = big(Plain())
    before, keys = model(pixels()), set(model.state_dict())
    assert find_blocks(model).shape == (2, 3)
    assert torch.allclose(model(pixels()), before, atol=1e-12)
    assert set(copy.deepcopy(model).state_dict()) == keys
    maps = attention_maps(model, pixels())
    assert maps.shape == (2, 2, 3, 4, 4)
    assert torch.allclose(maps.sum((-2, -1)), torch.ones(2, 2, 3), atol=1e-6)
    by_replay, by_hook = (
        predict_without_heads(model, pixels(), "mean", replay=replay).ablated for replay in (True, False)
    )
    assert torch.allclose(by_replay, by_hook, atol=1e-12)
    assert not torch.allclose(by_hook[0], before, atol=1e-3)
    with pytest.raises(PruningError, match="Ablate them instead"):
        prune_heads(model, [(0, 0)], pixel_values=pixels())


def test_a_copy_inside_the_module_and_a_layer_that_never_runs_are_refused_by_name() -> None:
    model = zoo("vit")
    model.ema = copy.deepcopy(model.backbone)
    with pytest.raises(AnatomyError, match=r"2 lists of attention blocks \(backbone.layers, ema.layers\)"):
        find_blocks(model)
    skipping = zoo("vit")
    skipping.forward = lambda images: skipping.head(
        skipping.backbone.layers[0](skipping.backbone.embeddings(images))[:, 0]
    )
    images = torch.rand(2, 3, 22, 22, dtype=torch.float64)
    with pytest.raises(AnatomyError, match="ran 0 times"):
        predict_without_heads(skipping, images, "zero")
    with pytest.raises(HeadHookError, match="the model ran without its"), capture_heads(skipping):
        skipping(images)


def test_a_siamese_pass_is_refused_and_a_head_that_reads_pixels_is_right() -> None:
    images = torch.rand(3, 3, 22, 22, dtype=torch.float64)
    model = zoo("vit")
    single = model.forward
    model.forward = lambda batch: single(batch) + single(batch.flip(-1))
    with pytest.raises(AnatomyError, match=r"ran 2 times.*siamese"):
        predict_without_heads(model, images, "zero")
    reading = zoo("vit")
    plain = reading.forward
    reading.forward = lambda batch: plain(batch) + batch.mean((1, 2, 3))[:, None]
    found, true = (predict_without_heads(reading, images, "zero", replay=replay) for replay in (True, False))
    assert torch.allclose(found.ablated, true.ablated, atol=1e-12)


def test_a_compiled_model_is_refused_with_the_way_out() -> None:
    model = zoo("vit")
    fast = torch.compile(model, backend="eager")
    with pytest.raises(AnatomyError, match=r"torch.compile.*_orig_mod"), change_heads(fast, {(0, 0): 0.0}):
        pass
    model.backbone.compile(backend="eager")
    with pytest.raises(AnatomyError, match=r"compiled.*do without \.compile"):
        find_blocks(model)


def test_a_model_that_shuffles_its_patches_is_refused() -> None:
    torch.manual_seed(0)
    config = T.ViTMAEConfig(**SIZES, **PIXELS, mask_ratio=0.5, decoder_hidden_size=24, decoder_num_hidden_layers=1,
                            decoder_num_attention_heads=3, decoder_intermediate_size=32)  # fmt: skip
    encoder = big(T.ViTMAEModel(config))
    with pytest.raises(AnatomyError, match=r"shuffles its tokens|no row-major grid"):
        attention_maps(encoder, pixels())


class Extra(nn.Module):
    """A linear layer with a low-rank part beside it, as adapters written by hand are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.low = nn.Parameter(torch.randn(2, linear.in_features, dtype=linear.weight.dtype))
        self.high = nn.Parameter(torch.randn(linear.out_features, 2, dtype=linear.weight.dtype))
        self.in_features, self.out_features = linear.in_features, linear.out_features

    weight = property(lambda self: self.linear.weight)
    bias = property(lambda self: self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.low.T @ self.high.T


def test_an_adapter_written_by_hand_on_the_output_projection_is_refused() -> None:
    images = torch.rand(2, 3, 22, 22, dtype=torch.float64)
    model = zoo("vit")
    predict_without_heads(model, images, "zero")
    attention = find_blocks(model).blocks[2].attention
    attention.o_proj = Extra(attention.o_proj)
    for call in (
        lambda: predict_without_heads(model, images, "zero"),
        lambda: prune_heads(model, [(0, 0)]),
    ):
        with pytest.raises(
            AnatomyError, match=r"layers.2: its output projection \(Extra\) does more than multiply"
        ):
            call()


def test_an_adapter_written_by_hand_on_values_is_right_where_weights_are_not_read() -> None:
    images = torch.rand(2, 3, 22, 22, dtype=torch.float64)
    model = zoo("vit")
    attention = find_blocks(model).blocks[1].attention
    attention.v_proj = Extra(attention.v_proj)
    found, true = (predict_without_heads(model, images, "mean", replay=replay) for replay in (True, False))
    assert torch.allclose(found.ablated, true.ablated, atol=1e-10)
    for mode in ("qkv-weights", "published-code"):
        with pytest.raises(ValueError, match="its value projection"):
            predict_without_heads(model, images, mode)
    with pytest.raises(ValueError, match="merge what was added"):
        prune_heads(model, [(1, 0)])


PEFT = (
    "LoraConfig",
    "VeraConfig",
    "LoHaConfig",
    "LoKrConfig",
    "IA3Config",
    "OFTConfig",
    "FourierFTConfig",
    "HRAConfig",
)


@pytest.mark.parametrize("kind", PEFT)
def test_adapters_of_every_kind_are_refused_unmerged_and_right_merged(kind: str) -> None:
    import peft

    settings = {"target_modules": ["o_proj"]}
    settings |= {"feedforward_modules": []} if kind == "IA3Config" else {}
    settings |= {"n_frequency": 8} if kind == "FourierFTConfig" else {}
    settings |= {"r": 3, "oft_block_size": 0} if kind == "OFTConfig" else {}
    settings |= (
        {"r": 2} if kind in ("VeraConfig", "LoHaConfig", "LoKrConfig", "HRAConfig", "LoraConfig") else {}
    )
    torch.manual_seed(0)
    plain = big(T.ViTModel(T.ViTConfig(**SIZES, **PIXELS), add_pooling_layer=False)).float()
    wrapped = peft.get_peft_model(plain, getattr(peft, kind)(**settings))
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    model, images = Answer(wrapped).eval(), pixels().float()
    with pytest.raises(ValueError, match=r"unmerged .* adapter"):
        predict_without_heads(model, images, "zero")
    model.backbone = wrapped.merge_and_unload()
    by_replay, by_hook = (
        predict_without_heads(model, images, "zero", replay=replay).ablated for replay in (True, False)
    )
    assert torch.allclose(by_replay, by_hook, atol=1e-4)


TIMM = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 0,
    "global_pool": "",
}


@pytest.mark.parametrize("kind", ["rope", "separate", "bias"])
def test_what_cannot_do_with_fewer_heads_is_refused(kind: str) -> None:
    stand_in_for_torchvision()
    from timm.models.beit import Beit
    from timm.models.eva import Eva

    make = {
        "rope": lambda: Eva(**TIMM, use_rot_pos_emb=True),
        "separate": lambda: Eva(**TIMM, use_rot_pos_emb=True, qkv_fused=False),
        "bias": lambda: Beit(**TIMM, use_rel_pos_bias=True),
    }[kind]
    model = big(Reader(make(), 24))
    assert attention_maps(model, pixels()).shape == (2, 2, 3, 4, 4)
    with pytest.raises(PruningError, match=r"blocks.0: .*(does not run|cannot be cut)"):
        prune_heads(model, [(0, 1)], pixel_values=pixels())


def test_the_check_prints_as_a_table_is_remembered_and_forgotten_with_the_weights() -> None:
    model = big(Answer(T.ViTModel(T.ViTConfig(**SIZES, **PIXELS), add_pooling_layer=False)))
    first = check_heads(model, pixels())
    assert check_heads(model) is first
    text = str(first)
    assert "the answer reads" in text
    assert "every layer" in text
    assert first.table()["ablation"].tolist() == ["verified"] * 2
    with torch.no_grad():
        model.head.weight.mul_(2)
    assert check_heads(model) is not first


def test_heads_that_fit_nothing_are_refused_with_what_is_there() -> None:
    model = OwnViT()
    with pytest.raises(ValueError, match=r"no module matches 'blocks.*linear layers of this model: embed"):
        tell_heads(model, Heads(output="blocks.*.proj"))
    with pytest.raises(ValueError, match=r"query: .* matches 1 modules, expected 2"):
        tell_heads(model, Heads(output="layers.*.0.to_out.0", query="layers.0.0.to_qkv"))
    with pytest.raises(ValueError, match="count is 0"):
        Heads(output="layers.*", count=0)
    tell_heads(model, Heads(output="layers.*.0.to_out.0", count=5))
    with pytest.raises(AnatomyError, match="24 columns cannot have 5 heads"):
        find_blocks(model)


def test_stages_of_different_heads_are_refused_by_name() -> None:
    config = T.SwinConfig(
        image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    with pytest.raises(AnatomyError, match="stages of different heads"):
        find_blocks(T.SwinModel(config))


def test_a_bare_backbone_has_maps_and_no_ablation() -> None:
    model = big(T.ViTModel(T.ViTConfig(**SIZES, **PIXELS), add_pooling_layer=False))
    assert check_heads(model).reads is None
    with pytest.raises(ValueError, match="wrap the model in a module that returns a tensor"):
        predict_without_heads(model, pixels(), "zero")


def _softmaxes(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Softmax)]


def _ablated_by_hand(model: OwnViT) -> Tensor:
    """Every head's mean output put in its place, by hooks on the projections that know nothing of the package."""
    seen: dict[int, Tensor] = {}
    projections = [pair[0].to_out[0] for pair in model.layers]

    def keep(layer: int):
        return lambda _module, args: seen.__setitem__(layer, args[0])

    handles = [one.register_forward_pre_hook(keep(layer)) for layer, one in enumerate(projections)]
    with torch.no_grad():
        model(pixels())
    for handle in handles:
        handle.remove()
    means, found = {layer: values.mean(0) for layer, values in seen.items()}, []
    for layer, one in enumerate(projections):
        for head in range(3):
            columns = slice(head * 8, (head + 1) * 8)

            def change(_module, args, columns=columns, layer=layer):
                changed = args[0].clone()
                changed[..., columns] = means[layer][:, columns]
                return (changed,)

            handle = one.register_forward_pre_hook(change)
            with torch.no_grad():
                found.append(model(pixels()))
            handle.remove()
    assert math.isfinite(float(found[0].sum()))
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["classifier", "without pooler"])
def test_a_pruned_model_of_transformers_is_read_from_its_folder_alone(tmp_path, kind: str) -> None:
    config = T.ViTConfig(**SIZES, **PIXELS, num_labels=3)
    make = (
        T.ViTForImageClassification
        if kind == "classifier"
        else lambda c: T.ViTModel(c, add_pooling_layer=False)
    )
    model = big(make(config))
    pruned = prune_heads(model, [(0, 1), (1, 0), (1, 1), (1, 2)], pixel_values=pixels())
    save_pruned(pruned, tmp_path / "small", model)
    again = load_pruned(tmp_path / "small")
    with torch.no_grad():
        own, found = pruned(pixels())[0], again(pixels())[0]
    assert torch.equal(own, found)
    record = (tmp_path / "small" / "pruned.json").read_text()
    (tmp_path / "small" / "pruned.json").write_text(record.replace(type(model).__name__, "AutoModel"))
    with pytest.raises(PruningError, match="which is no model of transformers"):
        load_pruned(tmp_path / "small")
