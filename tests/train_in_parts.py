"""A training on two processes, for `accelerate launch`: python train_in_parts.py CHECKPOINTS OUT.

Each process says where it stood; the first one saves the trained weights.
"""

import dataclasses
import os
import sys
from pathlib import Path

from safetensors.torch import save_file
from test_model_finetune import RECIPE, Stripes, weights

from vitmech_utils.model.finetune import fine_tune
from vitmech_utils.model.regressor import ChirpRegressor, LoraSettings


def train(checkpoints: Path) -> tuple[ChirpRegressor, object]:
    """Fine-tune the tiny model without dropout, whose masks would differ from process to process."""
    regressor = ChirpRegressor.build("tiny", lora=LoraSettings(dropout=0.0))
    recipe = dataclasses.replace(RECIPE, batch_size=6)
    training = fine_tune(regressor, Stripes(72, 0), Stripes(18, 1), recipe, checkpoints)
    return training.regressor, training.history


if __name__ == "__main__":
    regressor, history = train(Path(sys.argv[1]))
    rank = int(os.environ["RANK"])
    out = Path(sys.argv[2])
    save_file(weights(regressor), out / f"weights-{rank}.safetensors")
    history.to_json(out / f"history-{rank}.json")
