"""What a head picker shows, in one place: `PickerData`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from vitmech_utils.report.picker.answer import Answer


@dataclass(frozen=True, eq=False)
class PickerData:
    """Everything a `HeadPicker` shows: arrays, names and texts. Only `maps` and `images` are required.

    Arrays are numpy's, or anything `numpy.asarray` reads; N images, L layers, H heads, P x Q patches, R regions:

    - `maps` [(variant,) image, layer, head, row, column]: the CLS query's attention per patch, >= 0
    - `images` uint8 [image, height, width, 3] or [image, height, width]
    - `variants`: names, one per variant of `maps`, such as `("fine-tuned", "pre-trained")`; all that is said of heads
      (effect, lift, class) is about the first
    - `twin_maps`, `twin_images`: as `maps` and `images`, for other pictures of the same content; `twins`: both names
    - `image_labels`: N names
    - `effect`, `effect_low`, `effect_high` [layer, head]: ablation effect and its interval in `effect_unit`, signed
    - `lift` [layer, head, region], attention share / area share; computed from both shares where not given
    - `entropy` [layer, head] in `entropy_unit`
    - `head_class`, `evidence`: texts [layer, head] (nested lists or an object array)
    - `shares` [((variant,) image,) layer, head, region] and `area_shares` [(image,) region]: fractions in [0, 1] of the
      attention and of the area; `regions`: R names
    - `coverage` [(image,) region, row, column]: the part of each patch that lies on each region, in [0, 1]; with it,
      shares of patch queries and unmixed shares are known, and `area_shares` where not given
    - `origin`: texts [layer, head], where a head's class comes from, such as "inherited"
    - `answer`: an `Answer`, what the model says of the images and would say without heads
    - `query_maps` [layer, head, query row, query column, row, column]: patch queries of the image `query_image`, for
      the first variant and twin; with `query_heads`, a list of (layer, head), they are [head, query row, ...]. Both
      grids may be coarser than that of `maps`
    - `map_levels`, `query_levels`: steps that a map is rounded to, relative to its own maximum (256, and 32)
    - `title`; `name` opens deep links `#name:L6H4` to this picker (letters, digits, `-`, `_`)

    NaN in `effect`, its interval, `lift` and `entropy` means unknown. Layers, heads and images are 0-based. What does
    not fit together is refused when a picker is made from it. To change a field, use `dataclasses.replace`.
    """

    maps: object
    images: object
    variants: Sequence[str] | None = None
    twin_maps: object | None = None
    twin_images: object | None = None
    twins: Sequence[str] = ("decorated", "undecorated")
    image_labels: Sequence[str] | None = None
    effect: object | None = None
    effect_low: object | None = None
    effect_high: object | None = None
    effect_label: str = "effect on the MSE"
    effect_unit: str = "%"
    lift: object | None = None
    entropy: object | None = None
    entropy_unit: str = "nats"
    head_class: object | None = None
    evidence: object | None = None
    shares: object | None = None
    area_shares: object | None = None
    regions: Sequence[str] = ()
    coverage: object | None = None
    origin: object | None = None
    answer: Answer | None = None
    query_maps: object | None = None
    query_heads: Sequence[tuple[int, int]] | None = None
    query_image: int = 0
    map_levels: int = 256
    query_levels: int = 32
    title: str = "Attention heads"
    name: str = ""


FIELDS = tuple(field.name for field in fields(PickerData))
