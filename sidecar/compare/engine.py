"""Compares two states at a cost that follows what changed.

Chunks with equal digests are never read. In the others, the pages that differ lead to the tables that they belong to, and only
rows in such pages, or in pages that one state alone has, are compared. Where more than a quarter of all pages differ, as
after VACUUM, the tables are compared as a whole.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.compare.fileformat import Malformed
from sidecar.compare.image import Image
from sidecar.compare.matching import Match, Matcher
from sidecar.compare.opening import Named, Opened
from sidecar.compare.options import Options, match_of, require_known
from sidecar.compare.overflow import InPlace
from sidecar.compare.owners import Owners
from sidecar.compare.pages import PageSet, State, differing_chunks, differing_pages
from sidecar.compare.pairing import Pairing, SchemaChange, pair_tables
from sidecar.compare.result import Compared, ResultWriter
from sidecar.compare.rows import Change, Side, cells_of, differing_rows
from sidecar.compare.schema import SEQUENCE
from sidecar.compare.sparing import SparingState
from sidecar.compare.tables import Pair, Table, row_maker
from sidecar.compare.trees import Rows, pages_to_compare
from sidecar.compare.values import Row
from sidecar.compare.whole import Merge, NotMerged, may_merge, write_file
from sidecar.database import Driver
from sidecar.errors import DamagedDatabase, DamagedRestorePoint

WHOLE_SHARE = 4  # whole tables are compared when more than this part of the pages differ
MOST_PAGES = 400_000  # and from so many on, because their numbers are kept in memory
TICK_EVERY = 200  # rows or pages
_SKIP = "`sidecar diff --skip-damaged` compares the tables that can be read"
Tick = Callable[[int, int], None]


def compare(
    driver: Driver,
    before: Named,
    after: Named,
    writer: ResultWriter,
    options: Options,
    directory: Path,
    tick: Tick,
) -> None:
    """Compare two states, and write what differs. `tick` may raise to end the work.

    What SQL needs as files is in `directory`, and gone at the end.

    Raises `DamagedDatabase`, `UsageError` for a table or column that neither has, and what reading the states raises.
    """
    if options.skip_damaged:
        before, after = (replace(each, state=SparingState(each.state)) for each in (before, after))
    one, other = Opened.of(driver, before), Opened.of(driver, after)
    require_known(options, one.schema, other.schema)
    try:
        with ExitStack() as stack:
            _Comparison(driver, one, other, writer, options, _Files(directory, stack), tick).run()
    except Malformed as error:
        raise DamagedDatabase(f"{error.of or f'{before.name} or {after.name}'} is damaged: {error}", _SKIP) from error
    except DamagedRestorePoint as error:
        raise DamagedRestorePoint(error.message, _SKIP) from error


@dataclass(frozen=True, slots=True)
class _Files:
    """Where whole states are written for SQL, and what removes them."""

    directory: Path
    stack: ExitStack

    def written(self, name: str, state: State, tick: Callable[[], None]) -> Path:
        """A whole state as a file."""
        path = self.directory / name
        self.stack.callback(path.unlink, missing_ok=True)
        write_file(state, path, tick)
        return path


class _Comparison:
    def __init__(
        self,
        driver: Driver,
        before: Opened,
        after: Opened,
        writer: ResultWriter,
        options: Options,
        files: _Files,
        tick: Tick,
    ) -> None:
        self._driver, self._writer, self._options = driver, writer, options
        self._before, self._after = before, after
        self._images = before.image, after.image
        self._progress = tick
        self._work: dict[str, Rows] = {}
        self._ticks = 0
        self._files = files
        self._merge: Merge | None = None
        self._merges = True

    def run(self) -> None:
        pairing = pair_tables(self._before.schema, self._after.schema)
        changed = self._changed_pages()
        self._write_schema(pairing)
        if changed is None:
            self._work = {pair.after.name: Rows(whole=True) for pair in pairing.pairs}
        elif changed:
            self._find_pages(pairing, changed)
        for pair in pairing.pairs:
            if self._options.wants(pair.before, pair.after):
                with self._sparing(pair.after.name):
                    self._compare_pair(pair, changed)
        if sequence := self._after.schema.tables.get(SEQUENCE):
            with self._sparing(SEQUENCE):
                self._writer.sequence((change.after or ()) for change in self._rows_of(sequence, Side.AFTER))
        for table in pairing.removed:
            self._one_sided(table, Side.BEFORE)
        for table in pairing.added:
            self._one_sided(table, Side.AFTER)

    @contextmanager
    def _sparing(self, name: str) -> Iterator[None]:
        """List a table as not compared, if it is damaged and others are to be compared all the same."""
        try:
            yield
        except (DamagedRestorePoint, Malformed) as error:
            if not self._options.skip_damaged:
                raise
            reason = (
                error.message
                if isinstance(error, DamagedRestorePoint)
                else f"{error.of or 'a state'} is damaged: {error}"
            )
            self._writer.not_compared(name, reason)

    def _tick(self) -> None:
        self._ticks += 1
        if not self._ticks % TICK_EVERY:
            self._progress(0, 0)

    def _changed_pages(self) -> PageSet | None:
        """The pages that differ; None if there are too many, or the files cannot be compared by pages."""
        one, other = self._images
        states = self._before.named.state, self._after.named.state
        chunks = len(differing_chunks(*states))
        self._writer.meta(differing_chunks=chunks, chunks=max(state.chunks for state in states))
        like = (one.page_size, one.usable, one.header.encoding) == (
            other.page_size,
            other.usable,
            other.header.encoding,
        )
        if not (like and one.pages and other.pages and self._options.pages):
            return None
        most = min(max(one.pages, other.pages) // WHOLE_SHARE + 20, MOST_PAGES)
        return differing_pages(*states, one.page_size, most, self._progress)

    def _write_schema(self, pairing: Pairing) -> None:
        writer, wanted = self._writer, self._options.tables
        sides = self._before, self._after
        for side, opened in enumerate(sides):
            writer.schema(opened.entries, side)
        writer.schema_changes(each for each in pairing.changes if not wanted or each.table in wanted)
        writer.schema_changes(() if wanted else _changed_numbers(*self._images))
        writer.meta(
            encoding_before=sides[0].image.header.encoding,
            encoding_after=sides[1].image.header.encoding,
            user_version=sides[1].image.header.user_version,
            application_id=sides[1].image.header.application_id,
            chosen=int(bool(wanted)),
            unknown=", ".join(sorted({name for each in sides for name in each.schema.unknown})),
        )
        for name, reason in {**sides[0].schema.problems, **sides[1].schema.problems}.items():
            if not wanted or name in wanted:
                writer.not_compared(name, reason)

    def _find_pages(self, pairing: Pairing, changed: PageSet) -> None:
        """The pages of each pair whose rows may differ."""
        (one, other), tick = self._images, self._tick
        sought = [pair for pair in pairing.pairs if not pair.is_walked]
        found = Owners(one, [pair.before for pair in sought]).find(changed, tick)
        come = Owners(other, [pair.after for pair in sought]).find(changed, tick)
        for pair in sought:
            alive = found[pair.before.name], come[pair.after.name]
            self._work[pair.after.name] = pages_to_compare(one, other, pair, alive, changed, tick)
        for pair in pairing.pairs:
            if pair.is_walked:
                self._work[pair.after.name] = self._walked(pair, changed)
        self._find_in_place(pairing, changed)
        for pair in pairing.pairs:
            if pair.needs_all:
                self._work[pair.after.name] = Rows(whole=True)

    def _walked(self, pair: Pair, changed: PageSet) -> Rows:
        one, other = self._images
        before, after = set(one.walk(pair.before.root)), set(other.walk(pair.after.root))
        if pair.before.without_rowid != pair.after.without_rowid:
            return Rows(whole=True)
        common = {page for page in before & after if page in changed}
        left, right = (before - after) | common, (after - before) | common
        return Rows(set(filter(one.bears_rows, left)), set(filter(other.bears_rows, right)))

    def _find_in_place(self, pairing: Pairing, changed: PageSet) -> None:
        """Add the pages with rows whose overflow pages were written in place."""
        one, other = self._images
        in_place = InPlace(other, changed, self._work, self._tick)
        lost = in_place.lost(pairing.added)

        def take(name: str, page: int) -> None:
            rows = self._work[name]
            rows.after.add(page)
            if page <= one.pages and page not in changed:
                rows.before.add(page)

        if lost:
            in_place.assign(lost, [pair.after for pair in pairing.pairs], take)

    def _compare_pair(self, pair: Pair, changed: PageSet | None) -> None:
        rows = self._work.get(pair.after.name)
        match = match_of(pair, self._options)
        how = "whole" if rows and rows.whole else "pages"
        compared = Compared(pair.after.name, "both", how, pair.before, pair.after, match.key, dict(pair.old_names))
        if changed is None and self._may_merge(match):
            try:
                self._writer.table(compared, self._merged().changes(match))
            except (
                NotMerged
            ):  # from here on rows are read here, which needs nothing of the app, and says what is damaged
                self._merges = False
            else:
                return
        if not rows:
            self._writer.table(compared, ())
            return
        found = differing_rows(*self._images, pair, rows, changed, self._tick)
        matcher = Matcher(match, (self._images[0].text, self._images[1].text))
        # Its connection has to be closed in this thread, also after an error.
        with closing(matcher.changes(self._driver, found, self._tick)) as changes:
            self._writer.table(compared, changes)

    def _may_merge(self, match: Match) -> bool:
        encodings = {image.header.encoding for image in self._images}
        size = max(self._before.named.state.size, self._after.named.state.size)
        fits = self._merges and encodings == {"utf-8"} and size >= self._options.merged
        return fits and may_merge(match, self._before.schema, self._after.schema)

    def _merged(self) -> Merge:
        """Both states as files that SQLite has open."""
        if self._merge is None:
            states = self._before.named.state, self._after.named.state
            one, other = (
                self._files.written(f"whole-{side}.sqlite3", state, self._tick) for side, state in enumerate(states)
            )
            self._merge = self._files.stack.enter_context(closing(Merge(self._driver, one, other, self._look)))
        return self._merge

    def _look(self) -> None:
        self._progress(0, 0)

    def _one_sided(self, table: Table, side: Side) -> None:
        """Write all rows of a table that one state alone has."""
        if not self._options.wants(table):
            return
        removed = side is Side.BEFORE
        before, after = (table, None) if removed else (None, table)
        state = "removed" if removed else "added"
        compared = Compared(table.name, state, "whole", before, after, table.key or None, {})
        with self._sparing(table.name):
            self._writer.table(compared, self._rows_of(table, side))

    def _rows_of(self, table: Table, side: Side) -> Iterator[Change]:
        image, make = self._images[side], row_maker(table)
        for cell in cells_of(image, table.root, Rows(whole=True), side):
            self._tick()
            row = make(cell.key, image.record(cell))
            key = _key_of(table, row)
            if side is Side.BEFORE:
                yield Change("removed", key, row, None, (), cell.key, None)
            else:
                yield Change("added", key, None, row, (), None, cell.key)


def _changed_numbers(before: Image, after: Image) -> Iterator[SchemaChange]:
    """The numbers in the header that the app has set."""
    for name in ("user_version", "application_id"):
        was, now = getattr(before.header, name), getattr(after.header, name)
        if was != now:
            yield SchemaChange("changed", "number", name, name, f"{was} -> {now}")


def _key_of(table: Table, row: Row) -> Row | None:
    key = tuple(row[at] for at in table.key)
    return key if key and all(value is not None for value in key) else None
