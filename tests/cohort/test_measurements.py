"""Organs measured: known boxes in any orientation."""

import numpy as np
import pytest

from merlin.data.measurements import measure

BOX = {"organ": 1, "gone": 2}


@pytest.mark.parametrize(("axes", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1))])
def test_a_box_is_measured_along_the_bodys_axes_however_it_is_stored(axes, signs):
    """A box of 4 × 6 × 2 voxels of 2 × 1 × 5 mm, half at 10 and half at 30 HU."""
    hu, label = np.full((12, 12, 12), -1000, np.int16), np.zeros((12, 12, 12), np.uint8)
    label[3:7, 2:8, 5:7] = 1
    hu[3:5, 2:8, 5:7], hu[5:7, 2:8, 5:7] = 10, 30
    affine = np.diag([2.0, 1.0, 5.0, 1.0])
    hu, label = (a.transpose(axes)[tuple(slice(None, None, s) for s in signs)] for a in (hu, label))
    turned = np.zeros((4, 4))
    for stored, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        turned[axis, stored] = sign * affine[axis, axis]
    turned[3, 3] = 1
    found = measure(hu, label, turned, BOX)
    assert found["organ volume_ml"] == pytest.approx(48 * 10 / 1000)
    assert (found["organ mean_hu"], found["organ sd_hu"]) == (20, 10)
    extent = [found[f"organ {m}"] for m in ("right_mm", "front_mm", "up_mm")]
    assert extent == [8.0, 6.0, 10.0]
    assert found["gone volume_ml"] == 0
    assert np.isnan(found["gone mean_hu"])


def test_a_label_map_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="must be of one shape"):
        measure(np.zeros((2, 2, 2)), np.zeros((2, 2, 3), np.uint8), np.eye(4))
