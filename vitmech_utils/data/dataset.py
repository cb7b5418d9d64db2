"""Every data set in one import: images drawn when asked for, and folders in the published layout."""

from vitmech_utils.data.chirp_dataset import (
    HELD_OUT,
    ChirpDataset,
    as_pixels,
    held_out,
    stack,
    standardize,
    training_figures,
    unstandardize,
)
from vitmech_utils.data.folders import FolderDataset, FolderError, export_folder
from vitmech_utils.data.regions import REGIONS

__all__ = [
    "HELD_OUT",
    "REGIONS",
    "ChirpDataset",
    "FolderDataset",
    "FolderError",
    "as_pixels",
    "export_folder",
    "held_out",
    "stack",
    "standardize",
    "training_figures",
    "unstandardize",
]
