import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.caveats import list_caveats
from phoenix_pipeline.reporting.comparison import compare_arms, format_table, headline_columns
from phoenix_pipeline.reporting.figure_style import figure_data_uri
from phoenix_pipeline.reporting.gallery import Gallery, tile_square
from phoenix_pipeline.reporting.report import render_report
from phoenix_pipeline.reporting.round_figures import draw_filter_decisions, draw_round_curves
from tests.written import arm_metrics, arm_results, scored_arms

MISSING = "\N{EN DASH}"
VOID = {"img", "meta", "br"}
LOCAL = ("data:image/", "data:text/csv", "data:application/x-tex", "data:text/markdown", "#")


class Page(HTMLParser):
    """The text of each table row, every address, and whether all tags are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.best: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.scopes: list[str | None] = []
        self.open: list[str] = []
        self._cell = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.addresses += [values[k] for k in ("src", "href") if k in values]
        self.ids += [values["id"]] if "id" in values else []
        self.scopes += [values.get("scope")] if tag == "th" else []
        self._cell = values.get("class", "") if tag == "td" else self._cell
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        in_row = "td" in self.open[-2:] or ("th" in self.open[-2:] and "tbody" in self.open)
        if in_row and data.strip():
            self.rows[-1].append(data.strip())
            if "best" in self._cell.split():
                self.best.append(data.strip())


SETTINGS = {
    "run": {"licence": None, "seed": 7},
    "partition": {"scheme": "iid"},
    "federation": {"engine": "in_process", "pooled": False},
    "training": {"lr": 0.125},
}


@pytest.fixture
def arms(metrics, rounds) -> list[ArmResults]:
    pooled = {"engine": "in_process", "pooled": True}
    gan = {name: group for name, group in SETTINGS.items() if name != "training"}
    settings = {
        "fedavg": SETTINGS,
        "centralized": {**SETTINGS, "federation": pooled},
        "dcgan": {**gan, "model": {"family": "dcgan"}},
    }
    said = {"centralized": ["Nothing stayed private."]}
    return [
        arm_results(
            arm,
            own,
            rounds=rounds,
            trained_with=settings[arm],
            is_pooled=arm == "centralized",
            disclosure=said.get(arm, ["Each client sent weights."]),
        )
        for arm, own in metrics.items()
    ]


@pytest.fixture
def arguments(arms, metrics, rounds, floor) -> dict:
    return {
        "table": compare_arms(scored_arms(metrics, dict.fromkeys(metrics, rounds)), floor),
        "arms": arms,
        "figures": {
            "rounds": draw_round_curves({"fedavg": rounds}),
            "filter:personalization": draw_filter_decisions(rounds),
            "beta x alpha": draw_round_curves({"fedavg": rounds}),
        },
        "gallery": Gallery({"fedavg": Image.new("RGBA", (8, 8))}),
        "runs": pd.DataFrame(columns=["weights"]),
        "links": {"Runs": "kedro mlflow ui"},
    }


def test_the_table_holds_the_numbers_and_marks_the_best_federated_arm(arguments) -> None:
    page = Page(render_report(**arguments))
    assert page.open == []
    assert ["fedavg", "5.25", MISSING, "0.500", MISSING, "220", "1.16 kB"] in page.rows
    assert ["centralized", "2.50", MISSING, "0.875", "0.0100", "220", "1.16 kB"] in page.rows
    assert ["real test images", "0.75", MISSING, "0.960", *[MISSING] * 3] in page.rows
    assert set(page.best) == {"5.25"}


def test_nothing_is_asked_of_any_other_machine(arguments) -> None:
    html = render_report(**arguments)
    page = Page(html)
    assert "http:" not in html and "https:" not in html and "@import" not in html
    assert len(page.addresses) > 6
    assert all(a.startswith(LOCAL) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)


def test_facts_caveats_skips_settings_and_links_are_there(arguments) -> None:
    html = render_report(**arguments, notes=["Trained on a quarter of the data."])
    for text in (
        "<dt>Seed</dt><dd>7</dd>",
        "fid_inception_v3: no weights file",
        "98.6% of real test images",
        "taken from 200 samples",
        "100 of them: fewer than the samples",
        "Trained on a quarter of the data.",
        "federation.pooled",
        "Nothing stayed private.",
        "Each client sent weights.",
        "500 B sent, 660 B received",
        "kedro mlflow ui",
        "beta x alpha",
    ):
        assert text in html
    rows = Page(html).rows
    assert ["training.lr", "0.125", "0.125", MISSING] in rows
    assert ["model.family", MISSING, MISSING, "dcgan"] in rows


def test_sections_without_content_are_left_out(arguments) -> None:
    nothing = {"arms": [], "figures": {}, "links": {}, "gallery": Gallery({})}
    html = render_report(**arguments | nothing)
    ids = set(Page(html).ids)
    assert ids == {"scores", "caveats"}


def test_names_and_values_are_escaped(arguments, rounds) -> None:
    evil = "<script>alert(1)</script>"
    scores = arm_metrics({"fid_pixels": 1.0}, skipped={"kid": evil})
    settings = {**SETTINGS, "training": {"note": evil}, "partition": {"scheme": evil}}
    arm = arm_results(
        evil, scores, rounds=rounds, trained_with=settings, disclosure=[evil], model_card=evil
    )
    html = render_report(
        compare_arms([arm]),
        [arm],
        figures={evil: draw_round_curves({})},
        gallery=Gallery({evil: Image.new("RGBA", (2, 2))}),
        runs=pd.DataFrame(columns=["weights"]),
        notes=[evil],
        links={evil: evil},
    )
    assert html.count("<script") == 1
    assert html.count("&lt;script&gt;") > 8


def test_pooled_arms_show_no_traffic_and_why(arguments, arms) -> None:
    html = render_report(**arguments | {"table": compare_arms(arms)})
    assert ["centralized", "2.50", MISSING, "0.875", "0.0100", "220", MISSING] in Page(html).rows
    assert "centralized trains where all images lie" in html
    assert "Every arm saw 220 training examples" in html


def test_clients_own_models_have_a_table_each_and_beside_their_average(arguments, metrics) -> None:
    metrics["fedavg"]["clients"] = {
        "10": {"num_samples": 20, "class_shares": [0.0, 1.0]},
        "2": {"num_samples": 1180, "fid_pixels": 7.125, "class_shares": [0.7, 0.3]},
    }
    metrics["fedavg"]["scores"]["final_average.fid_pixels"] = 6.5
    page = Page(render_report(**arguments))
    place = page.rows.index(["2", "1,180", "7.12", "cat 70%, dog 30%"])
    assert page.rows[place + 1] == ["10", "20", MISSING, "dog 100%"]
    assert ["FID pixels ↓", "5.25", "6.50"] in page.rows
    assert "models" in page.ids


def test_pictures_keep_their_pixels(arguments) -> None:
    grid = tile_square(np.array([[[[0, 255], [128, 3]]]], dtype=np.uint8))
    html = render_report(**arguments | {"gallery": Gallery({"fedavg": grid})})
    (encoded,) = re.findall(r"data:image/png;base64,([^\"]+)", html)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    assert image[..., 0].tolist() == [[0, 255], [128, 3]]


@pytest.mark.parametrize(("side", "columns", "shrunk"), [(28, 9, False), (64, 10, True)])
def test_pictures_that_are_shown_smaller_are_smoothed(
    arguments, side: int, columns: int, shrunk: bool
) -> None:
    """Else pixels are dropped: photographs look like noise, and gaps between them vanish."""
    grid = tile_square(np.zeros((columns**2, 1, side, side), dtype=np.uint8))
    html = render_report(**arguments | {"gallery": Gallery({"fedavg": grid})})
    assert ('class="cards shrunk"' in html) is shrunk
    assert ".shrunk img { image-rendering: auto; }" in html


def test_headings_have_a_scope_and_the_numbers_are_there_as_csv(arguments) -> None:
    page = Page(render_report(**arguments))
    assert page.scopes and set(page.scopes) == {"col", "row", "colgroup"}
    (address,) = [a for a in page.addresses if a.startswith("data:text/csv")]
    table = pd.read_csv(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))
    assert table.set_index("arm").at["dcgan", "fid_pixels"] == 31.5


def test_an_arm_of_other_settings_is_marked_in_every_table(arguments, metrics, rounds) -> None:
    marks = {"fedavg": "run.seed, partition.scheme"}
    arguments["table"] = compare_arms(scored_arms(metrics, marks=marks))
    html = render_report(**arguments, notes=["fedavg: run.seed 7 (now 0)"])
    assert "of this command: run.seed, partition.scheme" in html
    assert "fedavg: run.seed 7 (now 0)" in html
    assert "other_settings" not in headline_columns(arguments["table"])
    assert "fedavg*" in format_table(arguments["table"])


def test_figures_have_colours_for_a_dark_page(rounds) -> None:
    uri = figure_data_uri(draw_round_curves({"fedavg": rounds}))
    svg = base64.b64decode(uri.partition("base64,")[2]).decode()
    assert "prefers-color-scheme: dark" in svg
    assert '[style*="stroke: #0072b2"] { stroke: #3d9be0 !important }' in svg
    assert "stroke: #0072b2" in svg.partition("</style>")[2]


def test_the_same_figure_gives_the_same_bytes(rounds) -> None:
    first, second = (figure_data_uri(draw_round_curves({"fedavg": rounds})) for _ in range(2))
    assert first == second
    assert b"<svg" in base64.b64decode(first.partition("base64,")[2])


def test_caveats_name_unequal_work_and_unequal_sample_counts(metrics, rounds) -> None:
    metrics["dcgan"]["conditions"]["num_samples"] = 1000
    half = rounds.assign(images_trained=rounds["images_trained"] / 2)
    text = " ".join(
        list_caveats(compare_arms(scored_arms(metrics, {"fedavg": rounds, "dcgan": half})))
    )
    assert "200 and 1,000 samples: their FIDs are not comparable" in text
    assert "dcgan on 110, fedavg on 220" in text


def test_published_features_need_no_warning(metrics, rounds) -> None:
    metrics["fedavg"]["scores"]["fid_inception_v3"] = 6.24
    text = " ".join(list_caveats(compare_arms(scored_arms(metrics, {"fedavg": rounds}))))
    assert "published" not in text and "equally many" not in text


def test_the_cards_of_an_arm_can_be_saved(arguments, arms) -> None:
    html = render_report(**arguments | {"arms": [replace(arms[0], model_card="# fedavg")]})
    encoded = base64.b64encode(b"# fedavg").decode()
    assert f'href="data:text/markdown;base64,{encoded}" download="fedavg_model_card.md"' in html
