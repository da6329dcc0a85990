"""What the paper's protocol asks of training and encoding, where ours may be another."""

import numpy as np
import pandas as pd
import pytest
import tiny_run
import torch
from torch.nn import functional as F

from merlin.data.phecodes import TABLES, read_code_map
from merlin.data.preprocess import Grid
from merlin.training import encode_arm, texts
from merlin.training.data import studies_from_manifest
from merlin.training.encode import encode_texts
from merlin.vocabulary import SECTIONS


def test_a_whole_report_is_one_text_to_a_tower_that_reads_tokens():
    """Retrieval asks with the whole findings text: no sum over its sentences."""
    towers = tiny_run.model().eval()
    report = "Liver: a cyst is seen. Spleen: normal."
    found, _ = encode_texts(towers, [report], show=False)
    with torch.inference_mode():
        whole = towers.embed_tokens(*towers.encode_text.tokenize([report])[:2])
        parts = towers.embed_tokens(
            *towers.encode_text.tokenize(["Liver: a cyst is seen.", "Spleen: normal."])[:2]
        )
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-6)
    assert not np.allclose(found[0], F.normalize(parts.sum(0), dim=0).numpy(), atol=1e-3)


def test_equal_texts_as_each_others_positives_are_clips_loss_all_the_same():
    """Equal texts have one embedding: to share a target among them moves neither loss nor gradient."""
    towers = tiny_run.model().eval()
    said = np.array(["normal", "normal", "cyst", "mass", "normal"], object)
    image = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(7)))
    image.requires_grad_()
    loss, _ = texts.report_losses(towers, image, [said], texts.TextCache(towers.encode_text))
    text = texts.embed_texts(towers, said.tolist())
    logits, own = towers.logit_scale.exp() * image @ text.T, torch.arange(5)
    clip = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    moved = [image, *(p for p in towers.encode_text.parameters() if p.requires_grad)]
    here, there = (torch.autograd.grad(x, moved, allow_unused=True) for x in (loss, clip))
    torch.testing.assert_close(loss, clip)
    for one, other in zip(here, there, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_temperature_stays_below_the_limit_that_is_set(tmp_path):
    weights, _ = tiny_run.train(tmp_path / "c.pt", n_steps=1, max_logit_scale=1.0)
    assert weights["logit_scale"].item() == 1.0


@pytest.mark.parametrize("headings", [False, True])
def test_sections_are_read_with_their_heading_where_that_is_asked_for(headings):
    table = pd.DataFrame(
        dict(study_id=["a"], patient_id=["p"], volume=["a.nii.gz"],
             findings=["KIDNEYS: Normal.\nSPLEEN: 14 cm."]),
    )  # fmt: skip
    codes = pd.DataFrame(columns=["study_id", "vocabulary", "code"])
    code_map = read_code_map(TABLES / "phantom_icd.csv")
    grid = Grid((9.0, 9.0, 12.0), (40, 32, 40))
    studies = studies_from_manifest(
        table, codes, code_map, ["250"], grid, "", section_headings=headings
    )
    said = dict(zip(SECTIONS, studies.sections[0], strict=True))
    kidneys = "kidneys and ureters: Normal." if headings else "Normal."
    assert said["kidneys and ureters"] == kidneys
    assert said["spleen"] == ("spleen: 14 cm." if headings else "14 cm.")
    assert said["pancreas"] == ""
    assert studies.findings[0] == "KIDNEYS: Normal.\nSPLEEN: 14 cm."


def test_best_weights_are_encoded_with_where_training_kept_them(tmp_path, capsys):
    last, best = tmp_path / "weights.safetensors", tmp_path / "weights_best.safetensors"
    last.touch()
    assert encode_arm.chosen_weights(tmp_path, "best") == last
    assert "No weights_best.safetensors was kept" in capsys.readouterr().out
    best.touch()
    assert encode_arm.chosen_weights(tmp_path, "best") == best
    assert encode_arm.chosen_weights(tmp_path, "last") == last
    with pytest.raises(ValueError, match=r"epoch: 'first'\. Expected last or best"):
        encode_arm.chosen_weights(tmp_path, "first")
