"""PNG files from elsewhere: judged by their headers before a byte is decoded, and written whole or not at all."""

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.reference import IMAGE_SIZE
from vitmech_utils.own_folders import temporary_beside

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 4096  # pixels on a side; the study's files have 640 x 480
MOST_CHUNKS = 100_000  # parts of a file; a large one has some hundreds
PART = ".part"  # suffix of a file that is still being written
# What Pillow raises for a file whose content is not what its header says.
UNDECODABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, struct.error, zlib.error)


@checked_arguments()
def check_png(path: Path, folder: Path) -> str | None:
    """What is wrong with an image file, or None: not inside the folder, not a PNG, too large, cut short.

    Reads the header and the lengths of the parts alone, so that a file whose header promises gigapixels costs nothing.
    Bytes behind the last part belong to no picture, and are left alone as every viewer leaves them.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        return "leads out of the folder"
    try:
        with path.open("rb") as file:
            head = file.read(26)
            if len(head) < 26 or not head.startswith(SIGNATURE) or head[12:16] != b"IHDR":
                return "is not a PNG file"
            width, height = struct.unpack(">II", head[16:24])
            if not (0 < width <= LARGEST and 0 < height <= LARGEST):
                return f"has {width} x {height} pixels, expected at most {LARGEST} x {LARGEST}"
            return _wrong_in_parts(file)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _wrong_in_parts(file: BinaryIO) -> str | None:
    """What is wrong with the parts of a PNG file, by their lengths and names, or None."""
    size, at = file.seek(0, os.SEEK_END), len(SIGNATURE)
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return "is cut short"
        length, kind = struct.unpack(">I4s", header)
        at += 12 + length  # length, name, content, checksum
        if at > size:
            return "is cut short"
        if kind == b"acTL":
            return "is an animation, expected one picture"
        if kind == b"IEND":
            return None
    return f"has more than {MOST_CHUNKS:,} parts"


@checked_arguments()
def read_png(path: Path) -> UInt8[ndarray, "224 224 3"]:
    """The pixels of a checked image at the model's size, as a viewer shows them on white paper.

    16-bit grey is scaled to 8 bits; what is transparent lets the white through. Raises ValueError when the pixels
    cannot be decoded.
    """
    try:
        with Image.open(path, formats=["PNG"]) as file:
            image = _on_paper(file)
    except UNDECODABLE as error:
        raise ValueError(f"{path.name} cannot be decoded ({error}): fetch or export it again") from error
    if image.size != (IMAGE_SIZE, IMAGE_SIZE):
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _on_paper(file: Image.Image) -> Image.Image:
    """An image of any of PNG's kinds as RGB with 8 bits."""
    if file.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut at 255
        if "transparency" in file.info:
            raise ValueError("16-bit grey with a transparent value, expected 8 bits or no transparency")
        grey = np.asarray(file, dtype=np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"grey values from {grey.min()} to {grey.max()}, expected 16 bits")
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if file.mode in ("LA", "PA", "RGBA") or "transparency" in file.info:
        image = file.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return file.convert("RGB")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it; on any failure nothing is left behind."""
    temporary = temporary_beside(path, f".{path.name}.", PART)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
