"""Launch buttons: offered where the clone is from GitHub, left out elsewhere, no token in them."""

import subprocess
from pathlib import Path

import pytest
import yaml

from vitmech_utils.pipeline.launch import add_launch_buttons, launch_settings


@pytest.mark.parametrize(
    "origin",
    [
        "https://github.com/owner/name.git",
        "https://github.com/owner/name/",
        "https://someone:ghp_secret@github.com/owner/name.git",
        "https://ghp_secret@github.com/owner/name",
        "git@github.com:owner/name.git",
        "ssh://git@github.com/owner/name.git",
    ],
)
def test_github_addresses_become_one_address_without_a_token(origin: str) -> None:
    settings = launch_settings(origin, "main")
    assert settings["repository"]["url"] == "https://github.com/owner/name"
    assert "secret" not in str(settings)
    assert "someone" not in str(settings)
    assert settings["launch_buttons"].keys() == {"notebook_interface", "binderhub_url", "colab_url"}


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "/srv/git/name.git",
        "https://gitlab.com/owner/name.git",
        "https://example.org/github.com/owner/name",
        "https://github.com.example.org/owner/name",
    ],
)
def test_other_addresses_get_no_buttons(origin: str | None) -> None:
    assert launch_settings(origin, "main") == {}


def test_a_detached_checkout_points_to_main() -> None:
    assert launch_settings("git@github.com:owner/name", "HEAD")["repository"]["branch"] == "main"
    assert launch_settings("git@github.com:owner/name", "draft")["repository"]["branch"] == "draft"


def test_a_staged_configuration_gets_them_once(small: Path) -> None:
    """`stage` calls this on its copy of `_config.yml`; the source stays as it is."""
    config = small / "_config.yml"
    before = config.read_text()
    add_launch_buttons(config, small)
    assert config.read_text() == before  # no repository, no buttons
    for command in (["init", "-q"], ["remote", "add", "origin", "https://t0ken@github.com/owner/name.git"]):
        subprocess.run(["git", *command], cwd=small, check=True)
    add_launch_buttons(config, small)
    settings = yaml.safe_load(config.read_text())
    assert settings["repository"]["url"] == "https://github.com/owner/name"
    assert settings["title"] == yaml.safe_load(before)["title"]
    assert "t0ken" not in config.read_text()
    once = config.read_text()
    add_launch_buttons(config, small)
    assert config.read_text() == once
