"""The page in a real browser: nothing is cut off at any width, and the tables sort."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phoenix_pipeline.images import encode_png
from phoenix_pipeline.reporting.comparison import compare_arms
from phoenix_pipeline.reporting.earlier_runs import add_runs
from phoenix_pipeline.reporting.gallery import Gallery
from phoenix_pipeline.reporting.report import render_report
from phoenix_pipeline.reporting.round_figures import draw_round_curves, draw_score_curves
from phoenix_pipeline.reporting.score_figures import draw_scores
from tests.written import arm_metrics, arm_results, scored_arms

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
PNG = encode_png(np.full((1, 40, 40), 99, np.uint8))
GROWING = pd.DataFrame(
    {
        "round": [2, 4],
        "images_trained": [160, 320],
        "bytes_total": [100, 200],
        "num_samples": 9,
        "fid_pixels": [2.0, 1.0],
        "grid": [PNG, PNG],
    }
)
SPACES = ("inception_v3", "classifier", "efficientnet_lite0", "pixels")


@pytest.fixture
def page(rounds: pd.DataFrame) -> str:
    """A report whose headline table has every column that it can have."""
    names = [f"{m}_{s}" for m in ("fid", "kid", "precision", "recall", "coverage") for s in SPACES]
    names += ["class_entropy", "class_kl", "classes_covered", "memorized_share"]
    arms = ("centralized", "fedavg", "personalization")
    metrics = {
        arm: arm_metrics({name: 12.3456 + 7 * place for name in names})
        for place, arm in enumerate(arms)
    }
    timed = rounds.assign(link_seconds=100.0)
    table = compare_arms(scored_arms(metrics, dict.fromkeys(metrics, timed)))
    by_round = {"fedavg": GROWING, "personalization": GROWING.assign(round=[1, 6])}
    results = [
        arm_results(
            arm,
            own,
            trained_with=trained_with(note="long " * 20 + arm),
            by_round=by_round.get(arm, pd.DataFrame()),
        )
        for arm, own in metrics.items()
    ]
    one = arm_metrics({"fid_pixels": 12.3}, {"weights_digest": "earlier"})
    earlier = arm_results("fedavg", one, trained_with=trained_with(), weights_digest="earlier")
    return render_report(
        table,
        results,
        figures={
            "scores": draw_scores(table),
            "rounds": draw_round_curves({"fedavg": rounds}),
            "by_round": draw_score_curves({"fedavg": GROWING}, ()),
        },
        gallery=Gallery({arm: Image.new("RGBA", (90, 90)) for arm in metrics}),
        runs=add_runs(pd.DataFrame(), compare_arms([earlier]), [earlier]),
        notes=["run.seed 0 (now 7); " * 10],
    )


def trained_with(**federation: Any) -> dict[str, dict[str, Any]]:
    """Return the settings that the head of the page and the table of earlier runs name."""
    return {
        "run": {"licence": None, "seed": 3},
        "partition": {"scheme": "pathological", "classes_per_client": 2, "num_clients": 10},
        "federation": {"engine": "in_process", "pooled": False, "num_rounds": 2, **federation},
    }


def ask(page: str, folder: Path, width: int, script: str) -> Any:
    """Return what the JavaScript expression ``script`` gives in a window of ``width`` pixels."""
    file = folder / "page.html"
    told = f"<script>document.body.dataset.answer = JSON.stringify({script})</script></body>"
    file.write_text(page.replace("</body>", told), encoding="utf-8")
    ended = subprocess.run(
        [
            str(BROWSER),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},1000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'data-answer="([^"]*)"', ended.stdout)
    assert found is not None
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [400, 1000, 1320, 1400])
def test_nothing_is_cut_off(page: str, tmp_path: Path, width: int) -> None:
    script = """{
        width: document.documentElement.clientWidth,
        page: document.documentElement.scrollWidth,
        cut: [...document.querySelectorAll("section > .wide")].filter(
            (box) => box.scrollWidth > box.clientWidth + 1).length,
    }"""
    found = ask(page, tmp_path, width, script)
    assert found["page"] <= found["width"]
    assert found["cut"] == 0


def test_a_column_sorts_by_its_values_both_ways(page: str, tmp_path: Path) -> None:
    script = """(() => {
        const table = document.querySelector("table.scores");
        const button = table.tHead.rows[1].cells[1].querySelector("button");
        const rows = table.tBodies[0].rows;
        const order = () => [...rows].map((row) => row.cells[1].textContent.trim());
        button.click();
        const up = order();
        button.click();
        return [up, order()];
    })()"""
    up, down = ask(page, tmp_path, 1400, script)
    assert up == ["12.3", "19.3", "26.3"]
    assert down == up[::-1]


def test_a_picture_opens_in_full_size(page: str, tmp_path: Path) -> None:
    script = """(() => {
        document.querySelector(".zoom").click();
        const dialog = document.querySelector("dialog");
        return [dialog.open, dialog.querySelector("a").download];
    })()"""
    opened, name = ask(page, tmp_path, 1000, script)
    assert opened
    assert name == "Samples_of_centralized.png"


def test_the_slider_shows_each_arm_at_its_newest_round(page: str, tmp_path: Path) -> None:
    """fedavg was kept after rounds 2 and 4, dcgan after 1 and 6."""
    script = """(() => {
        const slider = document.querySelector("#round");
        const shown = () => [...document.querySelectorAll(".growth figure")].map(
            (figure) => [...figure.querySelectorAll("img")].filter((one) => one.offsetHeight > 0)
                .map((one) => Number(one.dataset.round)));
        const found = [slider.parentElement.querySelector("output").value, shown()];
        for (const place of [0, 1, 2]) {
            slider.value = place;
            slider.dispatchEvent(new Event("input"));
            found.push(slider.parentElement.querySelector("output").value, shown());
        }
        return found;
    })()"""
    assert ask(page, tmp_path, 1000, script) == [
        *("6", [[4], [6]]),
        # Before its first kept round fedavg shows that one.
        *("1", [[2], [1]]),
        *("2", [[2], [1]]),
        *("4", [[4], [1]]),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000, 1400])
def test_everybody_can_read_it(page: str, tmp_path: Path, width: int, scheme: str) -> None:
    """Axe-core's rules: contrast, names of controls, order of headings, tables."""
    playwright = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        size = {"width": width, "height": 900}
        tab = browser.new_page(viewport=size, color_scheme=scheme)
        tab.goto(file.as_uri())
        found = axe.Axe().run(tab).response["violations"]
        # It would see a fault: a picture without its text.
        tab.evaluate("document.querySelector('.growth img:not([hidden])').removeAttribute('alt')")
        broken = axe.Axe().run(tab).response["violations"]
        browser.close()
    assert [(fault["id"], fault["nodes"][0]["target"]) for fault in found] == []
    assert [fault["id"] for fault in broken] == ["image-alt"]
