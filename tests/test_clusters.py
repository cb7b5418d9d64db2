"""Executor profiles: a small series through a real SLURM of one node, and what Kubernetes' settings say."""

import re
from pathlib import Path

import pytest
import single_node_slurm
import yaml
from conftest import snakemake
from small_book import CHAPTERS, ROOT

pytestmark = [pytest.mark.pipeline, pytest.mark.alone, pytest.mark.slow]
pytest.importorskip("snakemake_executor_plugin_slurm", reason="no cluster plugins: make cluster")
FEWER_WAITS = ["--slurm-init-seconds-before-status-checks=2", "--seconds-between-status-checks=2"]


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    reason = single_node_slurm.missing()
    if reason:
        pytest.skip(reason)
    with single_node_slurm.single_node(tmp_path / "slurm") as environment:
        yield environment


def test_the_slurm_profile_runs_the_series_on_a_real_slurm(small: Path, slurm: dict[str, str]) -> None:
    arguments = ["--workflow-profile", "profiles/slurm", *FEWER_WAITS, "--config", "mem_mb=300", "threads=1"]
    done = snakemake(*arguments, root=small, **slurm)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    submitted = re.findall(r"Job \d+ has been submitted with SLURM jobid (\d+)", done.stdout + done.stderr)
    assert len(submitted) == len(set(submitted)) == len(CHAPTERS)
    run = small / "results" / "quick"
    assert sorted(path.parent.name for path in run.glob("*/manifest.json")) == sorted(CHAPTERS)
    again = snakemake(*arguments, root=small, **slurm)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_kubernetes_takes_its_profile_and_runs_the_series_as_one_job(small: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_kubernetes")
    arguments = ["series", "--dry-run", "--workflow-profile", "profiles/kubernetes"]
    done = snakemake(*arguments, root=small)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    assert "rule series:" in text
    assert "rule chapter_" not in text
    profile = small / "profiles" / "kubernetes" / "config.yaml"
    good = profile.read_text()
    for wrong, words in (
        (good.replace("kubernetes-namespace", "kubernetes-namespaze"), "kubernetes-namespaze"),
        (good.replace("vitmech:/vitmech", "/vitmech"), "Invalid persistent volume spec"),
    ):
        profile.write_text(wrong)
        refused = snakemake(*arguments, root=small)
        assert refused.returncode != 0
        assert words in refused.stdout + refused.stderr


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_a_profile_for_a_cluster_names_rules_that_there_are(name: str) -> None:
    settings = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))
    assert settings["executor"] == name
    rules = {f"chapter_{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(settings.get("set-resources", {})) <= rules


def test_the_series_rule_runs_what_is_stale_and_nothing_else(small: Path) -> None:
    done = snakemake("series", root=small)
    assert done.returncode == 0, done.stdout + done.stderr
    again = snakemake("series", root=small)
    assert (again.stdout + again.stderr).count("up to date") == len(CHAPTERS)
