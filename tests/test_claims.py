"""The scoreboard on made-up artefacts: every outcome of every claim, and every way in which a run can be unfit."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_book import ROOT, manifest_for

from vitmech_utils.artefacts import digest, json_text
from vitmech_utils.pipeline import scoreboard_page
from vitmech_utils.report.claims import LIMITS, NEEDED, RULES, TABLES, scoreboard
from vitmech_utils.runs.manifests import RunError, write_manifest
from vitmech_utils.studies import verdicts
from vitmech_utils.studies.ablation import judge as ablation
from vitmech_utils.studies.ablation.measure import STUDY_EARLY, STUDY_LATE
from vitmech_utils.studies.semantics import judge as semantics
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, OPEN, UNKNOWN

LAYERS, HEADS = 12, 6
MANY, FEW = 5000, 3  # images with which every interval is believed, and none
STUDY_RATIO = STUDY_LATE / STUDY_EARLY
ABLATION, SEMANTICS = ablation.CHAPTER, semantics.CHAPTER
NEEDED_RULES = {name: rule for judge in NEEDED for name, rule in judge.RULES.items()}
Tables = dict[str, pd.DataFrame]


def classes(kind: str = "positional", regions: str = "", confidence: float = 1.0) -> pd.DataFrame:
    """All heads of one class; map entropy falls with depth, so the last layer is the least spread out."""
    layer, head = (axis.ravel() for axis in np.indices((LAYERS, HEADS)))
    frame = pd.DataFrame({"layer": layer, "head": head, "class": kind, "regions": regions})
    return frame.assign(confidence=confidence, map_entropy=0.9 - 0.01 * layer)


def made_up(images: int = MANY) -> Tables:
    """Tables of a run in which nothing stands out."""
    layer, head = (axis.ravel() for axis in np.indices((LAYERS, HEADS)))
    sweep = pd.DataFrame({"layer": layer, "head": head, "mode": "mean", "images": images})
    sweep = sweep.assign(effect=0.2, low=-0.1, high=0.5, q_value=0.5)
    quantities = {"early": (0.2, 0.1, 0.3), "late": (0.6, 0.5, 0.7), "ratio": (3.0, 2.0, 4.0)}
    rows = [(mode, name, *values) for mode in ("mean", "zero") for name, values in quantities.items()]
    correlations = [("mean", kind, 0.5, 0.3, 0.7, 0.01) for kind in ("all heads", "within layers")]
    return {
        "claims_c1_c2": pd.DataFrame(rows, columns=["mode", "quantity", "value", "low", "high"]),
        "sweep": sweep,
        "untrained": sweep.assign(mode="zero", effect=0.0),
        "head_sets": pd.DataFrame(
            {"set": ["top 7"], "effect": [90.0], "low": [80.0], "high": [99.0], "sum_of_single": [50.0]}
        ),
        "classes": classes(),
        "untrained_classes": classes(),
        "pretrained_classes": classes(),
        "claims_c3_c6": pd.DataFrame({"claim": ["C3", "C6"], "verdict": [FAILS, HOLDS]}),
        "class_changes": pd.DataFrame(
            {"regions_before": ["", "chirp"], "regions_after": ["chirp", "chirp"], "changed": [True, False]}
        ),
        "importance_and_focus": pd.DataFrame(
            correlations, columns=["mode", "heads", "correlation", "low", "high", "p_value"]
        ),
    }


def write_run(folder: Path, tables: Tables, images: int = MANY, profile: str = "made-up") -> Path:
    """Write tables and sealed manifests as two chapters' runs leave them."""
    for chapter in (ABLATION, SEMANTICS):
        (folder / chapter).mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            if TABLES[name][0] == chapter:
                frame.to_parquet(folder / chapter / f"{name}.parquet", index=False)
        seal(folder / chapter, images, profile)
    return folder


def seal(folder: Path, images: int = MANY, profile: str = "made-up") -> None:
    counts = {"semantics": {"images": images}, "origin": {"images": images}}
    values = {"name": profile, "hash": digest(profile), "values": counts}
    write_manifest(folder, manifest_for(folder, profile=values))


def set_interval(tables: Tables, quantity: str, low: float, high: float, modes: str = "mean|zero") -> None:
    frame = tables["claims_c1_c2"]
    chosen = frame["mode"].str.fullmatch(modes) & (frame["quantity"] == quantity)
    frame.loc[chosen, ["value", "low", "high"]] = [(low + high) / 2, low, high]


