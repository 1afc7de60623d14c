"""README's tables are those of the code."""

from tests.readme import README, generated


def test_the_generated_parts_of_readme_are_up_to_date() -> None:
    """`make docs` writes them."""
    text = README.read_text()
    assert generated(text) == text
