"""Errors and sums in the widest floating point that a device has."""

import torch
from torch import Tensor


def widest(device: torch.device | str) -> torch.dtype:
    """float64, or float32 on Apple's GPUs (`mps`), which have nothing wider."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def wide(tensor: Tensor) -> Tensor:
    """The tensor in the widest floating point of its device."""
    return tensor.to(widest(tensor.device))
