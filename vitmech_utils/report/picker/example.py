"""Made-up arrays in the shape of a real analysis, to try the head picker without a model."""

import numpy as np

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.report.picker.answer import Answer, Tracks

MOST = 1024  # of anything that an example counts
REGIONS = ("margin", "plot background", "chirp", "title", "axis label", "tick label", "colour bar")


@checked_arguments()
def example_arrays(
    layers: int = 12,
    heads: int = 6,
    grid: tuple[int, int] = (16, 16),
    images: int = 6,
    *,
    size: int = 224,
    variants: int = 2,
    twins: bool = True,
    queries: int = 8,
    query_heads: int | None = None,
    seed: int = 0,
) -> dict:
    """Return keyword arguments of `HeadPicker`: Gaussian spots as maps, striped images, random effects and classes.

    `grid` counts patches (rows, columns), `queries` is the side of the query grid (0: no patch queries), `query_heads`
    keeps patch queries for the first heads alone (None: all heads). Every number is invented.
    """
    counts = {"layers": layers, "heads": heads, "images": images, "size": size, "variants": variants, "rows": grid[0],
              "columns": grid[1]}  # fmt: skip
    for name, count in counts.items():
        if not 1 <= count <= MOST:
            raise ValueError(f"{name}: expected a number in 1..{MOST}, got {count}")
    if query_heads is not None and not 0 < query_heads <= layers * heads:
        raise ValueError(f"query_heads: expected a number in 1..{layers * heads}, got {query_heads}")
    for name, count in {"queries": queries, "seed": seed}.items():
        if count < 0 or (name == "queries" and count > min(grid)):
            raise ValueError(f"{name}: expected 0 or more (queries: at most those of the grid), got {count}")
    rng = np.random.default_rng(seed)
    shape = (variants, images, layers, heads)
    effect = rng.normal(0.2, 1.0, (layers, heads)) + 2.5 * rng.exponential(size=(layers, heads)) ** 2 / 4
    width = rng.uniform(0.1, 1.2, (layers, heads))
    shares = rng.dirichlet(np.full(len(REGIONS), 0.7), shape)
    classes = np.array(["diffuse", "monosemantic", "polysemantic"])[rng.integers(0, 3, (layers, heads))]
    arrays = {
        "maps": _spots(rng, shape, grid),
        "images": _pictures(rng, images, size, decorated=True),
        "variants": ["fine-tuned", "pre-trained", "random", "other"][:variants],
        "image_labels": [f"chirp {index + 1}" for index in range(images)],
        "effect": effect,
        "effect_low": effect - width,
        "effect_high": effect + width,
        "entropy": rng.uniform(1.0, np.log(grid[0] * grid[1]), (layers, heads)),
        "head_class": classes.tolist(),
        "evidence": [
            [f"{kind}: invented for layer {layer + 1}, head {head + 1}" for head, kind in enumerate(row)]
            for layer, row in enumerate(classes)
        ],
        "shares": shares,
        "area_shares": rng.dirichlet(np.full(len(REGIONS), 3.0), images),
        "regions": REGIONS,
        "title": "Attention heads of an example",
    }
    arrays["coverage"] = _coverage(rng, images, grid)
    arrays["origin"] = np.array(["inherited", "emerged"])[rng.integers(0, 2, (layers, heads))].tolist()
    arrays["answer"] = _answer(rng, (1 + twins, images, layers, heads))
    if twins:
        bare = _pictures(np.random.default_rng(seed), images, size, decorated=False)
        arrays |= {"twin_maps": _spots(rng, shape, grid), "twin_images": bare}
    if queries:
        stored = layers * heads if query_heads is None else query_heads
        pairs = [divmod(index, heads) for index in range(stored)]
        maps = np.stack([_query_spots(rng, grid, queries) for _ in pairs])
        arrays |= {"query_maps": maps, "query_heads": pairs}
    return arrays


