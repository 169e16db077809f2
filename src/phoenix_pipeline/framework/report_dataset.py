"""The HTML report as a dataset with a preview."""

import html
import json
import re

from kedro_datasets._typing import JSONPreview

from phoenix_pipeline.framework.datasets import TextDataset

_SENTENCES = re.compile(r'<p class="result">(.*?)</p>', re.DOTALL)


class ReportDataset(TextDataset):
    """The report; kedro-viz cannot show a page, so it shows the sentences at the page's top."""

    def preview(self) -> JSONPreview:
        """Return what came out, and where the page lies."""
        found = _SENTENCES.search(self.load())
        told = html.unescape(found[1]) if found else ""
        return JSONPreview(json.dumps({"what came out": told, "page": str(self._filepath)}))
