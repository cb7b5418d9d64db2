"""Resume a forward pass at any layer: run the prefix once, then only what a change can reach.

Blocks are run by calling them, so that every ViT family keeps its own norms, layer scales and MLPs. Only
their attention branch is replaced where its outcome is already known. Each shortcut is checked against
the model's own forward pass before it is used; where the check fails, the longer way is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitmech_utils.heads.hooks import split_heads
from vitmech_utils.model.anatomy import Anatomy, AttentionBlock

# How far a shortcut may lie from the model's own output, relative to its largest value: above each
# format's noise over some tens of layers, far below what a missed operation would change.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


FIELDS = ("logits", "predicted_depth", "image_embeds", "pooler_output")
"""Where outputs of transformers keep a model's answer."""
# What calling blocks one by one raises where a model does not pass its tokens through them as is usual.
_UNUSUAL = (RuntimeError, IndexError, KeyError, TypeError, ValueError, AttributeError)


class ReplayError(RuntimeError):
    """This model's blocks cannot be resumed; one plain hook per head remains possible."""


def answer(output: object) -> Tensor | None:
    """A model's answer [image, ...] in what it returns: a tensor or the field with one; None for tokens alone."""
    if isinstance(output, Tensor):
        return output
    fields = (getattr(output, name, None) for name in FIELDS)
    return next((found for found in fields if isinstance(found, Tensor)), None)


def predict(model: nn.Module, pixel_values: Tensor) -> Float[Tensor, "image ..."]:
    """Run `model` and return its predictions: the tensor that it returns, or its output's `logits` (`FIELDS`).

    One number per image [image] comes back as [image, 1]. Raises `ValueError` for a bare backbone, which returns
    tokens alone.
    """
    output = model(pixel_values)
    found = answer(output)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} returns {type(output).__name__} without logits: heads are judged by an answer; "
            "wrap the model in a module that returns a tensor [image, ...], its features say"
        )
    return found.unsqueeze(1) if found.ndim == 1 else found


