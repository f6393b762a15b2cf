"""Training curves: kept as a table beside the model, drawn as one figure."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from drivecast.worldmodel.storage.files import atomic_file


class Curves:
    """Values by step, appended to a CSV of `step,name,value` as they come, so that a resumed run goes on drawing."""

    def __init__(self, path: Path, resumed_at: int = 0) -> None:
        self.path = path
        self.values: dict[str, list[tuple[int, float]]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if resumed_at and path.is_file():
            with path.open(newline="") as file:
                for step, name, value in (row for row in csv.reader(file) if len(row) == 3):  # the last may be cut
                    if int(step) <= resumed_at:
                        self.values.setdefault(name, []).append((int(step), float(value)))
        with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows((step, name, value) for name, pairs in self.values.items() for step, value in pairs)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            for name, value in values.items():
                self.values.setdefault(name, []).append((step, float(value)))
                writer.writerow((step, name, value))

    def last(self, group: str) -> dict[str, float]:
        """The last value of each curve named `group/...`, without the group."""
        return {
            name.removeprefix(f"{group}/"): pairs[-1][1]
            for name, pairs in self.values.items()
            if name.startswith(f"{group}/")
        }

    def draw(self, path: Path, panels: Sequence[tuple[str, Sequence[str]]]) -> Path:
        """Draw one panel for each (title, patterns of names); `*/kl` matches `val/kl`, not `train/kl`."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2 * len(panels), 3.4), constrained_layout=True)
        FigureCanvasAgg(figure)
        for axis, (title, patterns) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name, pairs in self.values.items():
                if not any(_matches(name, pattern) for pattern in patterns):
                    continue
                steps, values = zip(*pairs, strict=True)
                faint = name.startswith("train/")
                axis.plot(steps, values, label=name, alpha=0.5 if faint else 1.0, linewidth=1 if faint else 1.8)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("step")
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend(fontsize=7)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=100, format="png")
        return path


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("*/") and name.startswith("train/"):
        return False
    return fnmatch.fnmatchcase(name, pattern)
