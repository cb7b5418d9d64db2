"""Exact predictions without each head, kept for the benchmarks and tests that resample them or compare with them.

    python benchmarks/exact.py

computes them on the CPU with the published adapter of seed 0 (some ten minutes): 96 held-out images by mean ablation,
24 by zero, resample and qkv-weights. Run it again when that adapter changes.
"""

from pathlib import Path

from safetensors.numpy import save_file

from vitmech_utils.artefacts import write_atomically
from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.model.regressor import ChirpRegressor

ROOT = Path(__file__).resolve().parents[1]
ADAPTER = ROOT / "published" / "adapters" / "seed-0"
EXACT = ROOT / "benchmarks" / "exact_predictions.safetensors"
IMAGES = {"mean": 96, "zero": 24, "resample": 24, "qkv-weights": 24}
REFERENCE = 24
"""Training images whose mean stands in for a head."""


def main() -> int:
    """Write `EXACT`: by mode, baseline [image, target] and ablated [head, image, target], float64."""
    model = ChirpRegressor.load(ADAPTER).merged()
    found = {}
    for mode, count in IMAGES.items():
        pixels = stack(ChirpDataset(count, seed=0, split="held-out"), count)["pixel_values"]
        extra = {}
        if mode == "mean":
            extra["reference"] = stack(ChirpDataset(REFERENCE, seed=0, split="train"), REFERENCE)[
                "pixel_values"
            ]
        if mode == "resample":
            bare = ChirpDataset(count, seed=0, style="bare", split="held-out")
            extra["donors"] = stack(bare, count)["pixel_values"]
        made = predict_without_heads(model, pixels, mode, batch=32, **extra)
        found |= {f"baseline_{mode}": made.baseline.numpy(), f"ablated_{mode}": made.ablated.numpy()}
    write_atomically(EXACT, lambda path: save_file(found, path))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
