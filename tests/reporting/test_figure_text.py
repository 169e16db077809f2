"""Class names in figures: text as it is spelt, whatever it is."""

import io
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from phoenix_pipeline.reporting import figure_style
from phoenix_pipeline.reporting.figure_style import drawable_name
from phoenix_pipeline.reporting.partition_figure import draw_partition
from phoenix_pipeline.reporting.sample_figures import draw_class_histograms

NAMES = ("a_$b$", "$\\frac$", "US$ 5 to $10", "图像", "caf\\xe9", "x" * 200, "100 % #_{^}", "plain")


def render(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png")


def tick_texts(figure: Figure) -> set[str]:
    """Return what the ticks show after matplotlib has taken away its escapes."""
    render(figure)
    labels = [
        label
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    return {label._preprocess_math(label.get_text())[0] for label in labels}


@pytest.fixture(autouse=True)
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have no other font."""
    figure_style._family_with.cache_clear()
    figure_style._say_missing.cache_clear()
    monkeypatch.setattr(figure_style, "_other_fonts", dict)
    yield
    figure_style._family_with.cache_clear()


@pytest.mark.filterwarnings("error:Glyph")
def test_names_are_drawn_as_they_are_spelt() -> None:
    labels = np.arange(len(NAMES))
    partition = pd.DataFrame({"client_id": labels % 2, "label": labels})
    shown = {*NAMES[:3], "\\u56fe\\u50cf", *NAMES[4:5], "x" * 39 + "…", *NAMES[6:]}
    assert shown <= tick_texts(draw_partition(partition, NAMES))
    share = [1 / len(NAMES)] * len(NAMES)
    histogram = {"class_names": NAMES, "shares": share, "counts": [1] * len(NAMES)}
    metrics = {"fedavg": {"class_histogram": {**histogram, "classifier_test_accuracy": 1.0}}}
    assert shown <= tick_texts(draw_class_histograms(metrics, share))


def test_missing_glyphs_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert drawable_name("图 $5") == "\\u56fe \\$5"
        drawable_name("图")
    assert len(caplog.records) == 1
    assert "no font on this machine has 图" in caplog.text


def test_another_font_of_this_machine_fills_in(monkeypatch: pytest.MonkeyPatch) -> None:
    math = Path(font_manager.findfont("DejaVu Sans")).with_name("STIXGeneral.ttf")
    monkeypatch.setattr(figure_style, "_other_fonts", lambda: {"STIXGeneral": str(math)})
    sans = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    stix = font_manager.get_font(str(math))
    only_there = next(code for code in stix.get_charmap() if code not in sans.get_charmap())
    assert drawable_name(chr(only_there)) == chr(only_there)
    assert figure_style._other_family(chr(only_there)) == "STIXGeneral"
