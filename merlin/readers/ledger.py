"""What is said of a data set while it is read: counts that go into its audit, and problems that end it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from merlin.data.cells import TableError
from merlin.data.manifest import ManifestError


@dataclass
class Ledger:
    """Rows of an audit, `(what, n, detail, study ids)`, and problems, in the order in which they were found."""

    rows: list[tuple[str, int, str, tuple[str, ...]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def count(self, what: str, n: int, detail: str = "") -> None:
        """A row without studies."""
        self.rows.append((what, n, detail, ()))

    def name(self, what: str, ids: Collection[str], detail: str = "", n: int | None = None) -> None:
        """Count studies, or `n` of what they share, and keep which they are."""
        self.rows.append((what, len(ids) if n is None else n, detail, tuple(ids)))

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """A table's error inside becomes a problem; reading goes on behind."""
        try:
            yield
        except TableError as error:
            self.problems.append(str(error))

    def refuse(self, folder: Path) -> None:
        """Raise a `ManifestError` with all problems, if there are any."""
        if self.problems:
            count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            raise ManifestError(f"{folder}: {count}\n  " + "\n  ".join(self.problems))

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The audit, `what, n, detail`, and the studies that it names, `study_id, what`."""
        table = pd.DataFrame([row[:3] for row in self.rows], columns=["what", "n", "detail"])
        named = [(study_id, what) for what, _, _, ids in self.rows for study_id in ids]
        return table, pd.DataFrame(named, columns=["study_id", "what"]).drop_duplicates()
