"""Names beside points: none covers another, whatever the scale, and all lie within the plot."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from vitmech_utils.figures.marks import LEADER_FROM, effect_scatter, name_largest, percent_scale
from vitmech_utils.studies.task.plots import by_lift

NAMES = [f"L{layer}H{head}" for layer in range(1, 13) for head in range(1, 7)]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def names(ax) -> list[Text]:
    return [text for text in ax.texts if text.get_text().startswith("L")]


def boxes(ax) -> list:
    ax.figure.canvas.draw()
    return [Text.get_window_extent(text) for text in names(ax)]


def apart(ax) -> bool:
    return not any(one.overlaps(other) for one, other in combinations(boxes(ax), 2))


def within(ax) -> bool:
    frame = ax.get_window_extent().padded(0.5)
    return all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes(ax))


def crowd(seed: int = 0) -> tuple[pd.Series, pd.Series]:
    """Effects in percent of 72 heads, the eight largest nearly the same."""
    rng = np.random.default_rng(seed)
    first, second = (pd.Series(rng.normal(0, 3, len(NAMES))) for _ in range(2))
    first[:8], second[:8] = 590 + rng.normal(0, 4, 8), 610 + rng.normal(0, 4, 8)
    return first, second


@pytest.mark.parametrize("dpi", [72, 150])
def test_the_names_of_a_crowd_lie_apart_and_within_the_plot(dpi) -> None:
    _, axes = plt.subplots(1, 2, figsize=(8.6, 3.8), dpi=dpi, layout="constrained")
    for ax in axes:
        effect_scatter(ax, *crowd(), NAMES, label=8)
        percent_scale(ax, "xy")  # after the names were given
        ax.set(xlabel="first (%)", ylabel="second (%)", title="the same heads")
    for ax in axes:
        assert sorted(text.get_text() for text in names(ax)) == sorted(NAMES[:8])
        assert apart(ax)
        assert within(ax)


def test_points_at_one_place_all_get_a_name() -> None:
    _, ax = plt.subplots(figsize=(3, 2))
    name_largest(ax, [1.0] * 6, [1.0] * 6, NAMES[:6], range(6), count=6)
    assert apart(ax)


def test_a_name_that_had_to_move_is_tied_to_its_point() -> None:
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 1], "o")
    texts = name_largest(ax, [0.5] * 12, [0.5] * 12, NAMES[:12], np.arange(12.0), count=12)
    ax.figure.canvas.draw()
    pixels = LEADER_FROM * ax.figure.dpi / 72
    point = ax.transData.transform((0.5, 0.5))
    for text in texts:
        box = Text.get_window_extent(text)
        gap = np.clip([box.min - point, point - box.max], 0, None).max()
        assert text.arrow_patch.get_visible() == (gap > pixels)
    assert not texts[0].arrow_patch.get_visible()
    assert texts[-1].arrow_patch.get_visible()


def test_a_name_leaves_marks_free_where_there_is_room() -> None:
    _, ax = plt.subplots()
    # The others stand where the first one's name would.
    x, y = np.array([0.5, 0.53, 0.56]), np.array([0.5, 0.52, 0.53])
    ax.plot(x, y, "o")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    name_largest(ax, x, y, NAMES[:3], [3, 2, 1], count=1)
    (box,) = boxes(ax)
    assert not any(box.contains(*ax.transData.transform(point)) for point in zip(x, y, strict=True))


def test_a_name_without_a_leader_stands_nearest_to_its_own_mark() -> None:
    _, ax = plt.subplots()
    # The second one lies where the first one's name would end.
    x, y = np.array([0.5, 0.515, 0.1]), np.array([0.5, 0.56, 0.1])
    ax.plot(x, y, "o")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    (text,) = name_largest(ax, x, y, NAMES[:3], [3, 2, 1], count=1)
    (box,) = boxes(ax)
    gaps = [
        max(box.x0 - at[0], at[0] - box.x1, box.y0 - at[1], at[1] - box.y1)
        for at in ax.transData.transform(np.column_stack([x, y]))
    ]
    assert gaps[0] < gaps[1] or text.arrow_patch.get_visible()


def test_heads_without_a_value_are_not_named() -> None:
    _, ax = plt.subplots()
    texts = name_largest(ax, [0, 1, 2, np.nan], [0, 1, 2, 3], NAMES[:4], [np.nan, 5, 4, 9], count=3)
    assert [text.get_text() for text in texts] == [NAMES[1], NAMES[2]]


def test_heads_that_carry_as_much_keep_their_names_readable() -> None:
    lift = np.linspace(0.2, 3, len(NAMES))
    way = np.where(np.arange(len(NAMES)) < 69, 0.0, 0.5)
    lift[-3:] = 2.0
    table = pd.DataFrame({"lift": lift, "way": way, "kind": "other heads"})
    _, ax = plt.subplots(figsize=(7.2, 3.6))
    by_lift(ax, table, NAMES, "way", "part")
    assert {text.get_text() for text in names(ax)} == set(NAMES[-3:])
    assert apart(ax)