class Replay:
    """One forward pass of a batch of images, kept so that it can be resumed at any layer.

    `predictions` [image, ...] is what the model says of the unchanged images, and `heads[layer]`
    [image, token, head, head_size] what its heads write. Hold it no longer than needed: it keeps two
    arrays of [image, token, hidden] per layer. Raises `ReplayError` where the blocks do more than add an
    attention branch and a branch per token, or where what follows them needs more than their output.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy, pixel_values: Float[Tensor, "image ..."]):
        try:
            self._run_once(model, anatomy, pixel_values)
        except torch.OutOfMemoryError:
            raise
        except _UNUSUAL as error:
            if isinstance(error, ReplayError):
                raise
            raise ReplayError(f"the blocks cannot be called one by one ({error})") from error

    def _run_once(self, model: nn.Module, anatomy: Anatomy, pixel_values: Tensor) -> None:
        self.model, self.anatomy = model, anatomy
        self._first_image = pixel_values[:1]
        self.heads: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._extra: list[tuple[tuple, dict]] = []
        self._branches = [_branch(block.block, block.output) for block in anatomy.blocks]
        self._last = anatomy.layers - 1
        self._last_norm: nn.Module | None = None
        with ExitStack() as stack:
            seen = self._watch(stack)
            self.predictions = predict(model, pixel_values)
        self._branch_is_tuple, self._block_is_tuple = seen["branch"], seen["block"]
        cls_row = nn.functional.pad(seen["last"][:, :1], (0, 0, 0, seen["last"].shape[1] - 1))
        self._cls_tail = self._agrees(self._tail(cls_row), self.predictions)
        if not self._cls_tail and not self._agrees(self._tail(seen["last"]), self.predictions):
            raise ReplayError("what follows the last block depends on more than that block's output")
        plain = self.anatomy.blocks[-1].parts is not None
        self._cls_attention_known = self._cls_tail and self._last_norm is not None and plain
        if self._cls_attention_known:
            short = self._last_block_for_cls(self._inputs[-1])
            self._cls_attention_known = self._agrees(short, seen["last"][:, :1])

    def resume(
        self,
        layer: int,
        images: Int[Tensor, " variant"],
        change: Float[Tensor, "variant token hidden"],
    ) -> Float[Tensor, "variant ..."]:
        """Predict `images` with `change` added to what the attention of `layer` (0-based) writes."""
        hidden = self.start(layer, images, change)
        for later in range(layer + 1, self._last):
            hidden = self.advance(later, hidden)
        return self.finish(hidden, layer)

    def start(
        self,
        layer: int,
        images: Int[Tensor, " variant"],
        change: Float[Tensor, "variant token hidden"],
    ) -> Float[Tensor, "variant left hidden"]:
        """What leaves `layer` (0-based) for `images` with `change` added to what its attention writes.

        After the last layer, of the CLS token alone where that is known to suffice.
        """
        block, cls_only = self.anatomy.blocks[layer], self._cls_tail and layer == self._last
        rows = slice(0, 1) if cls_only else slice(None)
        own = block.numbers.pick(self.heads[layer][:, rows], 2)
        written = block.output(own.flatten(2))[images] + change[:, rows]
        return self._run(layer, self._inputs[layer][images, rows], written)

    def advance(
        self, layer: int, hidden: Float[Tensor, "variant token hidden"]
    ) -> Float[Tensor, "variant token hidden"]:
        """What leaves `layer` (0-based, not the last), whatever enters it; hooks on its modules are heeded."""
        return self._run(layer, hidden)

    def finish(
        self, hidden: Float[Tensor, "variant left hidden"], layer: int
    ) -> Float[Tensor, "variant ..."]:
        """Predict from what left `layer`: the layer before the last, or the last one by `start`."""
        return self._finish(hidden) if layer < self._last else self._tail(hidden)

    def rerun(self, layer: int, keep: bool = False) -> Float[Tensor, "image ..."]:
        """Predict the same images from `layer` on, with the weights that the later layers have by now.

        With `keep`, what is found becomes the pass that later reruns start from, and its `predictions`; heads of the
        pass before are dropped, so that it can no longer be resumed.
        """
        hidden = self._inputs[layer]
        if keep:
            self.heads = []
        for later in range(layer, self._last):
            hidden = self._run(later, hidden)
            if keep:
                self._inputs[later + 1] = hidden
        found = self._finish(hidden)
        if keep:
            self.predictions = found
        return found

    @contextmanager
    def last_block_for_cls(self) -> Iterator[None]:
        """Let the model itself run its last block for the CLS token alone, where that is known to suffice.

        Serves any images, also in passes that keep gradients; the last block's heads then write for one token.
        """
        block = self.anatomy.blocks[-1].block
        own = block.forward

        def short(*args, **kwargs):
            with computing(block, own):
                outcome = self._last_block_for_cls(args[0] if args else kwargs["hidden_states"])
            return (outcome,) if self._block_is_tuple else outcome

        with computing(block, short) if self._cls_attention_known else nullcontext():
            yield

    def check(self) -> None:
        """Resume one image at the first layer without a change; raise `ReplayError` if the outcome differs."""
        first = torch.zeros(1, dtype=torch.long, device=self.predictions.device)
        try:
            again = self.resume(0, first, torch.zeros_like(self._inputs[0][:1]))
        except torch.OutOfMemoryError:
            raise
        except _UNUSUAL as error:
            raise ReplayError(f"the blocks cannot be called one by one ({error})") from error
        if not self._agrees(again, self.predictions[:1]):
            raise ReplayError("the blocks, called one by one, do not give the model's own output")

    def _watch(self, stack: ExitStack) -> dict:
        seen: dict = {}
        last_block = self.anatomy.blocks[-1].block
        produced: list[tuple[nn.Module, Tensor]] = []

        def before_block(_module, args, kwargs):
            self._inputs.append(args[0] if args else kwargs["hidden_states"])
            rest = {name: value for name, value in kwargs.items() if args or name != "hidden_states"}
            self._extra.append((args[1:], rest))

        def after_projection(_module, inputs, output):
            self.heads.append(split_heads(inputs[0], self.anatomy.blocks[len(self.heads)].numbers))
            seen["projected"] = output

        def after_branch(_module, args, kwargs, output):
            seen["branch"] = isinstance(output, tuple)
            if not self._agrees(_first(output), seen.pop("projected")):
                raise ReplayError("a block's attention adds more than its output projection's outcome")
            read = args[0] if args else kwargs.get("hidden_states")
            self._last_norm = next((module for module, made in produced if made is read), None)

        def after_block(_module, _inputs, output):
            seen["block"], seen["last"] = isinstance(output, tuple), _first(output)

        def after_child(module, _inputs, output):
            produced.append((module, output))

        for child in last_block.children():
            if child is not self._branches[-1]:
                stack.callback(child.register_forward_hook(after_child).remove)
        for block, branch in zip(self.anatomy.blocks, self._branches, strict=True):
            for handle in (
                block.block.register_forward_pre_hook(before_block, with_kwargs=True),
                block.output.register_forward_hook(after_projection),
                branch.register_forward_hook(after_branch, with_kwargs=True),
                block.block.register_forward_hook(after_block),
            ):
                stack.callback(handle.remove)
        return seen

    def _run(self, layer: int, hidden: Tensor, written: Tensor | None = None) -> Tensor:
        args, kwargs = self._extra[layer]
        block = self.anatomy.blocks[layer].block
        if written is None:
            return _first(block(hidden, *args, **kwargs))
        known = (written, None) if self._branch_is_tuple else written
        with computing(self._branches[layer], lambda *_args, **_kwargs: known):
            return _first(block(hidden, *args, **kwargs))

    def _finish(self, hidden: Tensor) -> Tensor:
        """The last block and what follows it, for the CLS token alone where that is known to suffice."""
        short = self._cls_attention_known
        hidden = self._last_block_for_cls(hidden) if short else self._run(self._last, hidden)
        return self._tail(hidden[:, :1] if self._cls_tail else hidden)

    def _last_block_for_cls(self, hidden: Tensor) -> Tensor:
        block = self.anatomy.blocks[-1]
        written = block.output(cls_attention(self._last_norm(hidden), block))
        return self._run(self._last, hidden[:, :1], written)

    def _tail(self, hidden: Tensor) -> Tensor:
        """Everything after the last block. The blocks pass through, so one image's embedding is enough."""
        outcome = (hidden,) if self._block_is_tuple else hidden
        with ExitStack() as stack:
            for block in self.anatomy.blocks[:-1]:
                stack.enter_context(computing(block.block, self._pass_through))
            stack.enter_context(computing(self.anatomy.blocks[-1].block, lambda *_args, **_kwargs: outcome))
            return predict(self.model, self._first_image)

    def _pass_through(self, *args, **kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden,) if self._block_is_tuple else hidden

    @staticmethod
    def _agrees(short: Tensor, full: Tensor) -> bool:
        if short is full:
            return True
        if short.shape != full.shape:
            return False
        scale = full.abs().max().clamp_min(1e-6)
        return bool((short - full).abs().max() <= TOLERANCE[full.dtype] * scale)


