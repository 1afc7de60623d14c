"""What was measured, and the medians of it."""

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.measure import Values
from tests.benchmarks.tools import versions

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `size` is the database's in bytes; seconds, bytes, dollars and counts in `values`."""

    size: int
    scenario: str
    tool: str
    run: int
    values: Values


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of several runs and their extremes."""

    median: float
    low: float
    high: float
    runs: int


class Results:
    """All samples of this invocation, in the order in which they were taken."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Keep a sample."""
        self.samples.append(sample)

    def figure(self, size: int, scenario: str, tool: str, metric: str) -> Figure | None:
        """A metric over all runs; None when it was not measured."""
        values = [
            sample.values[metric]
            for sample in self.samples
            if (sample.size, sample.scenario, sample.tool) == (size, scenario, tool) and metric in sample.values
        ]
        return Figure(statistics.median(values), min(values), max(values), len(values)) if values else None

    def median(self, size: int, scenario: str, tool: str, metric: str) -> float | None:
        """The median alone."""
        figure = self.figure(size, scenario, tool, metric)
        return figure.median if figure else None

    def sizes(self, scenario: str | None = None) -> list[int]:
        """The sizes that were measured, smallest first."""
        return sorted({sample.size for sample in self.samples if scenario in (None, sample.scenario)})

    def tools(self, size: int, scenario: str) -> list[str]:
        """Who was measured, always in the same order."""
        found = {each.tool for each in self.samples if (each.size, each.scenario) == (size, scenario)}
        return sorted(found, key=_rank)

    def as_dict(self, machine: dict[str, object], targets: Iterable[dict[str, object]]) -> dict[str, object]:
        """All of it for JSON."""
        return {
            "machine": machine,
            "versions": versions(),
            "medians": [self._summary(*group) for group in self._groups()],
            "targets": list(targets),
            "samples": [asdict(sample) for sample in self.samples],
        }

    def _groups(self) -> list[tuple[int, str, str]]:
        return list(dict.fromkeys((sample.size, sample.scenario, sample.tool) for sample in self.samples))

    def _summary(self, size: int, scenario: str, tool: str) -> dict[str, object]:
        mine = [each for each in self.samples if (each.size, each.scenario, each.tool) == (size, scenario, tool)]
        names = dict.fromkeys(name for sample in mine for name in sample.values)
        figures = {name: self.figure(size, scenario, tool, name) for name in names}
        shown = {name: asdict(figure) for name, figure in figures.items() if figure}
        return {"size": size, "scenario": scenario, "tool": tool, "values": shown}


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write what `as_dict` made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def machine(directory: Path) -> dict[str, object]:
    """What the numbers depend on; `directory` is where the databases lie."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "file_system": file_system(directory),
    }


def file_system(directory: Path) -> str:
    """The type of the file system a directory lies on, as /proc/mounts names it."""
    found = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


def show_size(size: float) -> str:
    """A database's size, as people say it."""
    return f"{size / (MIB << 10):.4g} GiB" if size >= MIB << 10 else f"{size / MIB:.4g} MiB"


def _rank(tool: str) -> tuple[int, str]:
    order = ("nobody", "sidecar", "litestream", "rclone + zstd", "the store")
    return (order.index(tool) if tool in order else len(order), tool)
