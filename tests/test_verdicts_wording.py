"""What the rules say agrees with its counts: none, one, several."""

import pytest

from vitmech_utils.figures.tables import counted, word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies import verdicts
from vitmech_utils.studies.ablation import judge as ablation
from vitmech_utils.studies.origin import judge as origin
from vitmech_utils.studies.recordings.judge import specialization_holds_on_real_ones
from vitmech_utils.studies.semantics import judge as semantics
from vitmech_utils.studies.verdicts import EFFECT, HARDLY, Count

MANY = 5000
WITHIN, ACROSS = Interval(0.0, -0.5, 0.5), Interval(0.0, -5.0, 5.0)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "of their heads, none clearly lies outside"),
        (1, "of their heads, 1 clearly lies outside"),
        (5, "of their heads, 5 clearly lie outside"),
    ],
)
def test_heads_that_lie_outside(count, words) -> None:
    assert ablation.early_heads_hardly_matter({"mean": ACROSS}, count, MANY).reason.endswith(words)


@pytest.mark.parametrize(
    ("small", "total", "words"),
    [
        (0, 10, "0 of 10 sure detectors have an effect within"),
        (1, 10, "1 of 10 sure detectors has an effect within"),
        (2, 13, "2 of 13 sure detectors have an effect within"),
        (1, 1, "1 sure detector is too few"),
        (2, 9, "9 sure detectors are too few"),
    ],
)
def test_detectors_with_a_small_effect(small, total, words) -> None:
    effects = [WITHIN] * small + [ACROSS] * (total - small)
    found = semantics.some_detectors_are_irrelevant(Count(total, total, total, total), effects, MANY)
    assert words in found.reason


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (0, "none of the 6 heads is polysemantic"),
        (1, "at most 1 of the 6 heads is polysemantic"),
        (3, "at most 3 of the 6 heads are polysemantic"),
    ],
)
def test_heads_of_the_last_layer(most, words) -> None:
    assert words in semantics.last_layer_is_polysemantic(Count(0, 0, most, 6), wider=True, images=MANY).reason


@pytest.mark.parametrize(
    ("images", "words"), [(0, "0 images are too few"), (1, "1 image is too few"), (2, "2 images are too few")]
)
def test_too_few_images(images, words) -> None:
    assert words in verdicts.too_few(images, EFFECT).reason


@pytest.mark.parametrize(
    ("pieces", "recordings", "words"),
    [
        ({"calls": 1}, 9, "1 piece of calls is too few"),
        ({"calls": 2}, 9, "2 pieces of calls are too few"),
        ({"calls": 1, "strain": 0}, 9, "1 piece of calls, 0 pieces of strain are too few"),
        ({"calls": MANY}, 1, "1 recording is too few"),
        ({"calls": MANY}, 2, "2 recordings are too few"),
    ],
)
def test_too_few_pieces_or_recordings(pieces, recordings, words) -> None:
    kept = {kind: Count(4, 4, 4, 4) for kind in pieces}
    assert words in specialization_holds_on_real_ones(kept, pieces, recordings).reason


def test_the_limit_is_said_as_it_is() -> None:
    assert f"±{HARDLY:g} %" in ablation.early_heads_hardly_matter({"mean": ACROSS}, 1, MANY).reason


def test_words_follow_their_count() -> None:
    assert [word(count, "is", "are") for count in (0, 1, 2)] == ["are", "is", "are"]
    assert [counted(count, "head") for count in (0, 1, 2)] == ["0 heads", "1 head", "2 heads"]


@pytest.mark.parametrize(
    ("usual", "lacks", "words"),
    [
        (None, "images", "undecided (too few images)"),
        (Count(5, 3, 9, 10), "images", "undecided (too few images)"),
        (Count(9, 9, 10, 10), "thresholds", "undecided (thresholds disagree)"),
        (Count(1, 0, 2, 10), "thresholds", "undecided (thresholds disagree)"),
    ],
)
def test_an_undecided_count_says_whether_images_are_wanting_or_thresholds_disagree(
    usual, lacks, words
) -> None:
    over_all = Count(5, 1, 9, 10)
    for found in (
        semantics.layers_attend_to_chirp_alone(over_all, MANY, usual),
        semantics.last_layer_is_polysemantic(over_all, True, MANY, usual),
        origin.fine_tuning_drives(over_all, MANY, usual),
    ):
        assert (found.verdict, found.lacks, found.words) == (verdicts.UNKNOWN, lacks, words)
        assert ("by the usual ones alone" in found.reason) == (lacks == "thresholds")


def test_thresholds_are_no_excuse_for_a_verdict_that_all_of_them_give() -> None:
    usual = Count(1, 0, 2, 10)
    assert semantics.layers_attend_to_chirp_alone(Count(9, 9, 10, 10), MANY, usual).verdict == verdicts.HOLDS
    with pytest.raises(ValueError, match="expected one of images, heads, trainings, thresholds"):
        verdicts.undecided("so", "luck")