def set_correlation(tables: Tables, heads: str, low: float, high: float) -> None:
    frame = tables["importance_and_focus"]
    frame.loc[frame["heads"] == heads, ["correlation", "low", "high"]] = [(low + high) / 2, low, high]


def set_classes(tables: Tables, layers: range, count: int, kind: str, regions: str, sure: int) -> None:
    """Make the first `count` heads of some layers (0-based) of one kind, the first `sure` of them for sure."""
    frame = tables["classes"]
    chosen = frame.index[frame["layer"].isin(layers)][:count]
    frame.loc[chosen, ["class", "regions"]] = [kind, regions]
    frame.loc[chosen[sure:], "confidence"] = 0.6


def set_effects(tables: Tables, rows: list[int], low: float, high: float, q_value: float = 0.001) -> None:
    tables["sweep"].loc[rows, ["effect", "low", "high", "q_value"]] = [(low + high) / 2, low, high, q_value]


def early(
    low: float, high: float, one_head: bool = False, modes: str = "mean|zero"
) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        set_interval(tables, "early", low, high, modes)
        if one_head:
            set_effects(tables, [4], 2.0, 9.0)

    return change


def ratio(low: float, high: float, modes: str = "mean|zero") -> Callable[[Tables], None]:
    return lambda tables: set_interval(tables, "ratio", low, high, modes)


def on_chirp(count: int, sure: int) -> Callable[[Tables], None]:
    return lambda tables: set_classes(tables, range(5, 11), count, "monosemantic", "chirp", sure)


def detectors(effects: list[tuple[float, float]], sure: int | None = None) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        known = len(effects) if sure is None else sure
        set_classes(tables, range(4), len(effects), "monosemantic", "title", known)
        for row, bounds in enumerate(effects):
            set_effects(tables, [row], *bounds)

    return change


def last_layer(count: int, sure: int, wider: bool) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        set_classes(tables, range(11, 12), count, "polysemantic", "frame + title", sure)
        if wider:
            tables["classes"].loc[tables["classes"]["layer"] == 11, "map_entropy"] = 0.99

    return change


def focus(overall: tuple[float, float], within: tuple[float, float]) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        set_correlation(tables, "all heads", *overall)
        set_correlation(tables, "within layers", *within)

    return change


OUTCOMES = [
    ("C1", HOLDS, early(-0.3, 0.8)),
    ("C1", IN_PART, early(-0.3, 0.8, one_head=True)),
    ("C1", IN_PART, early(1.2, 4.0, modes="mean")),
    ("C1", IN_PART, early(0.2, 4.0, modes="zero")),
    ("C1", FAILS, early(1.2, 4.0)),
    ("C1", FAILS, early(-4.0, -1.2)),
    ("C1", UNKNOWN, early(0.2, 4.0)),
    ("C1", UNKNOWN, early(float("nan"), float("nan"))),
    ("C2", HOLDS, ratio(STUDY_RATIO / 1.9, STUDY_RATIO * 1.9)),
    ("C2", IN_PART, ratio(1.2, STUDY_RATIO * 9)),
    ("C2", IN_PART, ratio(0.2, 1.3, modes="zero")),
    ("C2", FAILS, ratio(STUDY_RATIO * 3, STUDY_RATIO * 9)),
    ("C2", FAILS, ratio(0.2, 1.3)),
    ("C2", UNKNOWN, ratio(0.5, 5.0)),
    ("C2", UNKNOWN, ratio(float("nan"), float("nan"))),
    ("C3", HOLDS, on_chirp(32, 30)),
    ("C3", IN_PART, on_chirp(24, 22)),
    ("C3", FAILS, on_chirp(10, 10)),
    ("C3", FAILS, on_chirp(18, 18)),
    ("C3", UNKNOWN, on_chirp(24, 12)),
    ("C4", HOLDS, detectors([(-0.2, 0.4), (-0.5, 0.1)] * 5)),
    ("C4", IN_PART, detectors([(-0.2, 0.4), (2.0, 5.0)] * 5)),
    ("C4", FAILS, detectors([(2.0, 5.0), (-5.0, -2.0)] * 5)),
    ("C4", FAILS, detectors([])),
    ("C4", UNKNOWN, detectors([(-5.0, 5.0)] * 10)),
    ("C4", UNKNOWN, detectors([(-0.2, 0.4)] * 9)),
    ("C4", UNKNOWN, detectors([(-0.2, 0.4)], sure=0)),
    ("C5", HOLDS, last_layer(5, 4, wider=True)),
    ("C5", IN_PART, last_layer(5, 4, wider=False)),
    ("C5", FAILS, last_layer(2, 2, wider=True)),
    ("C5", FAILS, last_layer(3, 3, wider=True)),
    ("C5", UNKNOWN, last_layer(5, 2, wider=True)),
    ("C6", HOLDS, focus((0.3, 0.7), (0.1, 0.5))),
    ("C6", IN_PART, focus((0.3, 0.7), (-0.2, 0.3))),
    ("C6", FAILS, focus((-0.4, 0.05), (0.1, 0.5))),
    ("C6", UNKNOWN, focus((-0.1, 0.4), (0.1, 0.5))),
]


