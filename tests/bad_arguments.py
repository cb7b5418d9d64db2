"""Every public function of the data, the models and the picker, called with one argument of another kind at a time.

Run as a script, outside pytest, whose import hook would refuse these arguments before the functions see them. Prints
how many calls were made, refused in words, and answered, and every one that ended in something undocumented.
"""

import json
import math
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import soundfile
import torch
import traitlets

from vitmech_utils.data import (
    boxes,
    chirp_dataset,
    chirps,
    figure_changes,
    figures,
    folders,
    image_files,
    labels,
    matched,
    real_signals,
    recording_files,
    recordings,
    regions,
    spectrograms,
    style,
    sweep_labels,
    waveforms,
    window_figures,
)
from vitmech_utils.model import (
    anatomy,
    backbones,
    classifier,
    classifier_score,
    finetune,
    lora,
    readout,
    regressor,
    regressor_score,
    updates,
)
from vitmech_utils.report.picker import HeadPicker, example_arrays, save_page

LONGEST = 20  # seconds of one call
DOCUMENTED = (ValueError, IndexError, lora.AdapterError, backbones.BackboneError, traitlets.TraitError)
WRITERS = (
    "write_raven",
    "write_audacity",
    "save_page",
)  # a path that is none is the system's own error, which names it
OWN = ("matching", "measure")  # a function of the caller's, whose errors are the caller's
BAD = [
    None, "x", "", b"x", 3, -1, 2.5, math.nan, math.inf, True, 10**30, [], {}, (), object(), [None], ["x"],
    np.zeros(3), np.zeros((2, 2), dtype=object), np.full((128, 128), math.nan), torch.zeros(3), np.float64(0.5),
    Path("nowhere"), len,
]  # fmt: skip


