"""The generated parts of the pages are those of the code."""

from pathlib import Path

import pytest

from tests.docs import PAGES, generated_parts, rewritten
from tests.docs.blocks import BLOCKS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_generated_parts_are_up_to_date(page: Path) -> None:
    assert rewritten(page.read_text()) == page.read_text(), "run `make generate`"


def test_everything_that_is_generated_stands_on_one_page() -> None:
    assert sorted(generated_parts()) == sorted(BLOCKS)