def cls_attention(
    normed: Float[Tensor, "image token hidden"], block: AttentionBlock
) -> Float[Tensor, "image 1 width"]:
    """What the heads write for the CLS token alone, from the attention's input.

    Keys and values of the other tokens are never formed: q . (W x) = (W^T q) . x, and a mean of W x is W
    times the mean of x. The key bias shifts all of a head's logits alike, so softmax drops it.
    """
    heads, size = len(block.numbers.kept), block.numbers.size
    key, value = (p.weight.unflatten(0, (heads, size)) for p in (block.key, block.value))
    query = nn.functional.linear(normed[:, 0], block.query.weight, block.query.bias)
    reading = torch.einsum("bhd,hdm->bhm", query.unflatten(1, (heads, size)), key)
    weights = torch.softmax(reading @ normed.transpose(1, 2) * size**-0.5, dim=-1)
    written = torch.einsum("bhm,hdm->bhd", weights @ normed, value).flatten(1)
    return (written if block.value.bias is None else written + block.value.bias).unsqueeze(1)


def _branch(block: nn.Module, output: nn.Module) -> nn.Module:
    """The child of `block` that holds its attention, output projection included."""
    for child in block.children():
        if any(module is output for module in child.modules()):
            return child
    raise ReplayError(f"{type(block).__name__} holds its output projection in no child module")


def _first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def computing(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Let `module` compute `forward` instead, on this instance alone, until the context closes."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