@pytest.mark.parametrize(("claim", "verdict", "change"), OUTCOMES)
def test_a_claim_reaches_each_verdict_from_artefacts(
    tmp_path: Path, claim: str, verdict: str, change: Callable[[Tables], None]
) -> None:
    tables = made_up()
    change(tables)
    row = scoreboard(write_run(tmp_path, tables)).set_index("id").loc[claim]
    assert (row["verdict"], bool(row["reason"])) == (verdict, True)


def test_every_outcome_of_every_claim_is_tried() -> None:
    tried = {(claim, verdict) for claim, verdict, _ in OUTCOMES}
    assert tried == {
        (claim, verdict) for claim in NEEDED_RULES for verdict in (HOLDS, IN_PART, FAILS, UNKNOWN)
    }


def test_the_rows_are_the_papers_claims_and_open_questions(tmp_path: Path) -> None:
    board = scoreboard(write_run(tmp_path, made_up()))
    assert board["id"].tolist() == [f"C{i}" for i in range(1, 9)] + [f"Q{i}" for i in range(1, 10)]
    known = board.set_index("id")["ours"]
    assert "1 of 2 heads keeps class" in known["C7"]
    assert "1 looks at the chirp before fine-tuning, 2 after" in known["C7"]
    assert known["C8"] == "nothing yet"
    assert f"{STUDY_EARLY:+.2f} %" in board["study"][0]
    judges = board["id"].isin(NEEDED_RULES)  # those of the chapters that this run has
    assert (board[~judges]["verdict"] == OPEN).all()
    judged = board[judges]
    assert judged[["study", "ours", "sample", "control", "chapter", "figure", "would_change"]].all(axis=None)
    assert judged[["value", "low", "high", "images"]].notna().all(axis=None)


def test_few_images_tell_nothing_and_a_quick_run_says_what_it_is(tmp_path: Path) -> None:
    board = scoreboard(write_run(tmp_path, made_up(FEW), images=FEW, profile="quick"))
    judged = board[board["id"].isin(NEEDED_RULES)]
    assert (judged["verdict"] == UNKNOWN).all()
    assert judged["reason"].str.contains(f"{FEW} images are too few").all()
    for page in (scoreboard_page.full(board), scoreboard_page.short(board)):
        assert "quick run" in page
    assert "quick run" not in scoreboard_page.full(scoreboard(write_run(tmp_path / "other", made_up())))


def test_a_chapter_that_judged_by_older_rules_is_named(tmp_path: Path) -> None:
    tables = made_up()
    board = scoreboard(write_run(tmp_path / "same", tables))
    assert board.attrs["judged_otherwise"] == []
    assert "another verdict" not in scoreboard_page.full(board)
    tables["claims_c3_c6"]["verdict"] = ["not supported", HOLDS]
    board = scoreboard(write_run(tmp_path / "older", tables))
    assert board.attrs["judged_otherwise"] == ["C3"]
    assert "another verdict on C3, the one here counts" in scoreboard_page.short(board)


def test_the_fewer_images_of_two_chapters_count(tmp_path: Path) -> None:
    board = scoreboard(write_run(tmp_path, made_up(FEW), images=MANY)).set_index("id")
    assert board.loc[["C1", "C2", "C4", "C6"], "reason"].str.contains("too few").all()
    assert not board.loc[["C3", "C5"], "reason"].str.contains("too few").any()


