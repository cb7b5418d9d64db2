"""Where a run computes: the torch device that a profile asks for, or a clear error."""

import os
from typing import TYPE_CHECKING

from vitmech_utils.manifests import RunError
from vitmech_utils.profiles import Profile

if TYPE_CHECKING:
    import torch


def pick_device(profile: Profile) -> "torch.device":
    """Return the profile's device; `auto` takes CUDA when there is one. Raises `RunError` when it is not there.

    Under `accelerate launch` a plain `cuda` is each process's own GPU.
    """
    import torch

    wanted = profile.device
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if wanted == "auto":
        wanted = "cuda" if available["cuda"] else "cpu"
    if not available[wanted.partition(":")[0]]:
        raise RunError(f"device {wanted!r} of profile {profile.name!r} is not available; use device: auto")
    if wanted == "cuda" and "LOCAL_RANK" in os.environ:
        wanted = f"cuda:{os.environ['LOCAL_RANK']}"
    return torch.device(wanted)
