"""torchvision where it is installed, be it built for another torch: what it is asked for here needs none of its own
operators.

Its build for torch with CUDA does not bring them where torch has none, and then cannot be imported: neither can what
timm and transformers make of it. They are for boxes, which no ViT has. Imported before all else, by `conftest.py`.
"""

import importlib
import importlib.machinery
import re
import sys

_DEFINED: list[object] = []
MOST = 50


def has_torchvision() -> bool:
    """Whether torchvision is installed; it can then be imported."""
    if importlib.machinery.PathFinder.find_spec("torchvision") is None:
        return False
    for _try in range(MOST):
        if "torchvision" in sys.modules:
            break
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            absent = re.match(r"operator torchvision::(\w+) does not exist", str(error))
            if absent is None:
                raise
            _define(absent[1])
    return True


def _define(name: str) -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{name}(Tensor any) -> Tensor")
    _DEFINED.append(library)
    for module in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
        del sys.modules[module]


has_torchvision()
