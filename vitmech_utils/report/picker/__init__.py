"""The head picker: one widget for live notebooks and static pages, made from plain arrays."""

from vitmech_utils.report.notebook_data import share_notebook_data
from vitmech_utils.report.picker.answer import Answer, Tracks
from vitmech_utils.report.picker.chirps import chirp_answer
from vitmech_utils.report.picker.data import PickerData
from vitmech_utils.report.picker.example import example_arrays
from vitmech_utils.report.picker.facts import head_facts
from vitmech_utils.report.picker.widget import HeadPicker, save_page

__all__ = [
    "Answer",
    "HeadPicker",
    "PickerData",
    "Tracks",
    "chirp_answer",
    "example_arrays",
    "head_facts",
    "save_page",
    "share_notebook_data",
]
