"""Score samples against real images."""

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from phoenix_pipeline.api.data import Images
from phoenix_pipeline.api.settings import Settings, shared_group
from phoenix_pipeline.arms.references import (
    load_yardstick,
    prepare_references,
    train_label_judge,
)
from phoenix_pipeline.config import EvaluationConfig, RunConfig
from phoenix_pipeline.metrics.scores import Scores, score_samples
from phoenix_pipeline.progress import progress_bar

_JUDGE, _REFERENCES = "label_judge", "references"


def score(
    samples: np.ndarray,
    images: Images,
    *,
    folder: Path | str | None = None,
    run: Settings | None = None,
    evaluation: Settings | None = None,
) -> Scores:
    """Return every metric of ``samples``, uint8 [N, C, H, W], as the stage ``evaluation`` does.

    Args:
        samples: of ``Model.sample``.
        images: the real images.
        folder: where the label judge and the statistics of the real images are kept for the next
            call with the same images; None: they are made for this call alone.
        run: seed and device.
        evaluation: what differs from the defaults, such as ``{"extractors": ["fid_pixels"]}``.

    Raises SettingsError: a setting is unknown or not allowed.
    Raises DataError: the samples do not fit the images.
    """
    config: EvaluationConfig = shared_group("evaluation", evaluation)
    run_config: RunConfig = shared_group("run", run)
    place = TemporaryDirectory(prefix="phoenix-") if folder is None else nullcontext(folder)
    with place as kept:
        splits, folders = (images.train, images.test), (Path(kept, _JUDGE), Path(kept, _REFERENCES))
        train_label_judge(*splits, config, run_config)(folders[0])
        prepare_references(*splits, folders[0], config, run_config)(folders[1])
        held = load_yardstick(*splits, *folders, config, run_config)
        with progress_bar("evaluating", len(samples) * len(held.extractors)) as advance:
            return score_samples(samples, held, seed=run_config.seed, progress=advance)
