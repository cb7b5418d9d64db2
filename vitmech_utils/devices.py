"""Where a run computes: the torch device that a profile asks for, or a clear error, and who draws its images."""

import os
from typing import TYPE_CHECKING

from vitmech_utils.artefacts import RunError
from vitmech_utils.profiles import Profile

if TYPE_CHECKING:
    import torch

MOST_WORKERS = 16


def pick_device(profile: Profile) -> "torch.device":
    """Return the profile's device; `auto` takes CUDA when there is one. Raises `RunError` when it is not there.

    Under `accelerate launch` a plain `cuda` is each process's own GPU. On a GPU float32 means float32 from here on:
    without TF32, which cuDNN's convolutions would take by themselves.
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
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device(wanted)


def drawing_workers(device: "torch.device") -> int:
    """How many processes draw images beside a device: none beside a processor, which has its cores full itself."""
    return min(MOST_WORKERS, max(1, cores() - 1)) if device.type == "cuda" else 0


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
