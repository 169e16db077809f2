import pytest

from phoenix_pipeline.federated.client_answers import plain_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ü and 数", "plain words, ü and 数"),
        ("two\nlines\r\n\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("a\x00b\x7fc\x9bd\u202ee\u200bf\ud800g", "abcdefg"),
        ("", ""),
    ],
)
def test_a_reason_is_one_line_without_what_moves_a_terminal(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_a_reason_of_megabytes_is_cut() -> None:
    assert plain_text("x" * 20_000_000) == "x" * 297 + "..."
