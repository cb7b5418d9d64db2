"""The precision that estimates are made in."""

import torch
from torch import nn

from vitmech_utils.arguments import checked_arguments


@checked_arguments()
def fast_dtype(model: nn.Module) -> torch.dtype | None:
    """bfloat16 for a float32 model whose device multiplies it faster than float32, else None: the model's own.

    Processors with AVX-512 BF16 or AMX, and GPUs that have it. For estimates that exact ones correct, never for exact
    ones themselves.
    """
    weights = next(model.parameters())
    if weights.dtype != torch.float32:
        return None
    if weights.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    known = getattr(torch.cpu, "get_capabilities", dict)() if weights.device.type == "cpu" else {}
    return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") else None
