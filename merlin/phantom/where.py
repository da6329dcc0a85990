"""Where in a phantom a finding lies: the patient painted with it and without it."""

from dataclasses import dataclass

import numpy as np

from merlin.phantom import describe, render, synthesis

CHANGED_HU = 25


@dataclass(frozen=True)
class Drawn:
    """A finding of one study of a cohort.

    Attributes
    ----------
    seed : int
        Of the cohort.
    study_id, patient_id, site, finding : str
    """

    seed: int
    study_id: str
    patient_id: str
    site: str
    finding: str

    def _changed(self, grid: render.Grid) -> np.ndarray:
        """Where the scan differs by more than 25 HU without the finding."""
        site = synthesis.SITES[self.site]
        patient = synthesis.draw_patient(self.seed, self.patient_id, site)
        visit = int(self.study_id.rpartition("-")[2]) - 1
        study = synthesis.draw_study(self.seed, self.study_id, patient, site, visit=visit)
        with_it, without = (
            synthesis.acquire(self.seed, study, matrix=0, grid=grid, without=left_out)[0]
            for left_out in ((), (self.finding,))
        )
        return np.abs(with_it.astype(int) - without) > CHANGED_HU

    def middle(self, axis: int) -> np.ndarray | None:
        """Its middle (RAS, mm), on the slice across `axis` that it changes most; None if it changes none."""
        grid = describe.viewing_grid(pixel_mm=5.0, slice_mm=8.0)
        changed = self._changed(grid)
        if not changed.any():
            return None
        at = int(changed.sum(tuple(i for i in range(3) if i != axis)).argmax())
        middle = np.array([np.median(found) for found in np.nonzero(changed)])
        middle[axis] = at
        return np.asarray(grid.low + middle * grid.spacing_mm)

    def on(
        self, shape: tuple[int, int, int], middle_mm: tuple[float, float, float], pixel_mm: float
    ) -> np.ndarray:
        """(R, A, S) bool: what it changes on a slice."""
        return self._changed(render.Grid(shape, (pixel_mm,) * 3, middle_mm))
