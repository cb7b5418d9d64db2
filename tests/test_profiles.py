"""Profiles: those that ship, overrides, and what is refused."""

from pathlib import Path

import pytest
import yaml

from vitmech_utils.profiles import ProfileError, dotted_keys, load_profile, parse_override, repository_root

SHIPPED = ("quick", "laptop", "gpu", "paper")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_valid_and_say_what_they_cost(name: str) -> None:
    assert load_profile(name).name == name
    header = [
        line
        for line in (repository_root() / "profiles" / f"{name}.yaml").read_text().splitlines()
        if line.startswith("#")
    ]
    for word in ("time", "memory", "hardware", "score"):
        assert word in " ".join(header).lower()


def test_profiles_have_the_same_keys_and_hashes_of_their_own() -> None:
    profiles = [load_profile(name) for name in SHIPPED]
    assert len({profile.hash for profile in profiles}) == len(SHIPPED)
    files = [
        yaml.safe_load((repository_root() / "profiles" / f"{name}.yaml").read_text()) for name in SHIPPED
    ]
    assert len({tuple(sorted(file)) for file in files}) == 1


def test_any_value_can_be_overridden_and_changes_the_hash() -> None:
    for key, value in [
        ("train.steps", 7),
        ("seeds", [3, 4]),
        ("backbone", "tiny"),
        ("ablation.modes", ["zero"]),
    ]:
        changed = load_profile("quick", {key: value})
        found = changed
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value
        assert changed.hash != load_profile("quick").hash
    assert (
        load_profile("quick", {"train.steps": load_profile("quick").train.steps}).hash
        == load_profile("quick").hash
    )


def test_another_backbone_is_not_held_against_published_trainings() -> None:
    assert load_profile("laptop").trainings.seeds == [1, 2]
    assert load_profile("laptop", {"backbone": "dinov2-small"}) == load_profile("laptop")
    other = load_profile("laptop", {"backbone": "tiny"})
    assert other.trainings.seeds == []
    assert other.further_seeds("04") == []
    assert load_profile("laptop", {"backbone": "tiny", "seeds": [0, 2]}).trainings.seeds == [2]
    assert load_profile("laptop", {"backbone": "tiny", "trainings.seeds": [1]}).trainings.seeds == [1]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_rehearsal_is_short_and_otherwise_the_same(name: str) -> None:
    profile = load_profile(name)
    short = profile.rehearsal()
    assert short.train.steps == 2
    assert short.task.steps == min(2, profile.task.steps)
    assert not short.train.has_restart
    assert short.train.images == min(profile.train.images, 2 * profile.train.batch_size)
    assert short.train.every <= 2
    assert short.task.every <= 2
    assert short.model_copy(update={"train": profile.train, "task": profile.task}) == profile


def test_overrides_are_read_as_yaml() -> None:
    assert parse_override("train.steps=3") == ("train.steps", 3)
    assert parse_override("seeds=[1, 2]") == ("seeds", [1, 2])
    assert (
        load_profile("quick", dict([parse_override("train.learning_rate=1e-3")])).train.learning_rate == 1e-3
    )
    assert "train.steps" in dotted_keys()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train.stepz": 3}, ["train.stepz", "did you mean 'train.steps'"]),
        ({"train.steps": -3}, ["train.steps", "-3", "greater than or equal to 1"]),
        ({"train.steps": 2.5}, ["train.steps", "2.5", "integer"]),
        ({"train.steps": True}, ["train.steps", "number"]),
        ({"train.steps": "many"}, ["train.steps", "many", "integer"]),
        ({"ablation.modes": ["mena"]}, ["ablation.modes", "mena", "'mean'"]),
        ({"ablation.modes": []}, ["ablation.modes"]),
        ({"seeds": []}, ["seeds"]),
        ({"backbone": "./nowhere"}, ["backbone", "./nowhere", "does not exist"]),
        ({"device": "gpu"}, ["device", "gpu"]),
        ({"adapter": "mine"}, ["adapter", "mine", "'train' or 'published'"]),
        ({"train.restart": 0}, ["train.restart", "0", "greater than or equal to 1"]),
        ({"train.restart": 2, "train.images": 8}, ["train: images is 8", "at least steps x batch_size = 32"]),
    ],
)
def test_bad_values_are_refused_by_key_value_and_range(overrides: dict, words: list[str]) -> None:
    with pytest.raises(ProfileError) as error:
        load_profile("quick", overrides)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["train.steps", "=3", "nonsense=3", "seeds=[1"])
def test_bad_override_texts_are_refused(text: str) -> None:
    with pytest.raises(ProfileError):
        parse_override(text)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="did you mean 'quick'"):
        load_profile("quik")
    with pytest.raises(ProfileError, match="does not exist"):
        load_profile(tmp_path / "none.yaml")
    values = yaml.safe_load((repository_root() / "profiles" / "quick.yaml").read_text())
    cases = {
        "[1, 2": "not readable as YAML",
        "- a": "keys and values",
        yaml.safe_dump({**values, "bacbone": 1}): "did you mean 'backbone'",
        yaml.safe_dump({**values, "train": 3}): "train",
        yaml.safe_dump({key: value for key, value in values.items() if key != "gallery"}): "gallery: missing",
    }
    for text, words in cases.items():
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(ProfileError, match=words) as error:
            load_profile(path)
        assert "bad.yaml" in str(error.value)


def test_a_profile_of_ones_own_by_path(tmp_path: Path) -> None:
    values = yaml.safe_load((repository_root() / "profiles" / "quick.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**values, "name": "mine"}))
    assert load_profile(tmp_path / "mine.yaml").name == "mine"