def _coverage(rng: np.random.Generator, images: int, grid: tuple[int, int]) -> np.ndarray:
    """Patches that lie on one or two regions each, [image, region, row, column]."""
    first, second = rng.integers(0, len(REGIONS), (2, images, *grid))
    part = rng.uniform(0.5, 1, (images, *grid))
    names = np.arange(len(REGIONS))[:, None, None]
    return (first[:, None] == names) * part[:, None] + (second[:, None] == names) * (1 - part)[:, None]


def _answer(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> Answer:
    """Answers of three numbers that every head moves a little, exactly and by estimate; sets go beyond the sum."""
    twins, images, layers, heads = shape
    truth = np.stack([rng.uniform(5, 40, images), *rng.uniform(20, 80, (2, images))], -1)
    whole = truth + rng.normal(0, 0.5, (twins, images, 3))
    shifts = rng.normal(0, 1, (*shape, 3)) * rng.exponential(size=(layers, heads, 1)) ** 2
    member = rng.random((12, layers, heads)) < 0.15
    sums = np.einsum("slh,tilho->stio", member, shifts)
    return Answer(
        whole,
        whole[:, :, None, None] + shifts,
        outputs=("start time", "start frequency", "end frequency"),
        units=("s", "Hz", "Hz"),
        truth=truth,
        slopes=shifts * rng.uniform(0.7, 1.1, shifts.shape),
        scale=(13.0, 29.0, 33.0),
        sets=member,
        without_sets=whole + sums * rng.uniform(0.8, 1.0, sums.shape),
        tracks=Tracks(
            box=(0.125, 0.12, 0.875, 0.88), duration=rng.uniform(4, 15, images),
            exponential=np.arange(images) % 2 == 1,
        ),
    )  # fmt: skip


def _spots(rng: np.random.Generator, shape: tuple[int, ...], grid: tuple[int, int]) -> np.ndarray:
    row, column = np.meshgrid(np.linspace(0, 1, grid[0]), np.linspace(0, 1, grid[1]), indexing="ij")
    row_centre, column_centre = rng.random((2, *shape, 1, 1), dtype=np.float32)
    width = 0.05 + 0.4 * rng.random((*shape, 1, 1), dtype=np.float32)
    maps = np.exp(-((row - row_centre) ** 2 + (column - column_centre) ** 2) / width**2).astype(np.float32)
    maps += 0.1 * rng.random(maps.shape, dtype=np.float32)
    return maps / maps.sum(axis=(-1, -2), keepdims=True)


def _query_spots(rng: np.random.Generator, grid: tuple[int, int], queries: int) -> np.ndarray:
    """Each query looks at its own place: [query row, query column, row, column]."""
    place = (np.arange(queries) + 0.5) / queries
    row, column = (np.arange(side, dtype=np.float32) / max(side - 1, 1) for side in grid)
    width = rng.uniform(0.1, 0.5)
    down = np.exp(-((row - place[:, None]) ** 2) / width**2)
    across = np.exp(-((column - place[:, None]) ** 2) / width**2)
    maps = np.einsum("ar,bc->abrc", down, across)
    return (maps / maps.sum(axis=(-1, -2), keepdims=True)).astype(np.float32)


def _pictures(rng: np.random.Generator, images: int, size: int, decorated: bool) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    pictures = np.empty((images, size, size, 3), np.uint8)
    for index in range(images):
        start, slope = rng.uniform(0.2, 0.7), rng.uniform(-0.4, 0.4)
        ridge = np.exp(-((y - start - slope * x) ** 2) / 0.001)
        light = np.clip(0.2 * rng.random((size, size)) + 0.8 * ridge, 0, 1)
        pictures[index] = np.stack([60 + 180 * light, 20 + 200 * light, 90 + 40 * (1 - light)], axis=-1)
        if decorated:
            frame = (np.minimum(x, 1 - x) < 0.1) | (np.minimum(y, 1 - y) < 0.1)
            pictures[index][frame] = 255
            title = (abs(y - 0.05) < 0.02) & (abs(x - 0.5) < 0.2) & (np.floor(x * 56) % 2 == 0)
            pictures[index][title] = 30
    return pictures
