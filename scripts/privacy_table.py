"""Write fidelity against privacy of an audited run as a Markdown table.

Usage: ``python scripts/privacy_table.py [data/08_reporting/comparison.csv]``, after
``kedro run --pipelines privacy_audit,comparison``.
"""

import sys
from pathlib import Path

import pandas as pd

from phoenix_pipeline.reporting.privacy import format_privacy

DEFAULT_TABLE = Path(__file__).parents[1] / "data" / "08_reporting" / "comparison.csv"


def main() -> int:
    """Write the table, or say what is missing."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_TABLE
    if not source.is_file():
        sys.stderr.write(f"{source} does not exist; run `kedro run` first\n")
        return 2
    text = format_privacy(pd.read_csv(source))
    if not text:
        sys.stderr.write(
            f"{source} holds no audit; run `kedro run --pipelines privacy_audit,comparison`\n"
        )
        return 2
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
