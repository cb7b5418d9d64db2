"""The scoreboard's rows on origin and pruning: every outcome from made-up artefacts, and runs that cannot be judged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_claims import made_up, seal, write_run

from vitmech_utils.pipeline import scoreboard_page
from vitmech_utils.report.claims import BEYOND, scoreboard
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.studies.origin.measure import transitions
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, OPEN, UNKNOWN

ORIGIN, PRUNING, TOGETHER, ATTACKS, RECORDINGS, TASK, MECHANISM = (judge.CHAPTER for judge in BEYOND)

Classes = dict[str, pd.DataFrame]
IMAGES = 50


def network(text: int = 0, chirp: int = 0, sure: int = 72) -> pd.DataFrame:
    """Classes of 12 x 6 heads: the first `text` are about the title, the last `chirp` about the chirp."""
    layer, head = (axis.ravel() for axis in np.indices((12, 6)))
    frame = pd.DataFrame({"layer": layer, "head": head, "class": "positional", "regions": ""})
    frame.loc[frame.index < text, ["class", "regions"]] = ["monosemantic", "title"]
    frame.loc[frame.index >= 72 - chirp, ["class", "regions"]] = ["monosemantic", "chirp"]
    return frame.assign(confidence=np.where(frame.index < sure, 1.0, 0.5))


def origin_tables(
    before: pd.DataFrame, after: pd.DataFrame, bare: pd.DataFrame, bare_steps: int = 400
) -> dict[str, pd.DataFrame]:
    pairs = {("pre-trained", "fine-tuned"): (before, after), ("bare", "fine-tuned"): (bare, after)}
    moves = [transitions(*tables).assign(before=names[0], after=names[1]) for names, tables in pairs.items()]
    recipe = pd.DataFrame({"what": ["steps"], "fine-tuned": [400], "bare": [bare_steps]})
    return {"transitions": pd.concat(moves), "by_chance": transitions(before, before), "recipe": recipe}


def pruned_tables(
    error: tuple[float, float], recovered: tuple[float, float], speeds: list[tuple[float, float]]
) -> dict[str, pd.DataFrame]:
    rows = []
    for is_recovered, (low, high) in ((False, error), (True, recovered)):
        value = (low + high) / 2
        rows.append(
            {
                "name": "layers 1-3 (18)" + (", recovered" if is_recovered else ""),
                "choice": "layers 1-3",
                "heads": 18,
                "recovered": is_recovered,
                "images": IMAGES,
                **dict(zip(("effect", "low", "high"), (value, low, high), strict=True)),
                "effect_same_training": value,
                "low_same_training": low,
                "high_same_training": high,
            }
        )
    times = pd.DataFrame(
        [
            ("layers 1-3 (18)", device, batch, False, (low + high) / 2, low, high)
            for device in ("other", "cpu")
            for batch, (low, high) in zip((1, 32), speeds, strict=True)
        ],
        columns=["model", "device", "batch", "compiled", "speedup", "speedup_low", "speedup_high"],
    )
    times.loc[times["device"] == "other", ["speedup", "speedup_low", "speedup_high"]] = 777.0
    return {
        "pruned": pd.DataFrame(rows),
        "random_sets": pd.DataFrame({"effect": [10.0, 300.0]}),
        "timings_summary": times,
    }


def together_tables(
    differing: int, ranks: tuple[float, float], images: int = IMAGES
) -> dict[str, pd.DataFrame]:
    groups = pd.DataFrame({"set": [f"layer {i + 1}" for i in range(12)], "kind": "layer", "effect": 50.0})
    groups = groups.assign(low_effect=40.0, high_effect=60.0, sum_of_single=10.0, excess=np.arange(12.0))
    value, (low, high) = sum(ranks) / 2, ranks
    claim = pd.DataFrame(
        [
            ("layers that differ from the sum", differing, np.nan, np.nan, 12, images),
            ("random sets that differ from the sum", 3, np.nan, np.nan, 10, images),
            ("rank correlation", value, low, high, 72, images),
        ],
        columns=["quantity", "value", "low", "high", "of", "images"],
    )
    return {"groups": groups, "claim_q7": claim}


def attack_tables(
    attacked: tuple[float, float],
    carried: tuple[float, float],
    ablated: tuple[float, float] = (50.0, 90.0),
    images: int = IMAGES,
) -> dict[str, pd.DataFrame]:
    """Four decorations alike; no head looks at the frame."""
    beyond = (attacked[0] - ablated[1], attacked[1] - ablated[0])
    found = {"attacked": attacked, "carried": carried, "carried_same_layers": carried}
    found |= {"ablated": ablated, "beyond_ablation": beyond}
    rows = [
        (target, quantity, sum(ends) / 2, *ends, 3, images, 16.0, 200)
        for target in ("title", "labels", "colour bar", "frame")
        for quantity, ends in found.items()
        if quantity == "attacked" or target != "frame"
    ]
    columns = ["target", "quantity", "value", "low", "high", "heads", "images", "budget", "pixels"]
    return {"claims_c8_q6": pd.DataFrame(rows, columns=columns)}


def recording_tables(
    kept: tuple[int, int],
    pieces: int = 24,
    recordings: int = 4,
    shared: tuple[float, float] | None = (0.85, 1.0),
) -> dict[str, pd.DataFrame]:
    rows = [
        (kind, low, low, high, 10, pieces, 72, recordings)
        for kind, (low, high) in {"strain": kept, "calls": kept}.items()
    ]
    columns = ["kind", "kept", "low", "high", "heads", "pieces", "windows", "recordings"]
    controls = pd.DataFrame(
        {"pair": ["strain"], "asked": ["elsewhere"], "lift": 0.4, "low": 0.3, "high": 0.6}
    )
    tables = {"claim_q2": pd.DataFrame(rows, columns=columns), "controls": controls}
    if shared:
        orders = {"share": sum(shared) / 2, "share_low": shared[0], "share_high": shared[1], "images": 20}
        tables["real_orders"] = pd.DataFrame([{"compared": "fine-tuned on real chirps", **orders}])
    return tables


def task_tables(
    shared: tuple[float, float],
    training: tuple[float, float] = (0.85, 1.0),
    lie: tuple[float, float] = (0.5, 0.9),
    images: int = IMAGES,
) -> dict[str, pd.DataFrame]:
    """Both orders of heads alike in what they share."""
    by_kind = {"shared": shared, "ceiling": (0.7, 0.9), "another training": training}
    by_kind["heads permuted within layers"] = (0.1, 0.3)
    rows = [("control", "the title's lie", *lie)]
    rows += [(kind, name, *ends) for kind, ends in by_kind.items() for name in ("effect", "attention")]
    claim = pd.DataFrame(rows, columns=["kind", "quantity", "low", "high"])
    claim["value"] = (claim["low"] + claim["high"]) / 2
    return {"claim_q5": claim.assign(images=images, sweep_images=16, heads=72)}


def account_tables(
    correlation: tuple[float, float] = (0.85, 0.95),
    slope: tuple[float, float] = (0.3, 0.5),
    control: tuple[float, float] = (-0.05, 0.05),
    trainings: int = 3,
    images: int = IMAGES,
    other: tuple[float, float] | None = None,
) -> dict[str, pd.DataFrame]:
    """One head per training; `other` is the correlation of the end frequency."""
    rows = [
        (f"training {seed}", role, 9, head, target, sum(told) / 2, *told, sum(ends) / 2, *ends, images)
        for seed in range(trainings)
        for role, head, ends in (("strongest", 4, slope), ("control", 0, control))
        for target in ("start_time", "start_freq", "end_freq")
        for told in [other if other and target == "end_freq" else correlation]
    ]
    columns = ["training", "role", "layer", "head", "target", "correlation", "low", "high"]
    columns += ["slope", "low_slope", "high_slope", "images"]
    return {"head_account": pd.DataFrame(rows, columns=columns)}


def add_chapter(run: Path, chapter: str, tables: dict[str, pd.DataFrame], profile: str = "made-up") -> None:
    (run / chapter).mkdir()
    for name, frame in tables.items():
        frame.to_parquet(run / chapter / f"{name}.parquet", index=False)
    seal(run / chapter, IMAGES, profile)


def judged(run: Path, origin: dict[str, pd.DataFrame] | None = None, pruned=None, **others) -> pd.DataFrame:
    write_run(run, made_up())
    if origin is not None:
        add_chapter(run, ORIGIN, origin)
    if pruned is not None:
        add_chapter(run, PRUNING, pruned)
    for chapter, tables in others.items():
        add_chapter(
            run,
            {
                "together": TOGETHER,
                "attacks": ATTACKS,
                "recordings": RECORDINGS,
                "task": TASK,
                "mechanism": MECHANISM,
            }[chapter],
            tables,
        )
    return scoreboard(run).set_index("id")


HOME = network(text=10, chirp=10)
ORIGINS: list[tuple[str, str, Callable[[], dict[str, pd.DataFrame]]]] = [
    ("C7", HOLDS, lambda: origin_tables(network(), HOME, HOME)),
    ("C7", IN_PART, lambda: origin_tables(network(text=7), HOME, HOME)),
    ("C7", FAILS, lambda: origin_tables(network(text=10, chirp=2), HOME, HOME)),
    ("C7", UNKNOWN, lambda: origin_tables(network(sure=0), HOME, HOME)),
    ("Q3", HOLDS, lambda: origin_tables(network(text=9), HOME, HOME)),
    ("Q3", IN_PART, lambda: origin_tables(network(text=6), HOME, HOME)),
    ("Q3", FAILS, lambda: origin_tables(network(text=5), HOME, HOME)),
    ("Q3", UNKNOWN, lambda: origin_tables(network(text=10, sure=2), HOME, HOME)),
    ("Q4", HOLDS, lambda: origin_tables(network(), HOME, network(text=8))),
    ("Q4", IN_PART, lambda: origin_tables(network(), HOME, network(text=7))),
    ("Q4", FAILS, lambda: origin_tables(network(), HOME, network(text=1))),
    ("Q4", UNKNOWN, lambda: origin_tables(network(), network(), network(text=1))),
]
PRUNED: list[tuple[str, tuple[float, float], tuple[float, float], list[tuple[float, float]]]] = [
    (HOLDS, (-2.0, 0.5), (-1.0, 0.2), [(1.05, 1.2), (1.1, 1.3)]),
    (IN_PART, (50.0, 90.0), (-1.0, 0.2), [(1.05, 1.2), (1.1, 1.3)]),
    (FAILS, (50.0, 90.0), (2.0, 9.0), [(1.05, 1.2), (1.1, 1.3)]),
    (FAILS, (-2.0, 0.5), (-1.0, 0.2), [(0.8, 0.99), (0.9, 1.0)]),
    (UNKNOWN, (50.0, 90.0), (-3.0, 9.0), [(1.05, 1.2), (1.1, 1.3)]),
]


@pytest.mark.parametrize(("claim", "verdict", "tables"), ORIGINS)
def test_an_origin_row_reaches_each_verdict(
    tmp_path: Path, claim: str, verdict: str, tables: Callable[[], dict[str, pd.DataFrame]]
) -> None:
    row = judged(tmp_path, tables()).loc[claim]
    assert row["verdict"] == verdict
    assert all(row[name] for name in ("ours", "sample", "control", "reason", "would_change", "figure"))
    assert row["chapter"] == ORIGIN


@pytest.mark.parametrize(("verdict", "error", "recovered", "speeds"), PRUNED)
def test_pruning_reaches_each_verdict_by_this_devices_times(
    tmp_path: Path, verdict: str, error, recovered, speeds
) -> None:
    board = judged(tmp_path, pruned=pruned_tables(error, recovered, speeds))
    assert board.loc["Q1", "verdict"] == verdict
    assert f"{np.mean(speeds[0]):.2f}" in board.loc["Q1", "ours"]
    assert "777" not in board.loc["Q1", "ours"]
    assert "all 18 of them pruned for good" in board.loc["C1", "control"]


@pytest.mark.parametrize(
    ("verdict", "differing", "ranks", "images"),
    [
        (HOLDS, 9, (0.3, 0.7), IMAGES),
        (IN_PART, 9, (0.3, 0.95), IMAGES),
        (FAILS, 0, (0.92, 0.98), IMAGES),
        (UNKNOWN, 2, (0.3, 0.95), IMAGES),
        (UNKNOWN, 9, (0.3, 0.7), 19),
    ],
)
def test_heads_together_reach_each_verdict(tmp_path: Path, verdict: str, differing, ranks, images) -> None:
    row = judged(tmp_path, together=together_tables(differing, ranks, images)).loc["Q7"]
    assert row["verdict"] == verdict
    assert f"in {differing} of 12 layers" in row["ours"]
    assert "most in layer 12: +50 %" in row["ours"]
    assert "of 10 random sets as large as a layer, 3 differ" in row["control"]
    assert (row["chapter"], row["images"]) == (TOGETHER, images)


@pytest.mark.parametrize(
    ("verdict", "lacks", "tables"),
    [
        (HOLDS, "", account_tables()),
        (IN_PART, "", account_tables(other=(0.7, 0.9))),
        (FAILS, "", account_tables(correlation=(0.1, 0.4))),
        (FAILS, "", account_tables(slope=(-0.1, 0.1), control=(0.3, 0.5))),
        (UNKNOWN, "images", account_tables(images=39)),
        (UNKNOWN, "trainings", account_tables(trainings=1)),
        (UNKNOWN, "images", account_tables(correlation=(0.4, 0.9))),
        (UNKNOWN, "images", account_tables(slope=(0.01, 0.5))),
    ],
)
def test_how_the_strongest_head_works_reaches_each_verdict(
    tmp_path: Path, verdict: str, lacks: str, tables
) -> None:
    row = judged(tmp_path, mechanism=tables).loc["Q8"]
    assert (row["verdict"], row["lacks"]) == (verdict, lacks)
    assert "layer 10, head 5" in row["ours"]
    assert row["chapter"] == MECHANISM


@pytest.mark.parametrize(
    ("claim", "verdict", "tables"),
    [
        ("C8", HOLDS, attack_tables((20.0, 60.0), (5.0, 30.0))),
        ("C8", FAILS, attack_tables((-0.5, 0.5), (-1.0, 1.0))),
        ("C8", UNKNOWN, attack_tables((20.0, 60.0), (-5.0, 30.0))),
        ("C8", UNKNOWN, attack_tables((20.0, 60.0), (5.0, 30.0), images=19)),
        ("Q6", HOLDS, attack_tables((20.0, 60.0), (5.0, 30.0), ablated=(-0.5, 0.5))),
        ("Q6", IN_PART, attack_tables((200.0, 600.0), (5.0, 30.0), ablated=(5.0, 9.0))),
        ("Q6", FAILS, attack_tables((-0.5, 0.5), (-1.0, 1.0))),
        ("Q6", UNKNOWN, attack_tables((20.0, 60.0), (5.0, 30.0), ablated=(5.0, 90.0))),
    ],
)
def test_attacks_reach_each_verdict(tmp_path: Path, claim: str, verdict: str, tables) -> None:
    row = judged(tmp_path, attacks=tables).loc[claim]
    assert row["verdict"] == verdict
    assert row["chapter"] == ATTACKS
    assert "frame" in row["ours"]
    assert "up to 16/255 on 200 pixels" in row["sample"]


def test_the_images_that_heads_are_ablated_on_are_told_where_they_are_others(tmp_path: Path) -> None:
    tables = attack_tables((20.0, 60.0), (5.0, 30.0))
    before = judged(tmp_path / "before", attacks=tables).loc["Q6", "sample"]
    assert "ablated on" not in before
    tables["claims_c8_q6"]["ablation_images"] = 1_160
    row = judged(tmp_path / "after", attacks=tables).loc["Q6"]
    assert row["sample"] == f"{before}; heads are ablated on 1,160 other images"


@pytest.mark.parametrize(
    ("verdict", "tables"),
    [
        (HOLDS, recording_tables((8, 10))),
        (IN_PART, recording_tables((6, 10))),
        (IN_PART, recording_tables((8, 10), shared=(0.5, 0.9))),
        (IN_PART, recording_tables((8, 10), shared=None)),
        (FAILS, recording_tables((1, 4))),
        (UNKNOWN, recording_tables((3, 9))),
        (UNKNOWN, recording_tables((8, 10), pieces=3)),
        (UNKNOWN, recording_tables((8, 10), recordings=2)),
    ],
)
def test_recordings_reach_each_verdict(tmp_path: Path, verdict: str, tables) -> None:
    row = judged(tmp_path, recordings=tables).loc["Q2"]
    assert row["verdict"] == verdict
    assert row["chapter"] == RECORDINGS
    assert "strain, elsewhere: 0.40 [0.30, 0.60]" in row["control"]
    assert "72 windows" in row["sample"]


@pytest.mark.parametrize(
    ("verdict", "tables"),
    [
        (HOLDS, task_tables((0.82, 0.98))),
        (IN_PART, task_tables((0.6, 0.9))),
        (FAILS, task_tables((0.1, 0.3))),
        (UNKNOWN, task_tables((0.3, 0.7))),
        (UNKNOWN, task_tables((0.1, 0.3), training=(0.2, 0.6))),
        (UNKNOWN, task_tables((0.82, 0.98), lie=(-0.1, 0.3))),
        (UNKNOWN, task_tables((0.82, 0.98), images=19)),
    ],
)
def test_another_task_reaches_each_verdict(tmp_path: Path, verdict: str, tables) -> None:
    row = judged(tmp_path, task=tables).loc["Q5"]
    assert row["verdict"] == verdict
    assert row["chapter"] == TASK
    assert "the architecture or to the task?" in row["claim"]
    shared = tables["claim_q5"].query("kind == 'shared'").iloc[0]
    assert f"by effect {shared['value']:.2f} [{shared['low']:.2f}" in row["ours"]
    assert "the planted shortcut the title's lie: " in row["control"]
    assert "two trainings shares effect: " in row["control"]
    assert "16 for effects" in row["sample"]


def test_an_unknown_share_of_an_order_is_called_so(tmp_path: Path) -> None:
    tables = task_tables((np.nan, np.nan))
    claim = tables["claim_q5"]
    claim.loc[claim["kind"] == "ceiling", ["value", "low", "high"]] = np.nan
    row = judged(tmp_path, task=tables).loc["Q5"]
    assert row["verdict"] == UNKNOWN
    assert "by effect unknown; by attention unknown" in row["ours"]
    assert "nan" not in row["reason"] + row["control"]


def test_trainings_that_do_not_match_tell_nothing_of_decorations(tmp_path: Path) -> None:
    board = judged(tmp_path, origin_tables(network(text=9), HOME, network(text=8), bare_steps=100))
    assert board.loc["Q4", "verdict"] == UNKNOWN
    assert "differ in more than their figures" in board.loc["Q4", "reason"]
    assert board.loc["Q3", "verdict"] == HOLDS  # which does not rest on the second training


def test_rows_stay_open_without_their_chapter(tmp_path: Path) -> None:
    board = judged(tmp_path)
    assert (
        board.loc[["C7", "C8", "Q1", "Q2", "Q3", "Q4", "Q5", "Q6", "Q7", "Q8", "Q9"], "verdict"] == OPEN
    ).all()
    assert "pruned" not in board.loc["C1", "control"]


def test_judged_questions_are_told_in_full_and_open_ones_listed(tmp_path: Path) -> None:
    origin = origin_tables(network(text=9), HOME, HOME)
    write_run(tmp_path, made_up())
    add_chapter(tmp_path, ORIGIN, origin)
    page = scoreboard_page.full(scoreboard(tmp_path))
    assert "(claim-q3)=" in page
    assert "{numref}`fig-four-networks`" in page
    assert "(claim-q1)=" not in page


@pytest.mark.parametrize("chapter", [judge.CHAPTER for judge in BEYOND])
def test_another_profiles_chapter_is_refused(tmp_path: Path, chapter: str) -> None:
    tables = {
        ORIGIN: lambda: origin_tables(HOME, HOME, HOME),
        PRUNING: lambda: pruned_tables((0, 1), (0, 1), [(1, 2)] * 2),
        TOGETHER: lambda: together_tables(9, (0.3, 0.7)),
        ATTACKS: lambda: attack_tables((20.0, 60.0), (5.0, 30.0)),
        RECORDINGS: lambda: recording_tables((8, 10)),
        TASK: lambda: task_tables((0.82, 0.98)),
        MECHANISM: lambda: account_tables(),
    }
    write_run(tmp_path, made_up())
    add_chapter(tmp_path, chapter, tables[chapter](), profile="another")
    with pytest.raises(
        RunError, match=rf"{chapter[:2]} \(another\).*different profile values.*vitmech run all"
    ):
        scoreboard(tmp_path)


def test_a_chapter_without_the_row_that_is_judged_is_refused(tmp_path: Path) -> None:
    tables = pruned_tables((0, 1), (0, 1), [(1, 2)] * 2)
    tables["pruned"] = tables["pruned"][~tables["pruned"]["recovered"]]
    with pytest.raises(RunError, match=r"0 rows for layers 1-3, recovered True.*vitmech run 08"):
        judged(tmp_path, pruned=tables)