def test_a_count_over_thresholds_is_as_sure_as_the_strictest_and_may_be_as_the_mildest() -> None:
    usual, strict, mild = (made_up() for _ in range(3))
    for tables, count, sure in ((usual, 7, 5), (strict, 3, 2), (mild, 20, 9)):
        on_chirp(count, sure)(tables)
    every = pd.concat(
        [
            usual["classes"].assign(threshold="none", value=np.nan),
            strict["classes"].assign(threshold="part", value=0.4),
            mild["classes"].assign(threshold="part", value=0.15),
        ],
        ignore_index=True,
    )
    found = verdicts.over_thresholds(every, semantics.about_chirp_alone)
    assert found == verdicts.Count(7, 2, 20, 36)


def test_bounds_over_thresholds_are_those_of_shares() -> None:
    counts = {0.0: (24, 10, 38, 53), 0.4: (12, 10, 24, 54), 0.15: (36, 29, 39, 50), 0.9: (0, 0, 0, 0)}
    every = pd.DataFrame({"threshold": ["none", "part", "part", "part"], "value": list(counts)})
    found = verdicts.over_thresholds(every, lambda part: verdicts.Count(*counts[part["value"].iloc[0]]))
    assert found == verdicts.Count(24, 9, 42, 53)  # 10 of 54 to 39 of 50
    nobody = verdicts.over_thresholds(every, lambda _: verdicts.Count(0, 0, 0, 0))
    assert nobody == verdicts.Count(0, 0, 0, 0)


def test_the_scoreboard_reads_counts_over_thresholds_where_chapter_05_has_them(tmp_path: Path) -> None:
    tables = made_up()
    on_chirp(32, 30)(tables)
    frame = pd.DataFrame({"claim": ["C3", "C5", "C6"], "verdict": [FAILS, FAILS, HOLDS]})
    tables["claims_c3_c6"] = frame.assign(
        value=[32, 0, -1], low=[12, 0, -1], high=[34, 2, -1], total=[36, 6, -1]
    )
    row = scoreboard(write_run(tmp_path, tables)).set_index("id").loc["C3"]
    assert (row["value"], row["low"], row["high"], row["verdict"]) == (32, 12, 34, UNKNOWN)


def test_counts_know_what_is_sure_and_what_may_be() -> None:
    tables = made_up()
    on_chirp(7, 5)(tables)
    assert semantics.about_chirp_alone(tables["classes"]) == verdicts.Count(7, 5, 7, 36)
    tables["classes"].loc[tables["classes"]["layer"] == 10, "confidence"] = 0.5
    assert semantics.about_chirp_alone(tables["classes"]) == verdicts.Count(7, 5, 13, 36)


@pytest.mark.parametrize(
    "name", sorted(name for name, (chapter, _) in TABLES.items() if chapter in (ABLATION, SEMANTICS))
)
@pytest.mark.parametrize("harm", ["missing", "edited", "not a table", "no column", "no rows"])
def test_an_unfit_table_is_refused_with_the_chapter_to_run(tmp_path: Path, name: str, harm: str) -> None:
    run = write_run(tmp_path, made_up())
    chapter, columns = TABLES[name]
    path = run / chapter / f"{name}.parquet"
    if harm == "missing":
        path.unlink()
    elif harm == "edited":
        made_up(images=51)[name].assign(extra=1).to_parquet(path)
    elif harm == "not a table":
        path.write_text("nothing")
    elif harm == "no column":
        made_up()[name].drop(columns=columns[-1]).to_parquet(path)
    else:
        made_up()[name].iloc[:0].to_parquet(path)
    if harm != "edited":
        seal(run / chapter)
    with pytest.raises(RunError, match=f"{name}.*vitmech run {chapter[:2]}"):
        scoreboard(run)


@pytest.mark.parametrize("chapter", [ABLATION, SEMANTICS])
def test_a_missing_chapter_is_named(tmp_path: Path, chapter: str) -> None:
    run = write_run(tmp_path, made_up())
    (run / chapter / "manifest.json").unlink()
    with pytest.raises(RunError, match=f"vitmech run {chapter[:2]}"):
        scoreboard(run)


def test_chapters_of_two_profiles_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, made_up())
    seal(run / SEMANTICS, profile="other")
    with pytest.raises(RunError, match=r"04 \(made-up\), 05 \(other\)"):
        scoreboard(run)


