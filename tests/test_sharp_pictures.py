"""Pictures on a page: twice the pixels, the same size, whatever made them."""

import io
import runpy
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
from small_book import ROOT

EXTENSION = runpy.run_path(str(ROOT / "book" / "extensions" / "sharp_pictures.py"))


def drawn(dpi: int) -> bytes:
    figure = plt.figure(figsize=(3, 2))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    plt.close(figure)
    return stream.getvalue()


@pytest.mark.parametrize("dpi", [100, 150, 200])
def test_a_picture_is_shown_as_large_as_it_was_drawn(dpi: int) -> None:
    assert EXTENSION["shown_width"](drawn(dpi)) == 300


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a" + bytes(60), drawn(100)[:40], drawn(100).replace(b"pHYs", b"xHYs")]
)
def test_what_does_not_say_its_density_keeps_its_size(data: bytes) -> None:
    assert EXTENSION["shown_width"](data) is None


def test_widths_reach_the_page_and_pictures_that_have_one_keep_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(drawn(200))
    images = {str(tmp_path / "a.png"): "0.png"}
    app = SimpleNamespace(
        srcdir=tmp_path, builder=SimpleNamespace(images=images)
    )  # all that is asked of Sphinx
    body = '<img alt="A" src="../_images/0.png"/><img src="../_images/0.png" style="width: 5em"/>'
    body += '<img src="_images/gone.png"/>'
    context = {"body": body}
    EXTENSION["set_widths"](app, "page", "page.html", context, None)
    assert context["body"] == body.replace("<img alt", '<img width="300" alt', 1)
