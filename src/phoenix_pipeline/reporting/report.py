"""The HTML report: one file of a whole run that opens from disk and asks nobody for anything."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure

from phoenix_pipeline.metrics.metric import PRIVACY
from phoenix_pipeline.reporting.arm_results import AUDIT_COMMAND, ArmResults
from phoenix_pipeline.reporting.caveats import list_caveats, list_skipped, privacy_caveats
from phoenix_pipeline.reporting.client_models import describe_client_models
from phoenix_pipeline.reporting.columns import FLOOR_NAME, describe_metric, doubtful_shares
from phoenix_pipeline.reporting.comparison import headline_columns, marked_arms, table_view
from phoenix_pipeline.reporting.earlier_runs import show_earlier
from phoenix_pipeline.reporting.figure_style import (
    arm_styles,
    figure_data_uri,
    image_data_uri,
    text_data_uri,
)
from phoenix_pipeline.reporting.formatting import (
    DOUBTFUL,
    format_values,
    latex_table,
    latex_title,
)
from phoenix_pipeline.reporting.gallery import MOST_CLASSES, Gallery, show_growth
from phoenix_pipeline.reporting.privacy import privacy_rows, privacy_titles
from phoenix_pipeline.reporting.provenance import (
    differing_settings,
    experiment_facts,
    flatten_settings,
)
from phoenix_pipeline.reporting.summary import summarise

TEMPLATE = "report.html.j2"
_TITLE = "Phoenix: federated diffusion, arm by arm"
# Sections that show figures, in the order of the page: the part of a figure's key before ":".
FIGURE_SECTIONS = (
    "scores",
    "trade",
    "class_histograms",
    "by_round",
    "rounds",
    "partition",
    "filter",
)
_SHOWN_OF_AUDITS = (
    "membership_auc",
    "membership_tpr",
    "clients_exposed",
    "copied_share",
    "reconstruction_psnr_db",
)
_CARD_SCORES = ("FID", "Coverage")
# Grids that have more pixels across are shown smaller than they are, and drop none if smoothed.
_SHOWN_WIDTH = 260


def render_report(
    table: pd.DataFrame,
    arms: Sequence[ArmResults],
    *,
    figures: Mapping[str, Figure],
    gallery: Gallery,
    runs: pd.DataFrame,
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the report as one self-contained HTML document.

    ``table``: of ``arms``, from ``compare_arms``. ``figures``: a key is one of
    :data:`FIGURE_SECTIONS`, or ``"<section>:<caption>"`` for several in a section; any other is
    shown under "More", with the key as its caption. ``runs``: from ``add_runs``. ``notes``: what a
    reader must know first. ``links``: label -> command or path, shown as text.
    """
    settings = {arm.arm: flatten_settings(arm.settings) for arm in arms}
    pooled = {arm.arm for arm in arms if arm.is_pooled}
    headline = headline_columns(table)
    audits = [arm.audit for arm in arms if arm.audit]
    return _load_template().render(
        title=_TITLE,
        summary=summarise(table, pooled),
        notes=notes,
        run=experiment_facts(arms),
        **_scores(table, headline, pooled),
        cards=_sample_cards(table, gallery, headline),
        shrunk=any(grid.width > _SHOWN_WIDTH for grid in gallery.drawn.values()),
        class_names=gallery.class_names[:MOST_CLASSES] if gallery.by_class else (),
        client_models=describe_client_models(arms, headline),
        figures=_figure_views(figures),
        growth=show_growth({arm.arm: arm.by_round for arm in arms}),
        earlier=show_earlier(runs, arms),
        downloads={arm.arm: _downloads(arm) for arm in arms},
        disclosures=_disclosures(table, arms),
        differing=differing_settings(settings),
        complete=settings,
        caveats=[*list_caveats(table), *privacy_caveats(audits)],
        skipped=list_skipped(arms),
        num_arms=len(arms),
        links=links,
    )