def test_a_quantity_that_is_not_there_is_refused(tmp_path: Path) -> None:
    tables = made_up()
    tables["claims_c1_c2"] = tables["claims_c1_c2"].query("quantity != 'ratio'")
    with pytest.raises(RunError, match=r"claims_c1_c2.*0 rows with .*ratio.*vitmech run 04"):
        scoreboard(write_run(tmp_path, tables))


def test_detectors_without_an_effect_are_refused(tmp_path: Path) -> None:
    tables = made_up()
    detectors([(-0.2, 0.4)])(tables)
    tables["sweep"] = tables["sweep"].iloc[1:]
    with pytest.raises(RunError, match=r"do not fit each other.*vitmech run 05"):
        scoreboard(write_run(tmp_path, tables))


def test_what_reaches_a_page_is_escaped(tmp_path: Path) -> None:
    tables = made_up()
    tables["head_sets"]["set"] = "<script>alert(1)</script>\n```\nend"
    board = scoreboard(write_run(tmp_path, tables))
    board.loc[0, ["claim", "ours"]] = "<b onclick='x'>&"
    full, short = scoreboard_page.full(board), scoreboard_page.short(board)
    assert r"### C1: \<b onclick='x'\>&" in full  # a heading is Markdown, all else is HTML
    for page in (full.replace(r"\<b onclick", ""), short):
        assert "<script>" not in page
        assert "<b onclick" not in page
        assert "&lt;b onclick=&#39;x&#39;&gt;&amp;" in page
    assert "&lt;/script&gt; ``` end heads together" in full


def test_the_short_board_has_questions_with_their_verdicts_alone(tmp_path: Path) -> None:
    board = scoreboard(write_run(tmp_path, made_up()))
    claims, _, questions = scoreboard_page.short(board).partition("leaves open")
    for row in board.itertuples():
        ours, other = (claims, questions) if row.id.startswith("C") else (questions, claims)
        assert f"{row.id}<" in ours
        assert f"{row.id}<" not in other
    assert questions.count("vm-verdict") == sum(board["id"].str.startswith("Q"))


def test_a_verdict_is_told_by_a_word_and_a_sign(tmp_path: Path) -> None:
    assert set(scoreboard_page.SIGNS) == set(verdicts.VERDICTS)
    assert len(set(scoreboard_page.SIGNS.values())) == len(verdicts.VERDICTS)
    board = scoreboard(write_run(tmp_path, made_up()))
    for row in board.itertuples():
        assert f"{scoreboard_page.SIGNS[row.verdict]}</span> {row.verdict}" in scoreboard_page.full(board)


def test_json_holds_the_rows_and_the_rules(tmp_path: Path) -> None:
    board = scoreboard(write_run(tmp_path, made_up()))
    found = json.loads(json_text(scoreboard_page.as_json(board)))
    assert [row["verdict"] for row in found["rows"]] == board["verdict"].tolist()
    assert board["id"][6] == "C7"
    assert found["rows"][6]["value"] is None
    assert found["rows"][0]["images"] == MANY
    assert (found["profile"], found["quick"], found["source"]) == ("made-up", False, "arXiv 2503.18762")
    assert set(found["rules"]) == set(RULES)


def test_the_page_shows_every_rule_and_limit() -> None:
    page = scoreboard_page.rules()
    for name, rule in RULES.items():
        assert rule.__doc__.startswith(f"{name}. ")
        assert f"**{name}:**" in page
    assert "`" not in page  # what a rule's parameters are stands in the reference
    for name, (value, why) in LIMITS.items():
        assert name.partition(" ")[0] in page
        assert f"{value:g}: {why}" in page


def test_the_chapters_judge_by_the_same_rules(tmp_path: Path) -> None:
    board = scoreboard(write_run(tmp_path, made_up())).set_index("id")
    for claim, rule in NEEDED_RULES.items():
        chapter = board.loc[claim, "chapter"]
        text = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8")
        judge = inspect.getmodule(inspect.unwrap(rule))
        together = "judge.judged(" in text and f"{rule.__name__}(" in inspect.getsource(judge.judged)
        assert together or f"judge.{rule.__name__}(" in text, claim


