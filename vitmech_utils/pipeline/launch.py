"""Launch buttons: where the clone lies on GitHub, the book's pages offer their notebook on Binder and Colab."""

import re
from pathlib import Path
from typing import Any

import yaml

from vitmech_utils.runs.manifests import git

# https://github.com/owner/name(.git), with or without a token before the host, or git@github.com:owner/name
GITHUB = re.compile(
    r"^(?:https://(?:[^/@]+@)?|ssh://git@|git@)github\.com[/:](?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?$"
)


def add_launch_buttons(config: Path, root: Path) -> None:
    """Append the buttons to a staged `_config.yml`, unless it sets them itself or the clone is not from GitHub."""
    settings = launch_settings(
        git(root, "remote", "get-url", "origin"), git(root, "rev-parse", "--abbrev-ref", "HEAD")
    )
    text = config.read_text(encoding="utf-8")
    if settings and not settings.keys() & yaml.safe_load(text).keys():
        config.write_text(f"{text.rstrip()}\n\n{yaml.safe_dump(settings)}", encoding="utf-8")


def launch_settings(origin: str | None, branch: str | None) -> dict[str, Any]:
    """Return Jupyter Book's settings for a GitHub address, stripped of any name or token in it; {} for others."""
    match = GITHUB.match(origin or "")
    if match is None:
        return {}
    return {
        "repository": {
            "url": f"https://github.com/{match['owner']}/{match['name']}",
            "branch": branch if branch and branch != "HEAD" else "main",
            "path_to_book": "",
        },
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }
