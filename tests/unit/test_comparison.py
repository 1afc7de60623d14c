"""Two database files page by page, when one of them is shorter, and but for what SQLite rewrites in a copy."""

from pathlib import Path

import pytest

from sidecar.restore.comparison import BLOCK, different_pages

SIZE = 4096


def database(*pages: int, size: int = SIZE, rewritten: int = 0) -> bytes:
    """A file with one page for each number, which is all that is in it."""
    content = bytearray(b"".join(page.to_bytes(4, "big") * (size // 4) for page in pages))
    content[16:18] = (1 if size == 65536 else size).to_bytes(2, "big")
    content[24:28] = rewritten.to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (database(1, 2, 3), database(1, 2, 3), set()),
        (database(1, 2, 3), database(1, 2, 3, rewritten=9), set()),
        (database(1, 2, 3), database(9, 2, 4), {1, 3}),
        (database(1, 2, 3), database(1), {2, 3}),
        (database(1), database(1, 2, 3), {2, 3}),
        (database(*range(600)), database(*range(500), 0, *range(501, 600)), {501}),
        (database(1, 2, size=65536), database(1, 3, size=65536), {2}),
        (database(1, 2), database(1, 2, size=512), None),
        (b"", b"", None),
        (b"no database", database(1), None),
    ],
)
def test_pages_that_differ(tmp_path: Path, one: bytes, other: bytes, expected: set[int] | None) -> None:
    paths = [tmp_path / name for name in ("one", "other")]
    for path, content in zip(paths, (one, other), strict=True):
        path.write_bytes(content)
    assert different_pages(*paths) == expected
    assert len(database(*range(600))) > 2 * BLOCK