def test_the_published_run_can_be_judged_and_its_figures_are_there() -> None:
    board = scoreboard(ROOT / "published")
    assert board["verdict"].isin(verdicts.VERDICTS).all()
    assert not board.attrs["quick"]
    for row in board.dropna(subset="chapter").itertuples():
        for folder in (ROOT / "notebooks", ROOT / "published" / row.chapter):
            cells = json.loads((folder / f"{row.chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
            figures = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
            assert row.figure in figures


SAID = {"+": HOLDS, "/": IN_PART, "-": FAILS, "?": UNKNOWN}


@pytest.mark.parametrize(
    ("trainings", "verdict", "lacks"),
    [
        ("+++", HOLDS, ""),
        ("---", FAILS, ""),
        ("///", IN_PART, ""),
        ("+--", IN_PART, ""),
        ("++/", IN_PART, ""),
        ("--/", IN_PART, ""),
        ("+-?", IN_PART, ""),
        ("??/", IN_PART, ""),
        ("++?", UNKNOWN, "images"),
        ("--?", UNKNOWN, "images"),
        ("???", UNKNOWN, "images"),
        ("++", UNKNOWN, "trainings"),
        ("-", UNKNOWN, "trainings"),
    ],
)
def test_a_claim_about_models_is_judged_by_its_trainings(trainings: str, verdict: str, lacks: str) -> None:
    found = {
        f"seed {number}": verdicts.Judgement(SAID[sign], f"reason {number}", "images" if sign == "?" else "")
        for number, sign in enumerate(trainings)
    }
    for order in (found, dict(reversed(found.items()))):
        judged = verdicts.across(order)
        assert (judged.verdict, judged.lacks) == (verdict, lacks)
    # what is undecided may turn out in any way: where it matters, and only there, the claim is undecided too
    ways = [HOLDS, IN_PART, FAILS]
    settled = {
        verdicts.across(
            {
                name: verdicts.Judgement(way if one.verdict == UNKNOWN else one.verdict, "")
                for name, one in found.items()
            }
        ).verdict
        for way in ways
    }
    if len(trainings) >= verdicts.ENOUGH_TRAININGS:
        assert (len(settled) > 1) == (verdict == UNKNOWN)


def test_trainings_are_counted_in_words() -> None:
    one = {name: verdicts.Judgement(name, "") for name in (HOLDS, FAILS, UNKNOWN)}
    assert verdicts.in_trainings(one) == "holds in 1, does not hold in 1, is undecided in 1 of 3 trainings"
    three = {str(number): one[FAILS] for number in range(3)}
    assert verdicts.in_trainings(three) == "does not hold in all 3 trainings"
    assert verdicts.in_trainings({"0": one[UNKNOWN]}) == "is undecided in one training"
    with pytest.raises(ValueError, match="a training's verdict is 'open'"):
        verdicts.across({"0": verdicts.Judgement(OPEN, "")})


def with_trainings(folder: Path, *others: str) -> pd.DataFrame:
    """The scoreboard of a run whose chapter 04 judged other trainings on C1 as well."""
    judged = [("C1", "seed 0", "", "passed over", "", MANY)]
    judged += [
        ("C1", f"seed {number}", verdict, "another", "", MANY) for number, verdict in enumerate(others, 1)
    ]
    write_run(folder, made_up())
    columns = ["claim", "training", "verdict", "reason", "lacks", "images"]
    pd.DataFrame(judged, columns=columns).to_parquet(folder / ABLATION / "trainings_04.parquet")
    seal(folder / ABLATION)
    return scoreboard(folder).set_index("id")


def test_the_scoreboard_judges_all_trainings_where_there_are_several(tmp_path: Path) -> None:
    alone = scoreboard(write_run(tmp_path / "alone", made_up())).set_index("id")
    assert alone.loc["C1", ["verdict", "trainings"]].tolist() == [HOLDS, ""]
    same = with_trainings(tmp_path / "same", HOLDS, HOLDS)
    assert same.loc["C1", "verdict"] == HOLDS
    assert same.loc["C1", "trainings"] == "seed 0: holds; seed 1: holds; seed 2: holds"
    assert alone.loc["C1", "reason"] in same.loc["C1", "reason"]
    other = with_trainings(tmp_path / "other", HOLDS, FAILS)
    assert other.loc["C1", "verdict"] == IN_PART
    assert other.loc["C1", "reason"].startswith("it holds in 2, does not hold in 1 of 3 trainings")
    assert other.loc["C2"].equals(alone.loc["C2"]), "what one training alone was asked about stays"
    two = with_trainings(tmp_path / "two", HOLDS)
    assert two.loc["C1", ["verdict", "lacks"]].tolist() == [UNKNOWN, "trainings"]
    assert "In several trainings" in scoreboard_page.full(scoreboard(tmp_path / "two"))
