"""Tables as LaTeX: what is printed, and what must not be read as a command."""

import pandas as pd

from phoenix_pipeline.reporting.formatting import latex_table, latex_text
from phoenix_pipeline.reporting.sweep_tables import latex_summary, summarize


def test_a_table_by_hand() -> None:
    rows = [("data_sharing", [("0.5", True), ("", False)]), ("5 % off", [("1.25", False)] * 2)]
    assert latex_table(["arm", "FID \N{DOWNWARDS ARROW}", "R&D"], rows).splitlines() == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"arm & FID $\downarrow$ & R\&D \\",
        r"\midrule",
        r"data\_sharing & \textbf{0.5} & -- \\",
        r"5 \% off & 1.25 & 1.25 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_name_is_no_command() -> None:
    evil = r"\input{x}~^"
    assert latex_text(evil) == r"\textbackslash input\{x\}\textasciitilde \textasciicircum "


def test_mean_and_spread_over_seeds() -> None:
    cells = pd.DataFrame(
        {"k": [1, 1, 2], "arm": "fedavg", "run.seed": [0, 1, 0], "fid_pixels": [1.25, 3.25, 5.5]}
    )
    text = latex_summary(summarize(cells, ["k"], ["fid_pixels"]))
    assert r"arm & k & runs & FID (pixels) $\downarrow$ \\" in text
    assert r"fedavg & 1 & 2 & 2.25 $\pm$ 1.41 \\" in text
    assert r"fedavg & 2 & 1 & 5.50 \\" in text
