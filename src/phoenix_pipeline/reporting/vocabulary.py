"""What each column of the comparison means: its label and which way is better.

Metric names are flat (``fid_pixels``, ``recall_classifier``, ``histogram_entropy``): the family is
recognised by its beginning, the feature space by its end. Unknown names are shown as they are.
"""

from dataclasses import replace

from phoenix_pipeline.reporting.metric import (
    COPIES,
    COVERAGE,
    FIDELITY,
    OTHER,
    Better,
    Metric,
)
from phoenix_pipeline.reporting.privacy_vocabulary import PRIVACY, PRIVACY_FAMILIES, attack_of
from phoenix_pipeline.reporting.run_vocabulary import RUN_COLUMNS

FEATURE_SPACES = {
    "inception_v3": "Inception-v3",
    "efficientnet_lite0": "EffNet",
    "classifier": "classifier",
    "pixels": "pixels",
}
FINAL_AVERAGE = "final_average."
GAP_CLOSED = "gap_closed_"
# Shares of the gap outside of this say more of a small gap, or of a blind judge, than of the arm.
CREDIBLE = (-1.0, 1.5)
_FAMILIES: tuple[tuple[str, str, Better | None, str, str], ...] = (
    (
        "fid_",
        "FID",
        "lower",
        FIDELITY,
        "Fréchet distance between the features of samples and of real images: falls as samples "
        "get sharper and as they get more varied; depends on the number of samples",
    ),
    (
        GAP_CLOSED,
        "Gap closed",
        "higher",
        FIDELITY,
        "share of FID's distance from fedavg to centralized that an arm closes: 0 is as good as "
        "fedavg, 1 as good as training in one place; chance where that gap is small",
    ),
    (
        "kid_",
        "KID",
        "lower",
        FIDELITY,
        "kernel distance between the same features, without FID's small-sample bias",
    ),
    (
        "inception_score",
        "IS",
        "higher",
        FIDELITY,
        "Inception Score by the label classifier: samples clear one by one and varied together",
    ),
    (
        "confident_share",
        "Confident",
        "higher",
        FIDELITY,
        "share of samples that the label classifier puts into a class with certainty",
    ),
    (
        "precision_",
        "Precision",
        "higher",
        FIDELITY,
        "share of samples that lie among real images; rises with blur, so never read it alone",
    ),
    (
        "density_",
        "Density",
        "higher",
        FIDELITY,
        "how densely real images surround the samples; flatters blur, as precision does",
    ),
    (
        "recall_",
        "Recall",
        "higher",
        COVERAGE,
        "share of real images that lie among the samples",
    ),
    (
        "coverage_",
        "Coverage",
        "higher",
        COVERAGE,
        "share of real images that have a sample in their neighbourhood",
    ),
    (
        "utility_real",
        "Utility, real",
        None,
        COVERAGE,
        "accuracy on real test images of a classifier trained on as many real training images: "
        "what `utility` is held against",
    ),
    (
        "utility",
        "Utility",
        "higher",
        COVERAGE,
        "accuracy on real test images of a classifier trained on the samples alone, labelled by "
        "the label classifier",
    ),
    (
        "class_entropy",
        "Entropy",
        "higher",
        COVERAGE,
        "evenness of the classes among the samples; 1 is uniform",
    ),
    (
        "class_kl",
        "KL",
        "lower",
        COVERAGE,
        "divergence of the samples' class shares from those of the training images; 0 is equal",
    ),
    (
        "classes_covered",
        "Classes",
        "higher",
        COVERAGE,
        "number of classes that hold at least 1 % of the samples",
    ),
    (
        "memorized_share",
        "Copies",
        "lower",
        COPIES,
        "share of samples that lie closer to a training image than 99 % of held-out images do; "
        "0.01 is what unseen images get",
    ),
)


def describe_metric(name: str) -> Metric:
    """Return what is known about a column of the comparison; unknown names get no direction.

    A name that begins with :data:`FINAL_AVERAGE` is the same metric of an arm's averaged model.
    """
    if name.startswith(FINAL_AVERAGE):
        own = describe_metric(name.removeprefix(FINAL_AVERAGE))
        return replace(own, name=name, label=f"{own.label} of the average")
    for metric in RUN_COLUMNS:
        if metric.name == name:
            return metric
    space = next((f for f in FEATURE_SPACES if name.endswith(f"_{f}")), "")
    for beginning, label, better, group, phrase in _FAMILIES:
        if name.startswith(beginning):
            credible = CREDIBLE if beginning == GAP_CLOSED else None
            where = FEATURE_SPACES.get(space, "")
            return Metric(name, label, where, better, group, phrase, credible=credible)
    for beginning, label, better, phrase in PRIVACY_FAMILIES:
        if name.startswith(beginning):
            return Metric(name, label, attack_of(name), better, PRIVACY, phrase)
    return Metric(name, name.replace("_", " "), "", None, OTHER, "")
