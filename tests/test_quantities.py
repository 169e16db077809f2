"""Nouns follow their numbers."""

from phoenix_pipeline.quantities import counted


def test_nouns_follow_their_numbers() -> None:
    assert [counted(number, "client") for number in (0, 1, 1200)] == [
        "0 clients",
        "1 client",
        "1,200 clients",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
