"""Errors are summed in the widest floating point that a device has."""

import torch

from vitmech_utils.tasks import to_float64, widest_float


def test_apple_s_gpus_have_no_float64_and_all_else_has():
    assert widest_float("mps") == torch.float32
    assert {widest_float(device) for device in ("cpu", "cuda", torch.device("cuda", 1))} == {torch.float64}


def test_values_stay_as_they_are():
    small = torch.tensor([1.5, 2.25], dtype=torch.bfloat16)
    assert to_float64(small).dtype == torch.float64
    assert to_float64(small).tolist() == [1.5, 2.25]
