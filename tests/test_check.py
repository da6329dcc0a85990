"""`merlin check`: right on this machine, and it notices what is not."""

import json

from merlin.commands import check


def test_every_stage_gives_the_committed_values_here(capsys):
    assert check.main() == 0
    said = capsys.readouterr().out
    assert "11 of 11 as expected" in said
    assert "Real CT was not checked" in said


def test_a_wrong_stage_is_named_with_how_far_off_it_is():
    known = json.loads(check.REFERENCE.read_text())
    found = {"phantom": dict(known["phantom"]), "CT of someone": {}}
    image = list(found["phantom"]["embedding: image"])
    image[2] += 0.01
    found["phantom"]["embedding: image"] = image
    found["phantom"]["text: findings in the report"] = "ascites=1"
    found["phantom"]["bits: volume"] = "other"
    scores = known["phantom"]["score: findings"]
    found["phantom"]["score: findings"] = [*scores, 0.0]  # as after a finding was added
    rows = {(scan, what): said for scan, what, said in check.compare(found, known)}
    assert rows["phantom", "image"].startswith("off by 0.01")
    assert rows["phantom", "findings in the report"].startswith("ascites=1, expected")
    assert rows["phantom", "volume"] == check.OTHER_BITS
    assert "no reference" in rows["CT of someone", "all"]
    assert rows["phantom", "findings"] == f"{len(scores) + 1} values, expected {len(scores)}"
    assert sum(v == "ok" for v in rows.values()) == len(known["phantom"]) - 4


def test_a_scan_that_is_not_known_is_called_so_and_not_found_right(capsys, monkeypatch):
    known = json.loads(check.REFERENCE.read_text())
    monkeypatch.setattr(check, "measure", lambda ct: {"phantom": known["phantom"], "CT 0": {}})
    assert check.main(["own.nii.gz"]) == 1
    said = capsys.readouterr().out
    assert "unknown  CT 0: all" in said
    assert "TotalSegmentator" in said
    assert "11 of 11 as expected" in said
