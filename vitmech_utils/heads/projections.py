"""Attention weights from the query/key/value projections, layer by layer, whatever attention kernel the model runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.model.anatomy import AttentionBlock, HeadNumbers

CHUNK = 4
"""Images whose full token x token matrices are held at once; a layer of 6 heads and 257 tokens takes 1.6 MB each."""


@dataclass(frozen=True)
class Projections:
    """What one layer's heads compare and move, for one batch: float32, one vector per token and head.

    The head axis holds the layer's own heads, `numbers.kept`. What the functions below return has all original
    heads instead: a pruned head attends to nothing, so its weights are zero (no softmax sums to zero).

    Of attention that does more than compare projections (rotary positions, a bias, another scale), `query` and `key`
    are what its softmax compared, `bias` [image or 1, own_head or 1, token, token] what it added, and `scale` its
    factor; where the weights alone were seen, they are `softmax` and there is no query or key. Tokens stand in the
    order of the anatomy that comes with them: patches last.
    """

    layer: int
    query: Float[Tensor, "image own_head token width"] | None
    key: Float[Tensor, "image own_head token width"] | None
    value: Float[Tensor, "image own_head token width"]
    numbers: HeadNumbers
    bias: Tensor | None = None
    scale: float | None = None
    softmax: Float[Tensor, "image own_head token token"] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.value.shape[2]

    def scores(self, rows: slice | Tensor) -> Float[Tensor, "image own_head row token"]:
        """What the softmax turns into weights, for the query tokens `rows`: up to a constant for each of them."""
        if self.softmax is not None:
            return self.softmax[:, :, rows].clamp_min(torch.finfo(torch.float32).tiny).log()
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else self.scale
        found = (self.query[:, :, rows] @ self.key.transpose(-1, -2)).mul_(scale)
        return found if self.bias is None else found + self.bias[:, :, rows]

    def images(self, start: int, stop: int) -> "Projections":
        """The same of a range of the images."""
        part = slice(start, stop)
        bias = self.bias if self.bias is None or len(self.bias) == 1 else self.bias[part]
        query, key, softmax = (
            None if value is None else value[part] for value in (self.query, self.key, self.softmax)
        )
        return replace(self, query=query, key=key, value=self.value[part], bias=bias, softmax=softmax)

    def ordered(self, order: Tensor | None) -> "Projections":
        """The same with tokens in another order; None leaves them as they are."""
        if order is None:
            return self

        def rows(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.index_select(2, order.to(values.device))

        def both(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            at = order.to(values.device)
            values = values if values.shape[2] == 1 else values.index_select(2, at)
            return values.index_select(3, at)

        return replace(
            self, query=rows(self.query), key=rows(self.key), value=rows(self.value), bias=both(self.bias),
            softmax=both(self.softmax),
        )  # fmt: skip


def one_query(projections: Projections, token: int) -> Float[Tensor, "image head token"]:
    """Attention weights of one query token (0 is CLS) on every token; each row sums to 1."""
    weights = projections.scores(slice(token, token + 1)).softmax(-1)[:, :, 0]
    return projections.numbers.spread(weights, 1)


def mean_of_queries(
    projections: Projections, tokens: tuple[int, ...] | slice
) -> Float[Tensor, "image head token"]:
    """Attention weights averaged over some query tokens, each row summing to 1; a single one is `one_query`."""
    if not isinstance(tokens, slice) and len(tokens) == 1:
        return one_query(projections, tokens[0])
    rows = tokens if isinstance(tokens, slice) else torch.tensor(tokens, device=projections.value.device)
    parts = [
        projections.images(start, start + CHUNK).scores(rows).softmax(-1).mean(2)
        for start in range(0, projections.value.shape[0], CHUNK)
    ]
    return projections.numbers.spread(torch.cat(parts), 1)


def patch_queries(
    projections: Projections, prefix: int
) -> tuple[Float[Tensor, "image head token"], Float[Tensor, "image head"]]:
    """Attention averaged over all patch queries, and the mean entropy of the single queries (nats, all tokens).

    Exact; the token x token matrices live for `CHUNK` images at a time. The entropy of a softmax row is
    `logsumexp(s) - sum(a * s)`: averaging hides heads whose every query looks at one, but its own, place.
    """
    means, entropies = [], []
    for start in range(0, projections.value.shape[0], CHUNK):
        part = projections.images(start, start + CHUNK)
        scores = part.scores(slice(prefix, None))
        top = scores.amax(-1, keepdim=True)
        weights = scores.softmax(-1)
        # The largest weight is exp(top - logsumexp), which gives logsumexp without another pass of exponentials.
        log_total = top[..., 0] - weights.amax(-1).log()
        expected = torch.einsum("ihqk,ihqk->ihq", weights, scores)
        means.append(weights.mean(2))
        entropies.append((log_total - expected).mean(2))
    return tuple(projections.numbers.spread(torch.cat(parts), 1) for parts in (means, entropies))


def value_norms(
    projections: Projections, gram: Float[Tensor, "own_head width width"]
) -> Float[Tensor, "image head token"]:
    """Length of what each token would hand over through each head, ||v W_o|| (Kobayashi et al. 2020, eq. 4).

    `gram` is W_o W_o^T per head, from `output_gram`: `||v W_o||^2 = v (W_o W_o^T) v^T` needs head_size^2
    products per token in place of head_size x hidden.
    """
    moved = projections.value @ gram
    return projections.numbers.spread((moved * projections.value).sum(-1).clamp_min(0).sqrt(), 1)


def output_gram(block: AttentionBlock) -> Float[Tensor, "own_head width width"]:
    """Each own head's output projection times its own transpose, LayerScale included where the block has one."""
    weight = block.output.weight.detach().float()
    scale = _layer_scale(block.block)
    if scale is not None:
        weight = weight * scale[:, None]
    per_head = weight.unflatten(1, (len(block.numbers.kept), block.numbers.size)).permute(1, 2, 0)
    return per_head @ per_head.transpose(-1, -2)


