"""Parts of pages that are made: the reference, the citation, the opening picker."""

import importlib
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_book import ROOT, manifest_for

from vitmech_utils.artefacts import digest, write_json
from vitmech_utils.pipeline import api
from vitmech_utils.pipeline.made_pages import PICKER_FILE, citation, fill_made
from vitmech_utils.runs.manifests import RunError, write_manifest


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in api.PUBLIC_API.items() for n in names])
def test_a_door_is_where_the_reference_says(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(f"vitmech_utils.{module}"), name)
    page = api.reference()
    assert f"## `vitmech_utils.{module}`" in page
    assert f"### `{name}`" in page


def test_the_reference_shows_signatures_and_docstrings() -> None:
    page = api.reference()
    assert "def sample_chirp(seed: int, index: int) -> Chirp" in page
    assert "The chirp of image `index` of `seed`" in page
    assert "**`ChirpRegressor.merged`**" in page
    assert (
        "self" not in re.search(r"class HeadPicker\(.*?\n\)", page, re.DOTALL)[0].split("(")[1].split(",")[0]
    )


def test_docstrings_of_doors_emphasize_nothing() -> None:
    assert re.findall(r"\\\*\w+\\\*", api.reference()) == [], (
        "asterisks show as they are: use backticks or none"
    )


def test_a_signature_is_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'def f(a, /, b: int = 1, *rest: str, c, d: "x y" = None, **more) -> float:\n    """A *b* `c*` [d]."""\n'
    (tmp_path / "m.py").write_text(source)
    (tmp_path / "n.py").write_text("from vitmech_utils.m import f\n\ndef g(x, *, y):\n    return x\n")
    monkeypatch.setattr(api, "PACKAGE", tmp_path)
    monkeypatch.setattr(api, "PUBLIC_API", {"n": ("f",)})
    page = api.reference()
    assert "def f(a, b: int = 1, *rest: str, c, d: 'x y' = None, **more) -> float" in page
    assert r"A \*b\* `c*` \[d\]." in page
    monkeypatch.setattr(api, "PUBLIC_API", {"n": ("g",)})
    with pytest.raises(RunError, match=r"n\.g has no docstring"):
        api.reference()
    for wrong in ({"n": ("h",)}, {"o": ("f",)}):
        monkeypatch.setattr(api, "PUBLIC_API", wrong)
        with pytest.raises(RunError, match="fix PUBLIC_API"):
            api.reference()


def test_the_citation_follows_its_file(tmp_path: Path) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = citation(ROOT / "CITATION.cff")
    assert cited["title"] in page
    assert f"version = {{{cited['version']}}}" in page
    assert all(each["url"] in page and each["title"] in page for each in cited["references"])
    cited["version"] = "9.8.7"
    (tmp_path / "CITATION.cff").write_text(yaml.safe_dump(cited))
    filled = fill_made("As {{ run:citation }}", tmp_path, tmp_path, tmp_path)
    assert filled.startswith(f"As {cited['message']}")
    assert "Version 9.8.7" in filled


def test_the_version_of_the_citation_is_that_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == importlib.import_module("vitmech_utils").__version__


def test_other_marks_are_left_alone(tmp_path: Path) -> None:
    text = "{{ run:status }} {{ run:02_x/verdict/a:.3f }} {{ run:scoreboards }}"
    assert fill_made(text, tmp_path, tmp_path, tmp_path) == text


def test_the_opening_picker_is_small_and_the_same_in_every_build(tmp_path: Path) -> None:
    pages = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        mark = fill_made("{{ run:picker }}", ROOT, ROOT / "published", tmp_path / name)
        assert PICKER_FILE in mark
        pages.append((tmp_path / name / PICKER_FILE).read_bytes())
    assert pages[0] == pages[1]
    assert len(pages[0]) < 2 * 1024**2
    assert b'mountStatic("vm-opening")' in pages[0]


def test_a_run_without_maps_makes_no_picker(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="vitmech run 03"):
        fill_made("{{ run:picker }}", ROOT, tmp_path, tmp_path)


def a_run(folder: Path, trainings: int, backbone: str = "dinov2-small", recordings: int = 0) -> Path:
    values = {
        "name": "made-up",
        "hash": digest("made-up"),
        "values": {"backbone": backbone, "semantics": {"images": 48}},
    }
    for name in (
        "02_lora_fine_tuning",
        "04_head_ablation",
        "05_mono_or_polysemantic",
        "11_real_spectrograms",
    ):
        (folder / name).mkdir(parents=True)
    write_json(folder / "02_lora_fine_tuning" / "verdict.json", {"score": [{"images": 5000}]})
    sweep = pd.DataFrame({"mode": ["mean", "zero"], "images": [1000, 200], "exact_images": [24, 20]})
    sweep.to_parquet(folder / "04_head_ablation" / "sweep.parquet")
    judged = pd.DataFrame({"training": [f"seed {number}" for number in range(trainings)]})
    judged.to_parquet(folder / "04_head_ablation" / "trainings_04.parquet")
    if recordings:
        real = pd.DataFrame({"kind": ["strain", "calls"], "recordings": recordings})
        real.to_parquet(folder / "11_real_spectrograms" / "claim_q2.parquet")
    for name in ("02_lora_fine_tuning", "04_head_ablation", "05_mono_or_polysemantic"):
        write_manifest(folder / name, manifest_for(folder / name, profile=values))
    return folder


def test_the_opening_page_counts_what_all_rests_on(tmp_path: Path) -> None:
    three = a_run(tmp_path / "three", 3, recordings=7)
    said = fill_made("{{ run:foundations }}", ROOT, three, tmp_path).splitlines()
    assert said[0].endswith(
        "one, `dinov2-small`; the study's own, `google/vit-base-patch16-224`, was not at hand"
    )
    assert said[1] == (
        "- **Trainings:** 3 of the same recipe from different seeds in chapter 04, one looked into in the others"
    )
    assert (
        "5,000 for the model's own loss, 1,000 for the effects of single heads (20 to 24 of them exactly), 48 for what"
        in said[2]
    )
    assert said[3] == "- **Recordings:** 7 real recordings (strain, calls), in chapter 11"
    one = fill_made(
        "{{ run:foundations }}", ROOT, a_run(tmp_path / "one", 1, "google/vit-base-patch16-224"), tmp_path
    )
    assert "one, so every claim is about a single model" in one
    assert "not at hand" not in one
    assert "none in this run" in one


def test_what_all_rests_on_needs_its_chapters(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 1)
    (run / "02_lora_fine_tuning" / "verdict.json").write_text("{}")
    with pytest.raises(RunError, match=r"verdict.json: not what chapter 02 saves"):
        fill_made("{{ run:foundations }}", ROOT, run, tmp_path)
    with pytest.raises(RunError, match=r"vitmech run 02"):
        fill_made("{{ run:foundations }}", ROOT, tmp_path / "nothing", tmp_path)
