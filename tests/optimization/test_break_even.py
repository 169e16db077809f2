"""``compile: auto`` goes by the kind of device and the number of calls, and says so."""

import logging

import pytest

from phoenix_pipeline.optimization.compilation import SAMPLING, TRAINING, BreakEven


@pytest.mark.parametrize(
    ("rule", "device", "calls", "expected"),
    [
        (TRAINING, "cpu", 14_999, False),
        (TRAINING, "cpu", 15_000, True),
        (TRAINING, "cuda", 4_999, False),
        (TRAINING, "cuda", 5_000, True),
        (TRAINING, "mps", 1_000_000, False),
        (SAMPLING, "cpu", 1_000_000, False),
        (SAMPLING, "cuda", 999, False),
        (SAMPLING, "cuda", 1_000, True),
    ],
)
def test_from_where_it_pays(rule: BreakEven, device: str, calls: int, expected: bool) -> None:
    assert rule.pays(calls, device) is expected
    assert rule.pays(calls, device, why_not="cannot be compiled") is False


def test_the_choice_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        TRAINING.pays(6_000, "cuda")
        TRAINING.pays(2_000, "cuda", "a DCGAN is too small for it")
        SAMPLING.pays(50, "mps")
        SAMPLING.pays(50, "cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "training.compile: auto chooses true for 6,000 steps on cuda: it pays from 5,000 on",
        "training.compile: auto chooses false for 2,000 steps on cuda: a DCGAN is too small for it",
        "sampling.compile: auto chooses false for 50 passes on mps: "
        "compiling was not measured there",
        "sampling.compile: auto chooses false for 50 passes on cpu: compiling does not pay there",
    ]