@contextmanager
def watch_block(block: AttentionBlock, receive: Callable[[Projections], None]) -> Iterator[None]:
    """While active, every forward pass hands a layer's projections to `receive`.

    Works with any attention kernel (eager, sdpa, timm's fused one) and removes its hooks at the end. Nothing is
    kept here. They tell the attention weights only where the attention does no more than compare them, which
    `heads.check` proves; `heads.check.watch_projections` takes the softmax itself elsewhere.
    """
    handles = _watch_block(block, receive)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch_block(block: AttentionBlock, receive: Callable[[Projections], None]) -> list:
    parts = dict(
        zip(("query", "key", "value"), block.known_parts("reading attention from projections"), strict=True)
    )
    linears = {id(part.linear): part.linear for part in parts.values()}
    outputs: dict[int, Tensor] = {}

    def hook(linear: nn.Module, _inputs: tuple, output: Tensor) -> None:
        if output.ndim != 3:  # windows: the check says so
            return
        outputs[id(linear)] = output.detach()
        if len(outputs) == len(linears):
            split = {
                name: _by_head(outputs[id(part.linear)][..., part.rows], block.numbers)
                for name, part in parts.items()
            }
            outputs.clear()
            receive(Projections(block.index, **split, numbers=block.numbers))

    def hook_without_heads(_output: nn.Module, inputs: tuple) -> None:
        nothing = _by_head(inputs[0], block.numbers)
        receive(Projections(block.index, nothing, nothing, nothing, block.numbers))

    if not block.numbers.kept:  # its projections, which have no rows, are never called
        return [block.output.register_forward_pre_hook(hook_without_heads)]
    return [linear.register_forward_hook(hook) for linear in linears.values()]


def _by_head(flat: Tensor, numbers: HeadNumbers) -> Float[Tensor, "image own_head token width"]:
    return flat.float().unflatten(-1, (len(numbers.kept), numbers.size)).transpose(1, 2)


def _layer_scale(block: nn.Module) -> Tensor | None:
    """The per-channel factor after attention: DINOv2's `layer_scale1.lambda1`, timm's `ls1.gamma`."""
    for module, name in (("layer_scale1", "lambda1"), ("ls1", "gamma")):
        factor = getattr(getattr(block, module, None), name, None)
        if isinstance(factor, Tensor):
            return factor.detach().float()
    return None


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode without gradients, and back as it was at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