def _scores(table: pd.DataFrame, headline: Sequence[str], pooled: set[str]) -> dict[str, Any]:
    """Return the tables of scores and audits, their glossaries, and how arms are marked in them."""
    everything = [c for c in table.columns if c != "arm" and table[c].notna().any()]
    shown = table_view(table, headline, pooled)
    titles = ["arm", *map(latex_title, shown["columns"])]
    rows = [(arm, [cell[:2] for cell in cells]) for arm, cells in shown["rows"]]
    return {
        "marks": marked_arms(table),
        "doubtful": DOUBTFUL if doubtful_shares(table) else "",
        "csv": text_data_uri("text/csv", table.to_csv(index=False)),
        "styles": arm_styles(arm for arm in table["arm"] if arm != FLOOR_NAME),
        "floor_name": FLOOR_NAME,
        "pooled": [arm for arm in table["arm"] if arm in pooled],
        "headline": shown,
        "latex": text_data_uri("application/x-tex", latex_table(titles, rows)),
        "everything": table_view(table, everything, pooled),
        "glossary": _glossary(headline),
        "audited": privacy_rows(table),
        "audit_titles": privacy_titles(table),
        "audit_glossary": _glossary(_SHOWN_OF_AUDITS).get(PRIVACY, {}),
        "audit_command": AUDIT_COMMAND,
    }


def _downloads(arm: ArmResults) -> dict[str, str]:
    cards = {"model card": arm.model_card, "sample card": arm.sample_card}
    return {label: text_data_uri("text/markdown", text) for label, text in cards.items() if text}


def _load_template() -> Template:
    environment = Environment(
        loader=PackageLoader("phoenix_pipeline.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _glossary(columns: Iterable[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """Return group -> label -> (arrow, phrase), each metric family once."""
    glossary: dict[str, dict[str, tuple[str, str]]] = {}
    for metric in map(describe_metric, columns):
        if metric.phrase:
            label = f"{metric.label} {metric.space}" if metric.kind != "score" else metric.label
            glossary.setdefault(metric.group, {})[label.strip()] = (metric.arrow, metric.phrase)
    return glossary


def _sample_cards(
    table: pd.DataFrame, gallery: Gallery, headline: Sequence[str]
) -> list[dict[str, Any]]:
    """Return per grid its name, pictures and two scores: one of fidelity and one of coverage."""
    described = [describe_metric(name) for name in headline]
    first = [next((m for m in described if m.label == label), None) for label in _CARD_SCORES]
    written = {m: format_values(list(table[m.name]), m) for m in first if m is not None}
    rows = {str(arm): i for i, arm in enumerate(table["arm"])}
    return [
        {
            "arm": arm,
            "image": image_data_uri(grid),
            "by_class": image_data_uri(gallery.by_class[arm]) if arm in gallery.by_class else "",
            "scores": [
                f"{m.title} {texts[rows[arm]]}"
                for m, texts in written.items()
                if arm in rows and texts[rows[arm]]
            ],
        }
        for arm, grid in gallery.drawn.items()
    ]


def _figure_views(figures: Mapping[str, Figure]) -> dict[str, list[tuple[str, str]]]:
    """Return section -> (caption, data URI) of its figures; ``more`` holds all others."""
    views: dict[str, list[tuple[str, str]]] = {name: [] for name in (*FIGURE_SECTIONS, "more")}
    for key, figure in figures.items():
        section, _, caption = key.partition(":")
        known = section in FIGURE_SECTIONS
        target, shown = (section, caption.strip()) if known else ("more", key)
        views[target].append((shown, figure_data_uri(figure)))
    return views


def _disclosures(table: pd.DataFrame, arms: Sequence[ArmResults]) -> list[dict[str, Any]]:
    """Return per arm the sentences on what left its clients, and the traffic in bytes."""
    written = {
        name: format_values(list(table[name]), describe_metric(name))
        for name in ("bytes_up", "bytes_down", "bytes_per_round")
    }
    rows = {str(arm): i for i, arm in enumerate(table["arm"])}
    return [
        {
            "arm": arm.arm,
            "sentences": arm.description["disclosure"],
            "pooled": arm.is_pooled,
            **{name: texts[rows[arm.arm]] for name, texts in written.items()},
        }
        for arm in arms
    ]
