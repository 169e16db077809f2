"""Score samples against real images."""

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

    Raises:
        SettingsError: a setting is unknown or not allowed.
        DataError: the samples do not fit the images.
    """
    config: EvaluationConfig = shared_group("evaluation", evaluation)
    run_config: RunConfig = shared_group("run", run)
    if folder is not None:
        return _score(samples, images, Path(folder), config, run_config)
    with TemporaryDirectory(prefix="phoenix-") as temporary:
        return _score(samples, images, Path(temporary), config, run_config)


def _score(
    samples: np.ndarray, images: Images, folder: Path, config: EvaluationConfig, run: RunConfig
) -> Scores:
    train, test = images.train, images.test
    train_label_judge(train, test, config, run)(folder / _JUDGE)
    prepare_references(train, test, folder / _JUDGE, config, run)(folder / _REFERENCES)
    held = load_yardstick(train, test, folder / _JUDGE, folder / _REFERENCES, config, run)
    with progress_bar("evaluating", len(samples) * len(held.extractors)) as advance:
        return score_samples(
            samples,
            held.references,
            held.judge,
            held.extractors,
            config,
            seed=run.seed,
            skipped=held.skipped,
            progress=advance,
        )