def good_calls(place: Path) -> list[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Calls that are right: a name, a function and its arguments."""
    rng, chirp = np.random.default_rng(0), chirps.Chirp(1.0, 20.0, 30.0, 5.0, "linear")
    grid = chirps.paint(chirp, rng)
    ridge = chirps.ridge(chirp)
    axes = spectrograms.Axes(0.0, 1.0, 0.0, 800.0)
    noise = rng.standard_normal(4000)
    soundfile.write(place / "a.wav", noise / 10, 2000)
    recording = recording_files.open_recording(place / "a.wav")
    box = boxes.Box(0.1, 0.2, 10.0, 20.0)
    table = boxes.write_raven([box], place / "a.txt")
    data = chirp_dataset.ChirpDataset(2)
    exported = folders.export_folder(data, place / "out", workers=1, progress=False)
    opened = folders.FolderDataset(exported)
    model = regressor.ChirpRegressor.build(backbones.tiny(layers=1, heads=2))
    plain = regressor.ChirpRegressor.tiny(layers=1, heads=2)
    adapter = regressor.ChirpRegressor.build("tiny").save(place / "adapter", training={"steps": 1})
    items = chirp_dataset.stack(data, 2)
    logits, told = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    picture = matched.Picture(grid, ridge, axes, np.zeros(3), "t", "s")
    rows = np.full(128, 40.0)
    image = rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)
    region_maps = items["regions"]
    fields = {"start_time": 1.0, "start_freq": 2.0, "end_freq": 3.0, "duration": 4.0, "sweep": "linear"}
    made = Path(tempfile.mkdtemp(dir=place))
    return [
        ("Chirp", chirps.Chirp, fields),
        ("generator", chirps.generator, {"seed": 0, "index": 0, "purpose": "noise"}),
        ("sample_chirp", chirps.sample_chirp, {"seed": 0, "index": 0}),
        ("paint", chirps.paint, {"chirp": chirp, "rng": rng}),
        ("ridge", chirps.ridge, {"chirp": chirp}),
        ("smooth_ridge", chirps.smooth_ridge, {"painted": ridge}),
        ("Style", style.Style, {"title": "plain", "title_side": "top", "axis_labels": True, "ticks": True,
            "time_side": "bottom", "frequency_side": "left", "colour_bar": "right", "frame": True,
            "colour_map": "magma", "colour_limits": (0.0, 1.0), "font_scale": 1.0, "shift": (1, 2), "jitter": False}),
        ("find_style", style.find_style, {"style": "bare"}),
        ("draw", figures.draw, {"grid": grid, "chirp": chirp, "style": "bare", "title": "t", "painted": ridge}),
        ("draw_with_matplotlib", figures.draw_with_matplotlib, {"grid": grid, "chirp": chirp, "style": "bare", "title": "t", "painted": ridge}),
        ("fitting_title", figures.fitting_title, {"title": "t", "style": "published"}),
        ("standardize", chirp_dataset.standardize, {"labels": np.zeros(3)}),
        ("unstandardize", chirp_dataset.unstandardize, {"labels": np.zeros(3)}),
        ("ChirpDataset", chirp_dataset.ChirpDataset, {"size": 2, "seed": 0, "style": "bare", "split": "train", "source": None}),
        ("ChirpDataset.chirp", data.chirp, {"index": 0}),
        ("ChirpDataset.drawing", data.drawing, {"index": 0}),
        ("ChirpDataset[]", data.__getitem__, {"index": 0}),
        ("as_pixels", chirp_dataset.as_pixels, {"image": image}),
        ("stack", chirp_dataset.stack, {"dataset": data, "count": 1}),
        ("SweepDataset", sweep_labels.SweepDataset, {"size": 2, "title": "plain", "style": "bare", "seed": 1}),
        ("sweep_labels", sweep_labels.sweep_labels, {"chirp": chirp}),
        ("bend", sweep_labels.bend, {"chirp": chirp}),
        ("Waveform", waveforms.Waveform, {"amplitude": 1.0, "noise_colour": "pink", "snr": 0.0}),
        ("frequency", waveforms.frequency, {"chirp": chirp, "time": np.zeros(3)}),
        ("synthesize", waveforms.synthesize, {"chirp": chirp, "amplitude": 1.0}),
        ("noise", waveforms.noise, {"rng": rng, "colour": "white", "power": 1.0}),
        ("paint_waveform", waveforms.paint_waveform, {"chirp": chirp, "rng": rng, "waveform": waveforms.Waveform()}),
        ("true_ridge", waveforms.true_ridge, {"chirp": chirp}),
        ("export_folder", folders.export_folder, {"dataset": data, "folder": exported, "workers": 1, "full_size": False, "progress": False}),
        ("FolderDataset", folders.FolderDataset, {"folder": exported, "decode_all": True}),
        ("FolderDataset.chirp", opened.chirp, {"index": 0}),
        ("FolderDataset[]", opened.__getitem__, {"index": 0}),
        ("read_png", image_files.read_png, {"path": exported / "spectrogram_1.png"}),
        ("check_png", image_files.check_png, {"path": exported / "spectrogram_1.png", "folder": exported}),
        ("read_labels", labels.read_labels, {"path": exported / "labels.csv"}),
        ("write_labels", labels.write_labels, {"chirps": [chirp], "extra": {"a": ["b"]}}),
        ("Box", boxes.Box, {"start": 0.0, "end": 1.0, "low": 2.0, "high": 3.0, "label": "x", "channel": 1}),
        ("read_boxes", boxes.read_boxes, {"path": table, "recording": "a.wav", "others": ["b.wav"]}),
        ("write_raven", boxes.write_raven, {"boxes": [box], "path": made / "r.txt"}),
        ("write_audacity", boxes.write_audacity, {"boxes": [box], "path": made / "a.txt"}),
        ("outside", boxes.outside, {"boxes": [box], "duration": 1.0, "highest": 100.0, "channels": 1}),
        ("recorded", recording_files.recorded, {"samples": noise, "rate": 2000.0, "name": "n"}),
        ("open_recording", recording_files.open_recording, {"path": place / "a.wav", "channel": 1, "dataset": None}),
        ("Recording.samples", recording.samples, {"start": 0.0, "end": 1.0}),
        ("Recording.whitened", recording.whitened, {"low": 20.0, "high": 900.0}),
        ("window_grid", recordings.window_grid, {"recording": recording, "axes": axes, "clipped": True}),
        ("clipped_share", recordings.clipped_share, {"samples": noise}),
        ("RecordingFolder", recordings.RecordingFolder, {"folder": place, "length": 1.0, "frequencies": (0, 800), "hop": 0.5,
            "channel": 1, "dataset": None, "whiten": (20, 900), "style": "bare", "clipped": False}),
        ("RecordingFolder[]", recordings.RecordingFolder(place, 1.0, (0, 800)).__getitem__, {"index": 0}),
        ("Axes", spectrograms.Axes, {"start": 0.0, "end": 1.0, "low": 0.0, "high": 800.0}),
        ("window_samples", spectrograms.window_samples, {"axes": axes, "rate": 2000.0}),
        ("transform_of", spectrograms.transform_of, {"axes": axes, "rate": 2000.0}),
        ("spectrogram", spectrograms.spectrogram, {"samples": noise, "rate": 2000.0, "axes": axes, "first": 0.0}),
        ("whiten", spectrograms.whiten, {"samples": noise, "rate": 2000.0, "band": (20.0, 900.0), "piece": 0.25}),
        ("cover", spectrograms.cover, {"boxes": [box], "axes": axes}),
        ("contrast", spectrograms.contrast, {"grid": grid, "chirp": ridge > 0.5}),
        ("draw_window", window_figures.draw_window, {"grid": grid, "painted": ridge, "axes": axes, "style": "bare", "title": "t"}),
        ("filled", window_figures.filled, {"covered": ridge}),
        ("patch_coverage", regions.patch_coverage, {"regions": region_maps[0].numpy(), "patch": 14}),
        ("regions_of", figure_changes.regions_of, {"target": "title"}),
        ("region_mask", figure_changes.region_mask, {"regions": region_maps, "target": "title"}),
        ("choose_pixels", figure_changes.choose_pixels, {"regions": region_maps, "target": "title", "pixels": 3, "seed": 0}),
        ("occlude", figure_changes.occlude, {"images": items, "target": "title"}),
        ("stacked", matched.stacked, {"pictures": [picture], "style": "bare"}),
        ("chirp_cells", matched.chirp_cells, {"painted": ridge}),
        ("matched.sweep", matched.sweep, {"chirp": chirp, "rate": 2000.0, "axes": axes}),
        ("matching", matched.matching, {"measure": lambda value: value, "target": 1.0, "bounds": (0.5, 2.0)}),
        ("trace", matched.trace, {"grid": grid, "inside": ridge > 0.5}),
        ("ridge_of", matched.ridge_of, {"rows": rows}),
        ("track_labels", matched.track_labels, {"rows": rows}),
        ("apart", matched.apart, {"pictures": [picture]}),
        ("is_cached", real_signals.is_cached, {"source": real_signals.CALLS, "cache": place}),
        ("load_backbone", backbones.load_backbone, {"name": "tiny", "attention": "eager"}),
        ("tiny", backbones.tiny, {"seed": 0, "layers": 1, "heads": 2, "attention": "sdpa"}),
        ("LoraSettings", lora.LoraSettings, {"r": 8, "alpha": 16, "dropout": 0.1}),
        ("weights_fingerprint", lora.weights_fingerprint, {"model": plain}),
        ("lora_config", lora.lora_config, {"model": plain, "lora": lora.STUDY}),
        ("ChirpRegressor.build", regressor.ChirpRegressor.build, {"backbone": "tiny", "lora": None, "attention": "sdpa", "seed": 0}),
        ("ChirpRegressor.tiny", regressor.ChirpRegressor.tiny, {"seed": 0, "layers": 1, "heads": 2}),
        ("ChirpRegressor()", plain.__call__, {"pixel_values": items["pixel_values"], "labels": items["labels"]}),
        ("ChirpRegressor.save", model.save, {"folder": place / "saved", "training": {"steps": 1}}),
        ("ChirpRegressor.load", regressor.ChirpRegressor.load, {"folder": adapter, "backbone": "tiny", "attention": "sdpa"}),
        ("read_training", regressor.read_training, {"folder": adapter}),
        ("seconds_and_hertz", regressor.seconds_and_hertz, {"standardized": torch.zeros(2, 3)}),
        ("accuracies", classifier.accuracies, {"logits": logits[:, :2], "labels": (told[:, :2] > 0).astype(float)}),
        ("cross_entropies", classifier_score.cross_entropies, {"logits": torch.zeros(5, 2), "labels": torch.ones(5, 2)}),
        ("told_right", classifier_score.told_right, {"logits": logits, "labels": told}),
        ("wilson", classifier_score.wilson, {"right": told[:, 0] > 0, "confidence": 0.9}),
        ("classifier score", classifier_score.score, {"logits": logits[:, :2], "labels": (told[:, :2] > 0).astype(float), "targets": ("a", "b")}),
        ("Recipe", finetune.Recipe, {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 1,
            "weight_decay": 0.01, "every": 1, "patience": 1, "precision": "float32", "seed": 0}),
        ("Recipe.study", finetune.Recipe.study, {"images": 3200}),
        ("cls_features", readout.cls_features, {"regressor": plain, "images": data, "batch_size": 2}),
        ("with_readout", readout.with_readout, {"regressor": plain, "images": data, "batch_size": 2}),
        ("readout ridge", readout.ridge, {"features": torch.rand(5, 4), "labels": torch.rand(5, 3)}),
        ("update_norms", updates.update_norms, {"tuned": plain, "pretrained": plain}),
        ("predict", regressor_score.predict, {"regressor": plain, "images": data, "batch_size": 2}),
        ("correlations", regressor_score.correlations, {"predictions": logits, "labels": told}),
        ("regressor score", regressor_score.score, {"predictions": logits, "labels": told, "confidence": 0.9}),
        ("find_blocks", anatomy.find_blocks, {"model": plain}),
        ("Anatomy.every", anatomy.find_blocks(plain).every, {"step": 1}),
        ("Anatomy.grid", anatomy.find_blocks(plain).grid, {"image_size": 224}),
        ("example_arrays", example_arrays, {"layers": 2, "heads": 2, "grid": (4, 4), "images": 1, "size": 16, "variants": 2,
            "twins": True, "queries": 2, "query_heads": None, "seed": 0}),
        ("HeadPicker", HeadPicker, example_arrays(2, 2, (4, 4), 2, size=16, queries=2) | {
            "twins": ("a", "b"), "effect_label": "e", "effect_unit": "%", "lift": np.ones((2, 2, 7)), "entropy_unit": "nats",
            "query_heads": [(0, 0), (0, 1), (1, 0), (1, 1)], "query_image": 0, "map_levels": 16, "query_levels": 8, "title": "t",
            "name": "n", "page_limit": 6_000_000, "layer": 1, "measure": "effect", "scale": "map", "opacity": 0.5}),
        ("save_page", save_page, {"path": made / "p.html", "pickers": [], "title": "t"}),
    ]  # fmt: skip


def too_long(*_: object) -> None:
    raise TimeoutError(f"took more than {LONGEST} s")


def main() -> None:
    place = Path(tempfile.mkdtemp())
    os.chdir(place)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    signal.signal(signal.SIGALRM, too_long)
    tries = {"calls": 0, "refused": 0, "answered": 0}
    wrong: list[str] = []
    calls = good_calls(place)
    chosen = sys.argv[1:]
    for name, function, arguments in calls:
        if chosen and name not in chosen:
            continue
        print(name, file=sys.stderr, flush=True)
        function(**arguments)
        for key in arguments:
            for value in BAD:
                if (name, key) == OWN and callable(value):
                    continue
                tries["calls"] += 1
                signal.alarm(LONGEST)
                try:
                    function(**(arguments | {key: value}))
                    tries["answered"] += 1
                except DOCUMENTED as error:
                    tries["refused"] += 1
                    if not str(error):
                        wrong.append(f"{name}({key}={value!r}): {type(error).__name__} without words")
                except Exception as error:
                    if isinstance(error, OSError) and name in WRITERS and error.filename is not None:
                        tries["refused"] += 1
                        continue
                    wrong.append(f"{name}({key}={value!r:.60}): {type(error).__name__}: {error!s:.160}")
                    if chosen:
                        traceback.print_exc()
                finally:
                    signal.alarm(0)
    print(json.dumps(tries | {"wrong": wrong, "functions": len(calls)}, indent=1))


if __name__ == "__main__":
    main()
