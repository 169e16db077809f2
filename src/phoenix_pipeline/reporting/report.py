"""The HTML report: one file that shows a whole run and opens from disk, without a server.

Everything in it is inlined; opening it asks no other machine for anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure

from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.metrics.metric import PRIVACY
from phoenix_pipeline.metrics.privacy.arm_audit import ArmAudit
from phoenix_pipeline.reporting.caveats import list_caveats, skipped_metrics
from phoenix_pipeline.reporting.client_models import describe_client_models
from phoenix_pipeline.reporting.comparison import (
    FLOOR_NAME,
    headline_columns,
    marked_arms,
    table_view,
)
from phoenix_pipeline.reporting.derived_columns import doubtful_shares
from phoenix_pipeline.reporting.earlier_runs import EarlierRuns
from phoenix_pipeline.reporting.figure_style import (
    arm_styles,
    figure_data_uri,
    image_data_uri,
    text_data_uri,
)
from phoenix_pipeline.reporting.formatting import DOUBTFUL, format_values
from phoenix_pipeline.reporting.gallery import MOST_CLASSES, Gallery, Growth
from phoenix_pipeline.reporting.latex import latex_table, latex_title
from phoenix_pipeline.reporting.privacy import (
    privacy_caveats,
    privacy_rows,
    privacy_titles,
    skipped_attacks,
)
from phoenix_pipeline.reporting.provenance import differing_settings, flatten_settings
from phoenix_pipeline.reporting.summary import summarise
from phoenix_pipeline.reporting.vocabulary import describe_metric

AUDIT = "kedro run --pipelines privacy_audit,comparison"
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
    metrics: Mapping[str, ArmMetrics],
    *,
    run: Mapping[str, object],
    figures: Mapping[str, Figure],
    gallery: Gallery,
    settings: Mapping[str, Mapping[str, Any]],
    disclosures: Mapping[str, Sequence[str]],
    privacy: Mapping[str, ArmAudit] | None = None,
    growth: Growth | None = None,
    earlier: EarlierRuns | None = None,
    cards: Mapping[str, Mapping[str, str]] | None = None,
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the report as one self-contained HTML document.

    ``table``: from :func:`~phoenix_pipeline.reporting.comparison.compare_arms`. ``metrics``: by
    arm. ``run``: facts for the head of the page, label -> value (date, seed, data set, ...).
    ``figures``: key -> figure; a key is one of :data:`FIGURE_SECTIONS`, or
    ``"<section>:<caption>"`` for several in a section; any other key is shown under "More" with the
    key as its caption.
    ``settings``: arm -> the nested parameters that it was made with. ``disclosures``: arm ->
    sentences on what left its clients, as they were written with its model. ``privacy``: of the
    arms that were audited and whose scores are in ``table``. ``growth``: samples by round.
    ``earlier``: other models of the past. ``cards``: arm -> label -> Markdown of a model's or its
    samples' card, to save. ``notes``: what a reader must know first. ``links``: label -> command or
    path, shown as text.
    """
    flat = {arm: flatten_settings(nested) for arm, nested in settings.items()}
    pooled = {arm for arm, own in flat.items() if own.get("federation.pooled") == "true"}
    headline = headline_columns(table)
    return _load_template().render(
        title=_TITLE,
        summary=summarise(table, pooled),
        notes=notes,
        run=run,
        **_scores(table, headline, pooled),
        cards=_sample_cards(table, gallery, headline),
        shrunk=any(grid.width > _SHOWN_WIDTH for grid in gallery.drawn.values()),
        class_names=gallery.class_names[:MOST_CLASSES] if gallery.by_class else (),
        client_models=describe_client_models(metrics, headline),
        figures=_figure_views(figures),
        growth=growth,
        earlier=earlier,
        downloads=_downloads(cards or {}),
        disclosures=_disclosures(table, disclosures, pooled),
        differing=differing_settings(settings),
        complete=flat,
        caveats=[*list_caveats(table), *privacy_caveats(privacy or {})],
        skipped={**skipped_metrics(metrics), **skipped_attacks(privacy or {})},
        num_arms=len(metrics),
        links=links or {},
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
        "audit_command": AUDIT,
    }


def _downloads(cards: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {
        arm: {label: text_data_uri("text/markdown", text) for label, text in own.items()}
        for arm, own in cards.items()
    }


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


def _disclosures(
    table: pd.DataFrame, sentences: Mapping[str, Sequence[str]], pooled: set[str]
) -> list[dict[str, Any]]:
    """Return per arm the sentences on what left its clients, and the traffic in bytes."""
    written = {
        name: format_values(list(table[name]), describe_metric(name))
        for name in ("bytes_up", "bytes_down", "bytes_per_round")
    }
    rows = {str(arm): i for i, arm in enumerate(table["arm"])}
    return [
        {
            "arm": arm,
            "sentences": said,
            "pooled": arm in pooled,
            **{name: texts[rows[arm]] if arm in rows else "" for name, texts in written.items()},
        }
        for arm, said in sentences.items()
    ]
