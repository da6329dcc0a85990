"""Tables about a cohort, against counts made by hand."""

import numpy as np
import pandas as pd

from merlin.phantom import describe


def manifest():
    return pd.DataFrame(
        {
            "study_id": ["a1", "a2", "b1", "c1", "x1"],
            "patient_id": ["a", "a", "b", "c", "x"],
            "site": ["internal"] * 4 + ["site_b"],
            "split": ["train", "train", "val", "test", "test"],
            "sex": ["M", "M", "F", "F", "M"],
        }
        | {f"label_{n}": [1.0, 0.0, np.nan, np.nan, 1.0] for n in describe.NAMES}
    )


def test_flow_counts_patients_and_studies():
    rows = describe.flow(manifest()).set_index("step")
    assert rows.loc["all sites"].tolist() == [4, 5]
    assert rows.loc["internal"].tolist() == [3, 4]
    assert rows.loc["internal, train"].tolist() == [1, 2]
    assert rows.loc["internal, val"].tolist() == [1, 1]
    assert rows.loc["external, site_b"].tolist() == [1, 1]


def test_prevalence_counts_what_is_there_mentioned_or_not_and_prostates_in_men_only():
    truth = pd.DataFrame(
        {
            "study_id": ["a1", "b1", "x1", "a1"],
            "finding": ["ascites", "ascites", "ascites", "prostatomegaly"],
        }
    )
    table = describe.prevalence(manifest(), truth).set_index(["site", "finding"])
    assert table.loc[("internal", "ascites")].tolist() == [0.5, 4, 2, 2]
    assert table.loc[("site_b", "ascites")].tolist() == [1.0, 1, 1, 1]
    assert table.loc[("internal", "prostatomegaly"), ["prevalence", "n_studies"]].tolist() == [
        0.5,
        2,
    ]
    assert table.loc[("internal", "fracture"), "prevalence"] == 0


def test_organ_hu_leaves_out_the_rim_and_tiny_organs():
    label = np.zeros((20, 20, 20), np.uint8)
    label[4:14, 4:14, 4:14] = 1
    label[17, 17, 10:14] = 2
    hu = np.full(label.shape, -1000, np.int16)
    hu[4:14, 4:14, 4:14] = -500
    hu[5:13, 5:13, 5:13] = 60
    table = describe.organ_hu(hu, label, {1: "liver", 2: "speck"}, source="made")
    assert table.to_dict("records") == [
        dict(source="made", organ="liver", p05=60, median=60, p95=60, n_voxels=512)
    ]
