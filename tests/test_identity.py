"""No identity leaves: what may be shared names no place of this machine and nothing of a header."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydicom.dataset import Dataset

sys.path.insert(0, str(Path(__file__).parent / "ingest"))
sys.path.insert(0, str(Path(__file__).parent / "model"))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import planted_marks
from test_text import make_longformer
from test_volume import body, refusal, write_series

from merlin import cli, run
from merlin.data.dicom import shows_more
from merlin.data.dicom_header import quietly
from merlin.data.manifest import linked, load_manifest
from merlin.data.volume import load_volume
from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.readers import patterns
from merlin.readers.headers import said_in
from merlin.training import checkpoint


@pytest.mark.slow
def test_no_mark_planted_in_headers_paths_cells_and_the_environment_is_found_in_what_is_written(
    tmp_path, capsys
):
    """The whole search, with the full tier and the site, is `make marks`."""
    n_found = planted_marks.run_all(tmp_path, 2, short=True)
    said = capsys.readouterr().out
    assert n_found == 0, said
    assert "marks planted" in said


def test_the_search_sees_marks_however_they_are_packed(tmp_path):
    marks = planted_marks.Marks()
    words = [marks.new("hd", "x") for _ in range(9)]
    pd.DataFrame({"a": [words[0]]}).to_parquet(tmp_path / "a.parquet")
    np.savez_compressed(tmp_path / "b.npz", np.array([words[1]]))  # UTF-32
    pd.DataFrame({"a": [words[2]]}).to_excel(tmp_path / "c.xlsx")
    pd.DataFrame({"a": [words[3].upper()]}).to_csv(tmp_path / "d.csv.gz")
    (tmp_path / words[4]).mkdir()
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure()
    figure.savefig(tmp_path / "e.png", metadata={"Author": words[5]})
    figure.savefig(tmp_path / "f.pdf", metadata={"Keywords": words[6]})
    plt.close(figure)
    (tmp_path / "g.bin").write_bytes(words[7].encode("utf-16-le"))
    born, uid = marks.new("da", "x"), marks.new("ui", "x")
    (tmp_path / "h.txt").write_text(f"{born[:4]}-{born[4:6]}-{born[6:]} {uid}")
    found = {mark for *_, mark in planted_marks.search(tmp_path, marks)[0]}
    assert found == {w.lower() for w in (*words[:8], born, uid)}


# Pixels that may show more than a body


def test_burned_in_images_are_no_slices_and_captures_are_left_out(tmp_path):
    burned = write_series(tmp_path / "a", BurnedInAnnotation="YES")
    assert "12 images with burned-in text" in refusal(burned)
    film = write_series(tmp_path / "b", ConversionType="DF")
    assert "12 secondary captures" in refusal(film)
    series = dict(SeriesInstanceUID="1.2.3.4", BurnedInAnnotation="YES")
    both = write_series(tmp_path / "c")
    write_series(both / "more", body()[:, :, :3], **series)
    notes = load_volume(both).notes
    assert any("3 images with burned-in text" in note for note in notes)


def dataset(**values):
    ds = Dataset()
    with quietly():
        for keyword, value in values.items():
            if keyword.startswith("x"):  # an overlay's element
                ds.add_new(int(keyword[1:], 16), "US", value)
            else:
                setattr(ds, keyword, value)
    return ds


def of_frames(sequence, **values):
    return {sequence: [dataset(CTImageFrameTypeSequence=[dataset(**values)])]}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        *((dict(BurnedInAnnotation=b), "burned-in") for b in ("Y", "TRUE", "1", ["NO", "YES"], "yes ")),
        (dict(DerivationImageSequence=[dataset(BurnedInAnnotation="YES")]), "burned-in"),
        (of_frames("SharedFunctionalGroupsSequence", BurnedInAnnotation="YES"), "burned-in"),
        *((dict(ImageType=["ORIGINAL", "PRIMARY", kind]), "captures")
          for kind in ("SCREEN SAVE", "SCREENSHOT", "SCREEN_CAPTURE")),
        *((dict(ImageType=kinds), "workstation")
          for kinds in (["SECONDARY", "DERIVED"], ["DERIVED", "", "SECONDARY"], "DERIVED SECONDARY",
                        ["ORIGINAL", "SECONDARY", "AXIAL"], ["Derived", " secondary "])),
        (of_frames("SharedFunctionalGroupsSequence", FrameType=["DERIVED", "SECONDARY"]), "workstation"),
        (of_frames("PerFrameFunctionalGroupsSequence", FrameType=["DERIVED", "SECONDARY"]), "workstation"),
        (dict(SecondaryCaptureDeviceManufacturer="Acme"), "captures"),
        (dict(DateOfSecondaryCapture="20200101"), "captures"),
        (dict(x60000100=16, x60000102=0), "overlay"),
        (dict(x601E0100=1, x601E0102=12), "overlay"),
        *((good, "") for good in (
            {}, dict(BurnedInAnnotation="NO"), dict(BurnedInAnnotation=""),
            dict(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], SecondaryCaptureDeviceID=""),
            dict(ImageType=["DERIVED", "PRIMARY", "AXIAL"]), dict(ImageType=["DERIVED", "PRIMARY", "MPR"]),
            of_frames("PerFrameFunctionalGroupsSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
            dict(x60000100=1, x60000102=0, x60000010=32),
        )),
    ],
)  # fmt: skip
def test_whatever_a_header_says_of_its_picture_is_heard(header, why):
    with quietly():
        said = shows_more(dataset(**header))
    assert why in said
    assert bool(why) == bool(said)


def test_persons_in_the_groups_of_frames_are_looked_for():
    header = dataset(
        SharedFunctionalGroupsSequence=[dataset(RequestingPhysician="Framefellow^Ed")],
        PerFrameFunctionalGroupsSequence=[
            dataset(), dataset(FrameContentSequence=[dataset(PatientName="Lastframe^Lea")])
        ],
        RetrieveURL="http://x/pat/Wobblekins^Anna",
    )  # fmt: skip
    header.private_block(0x15, "ACME", create=True).add_new(1, "DS", "88776655")
    assert {v for _, v in said_in(header)} == {
        "Framefellow^Ed", "Lastframe^Lea", "Wobblekins^Anna", "88776655"
    }  # fmt: skip


def test_the_scanners_images_come_before_a_workstations(tmp_path):
    made = dict(ImageType=["DERIVED", "SECONDARY", "AXIAL"], SeriesInstanceUID="1.2.3.4")
    many = np.repeat(body(), 2, axis=2)
    alone = write_series(tmp_path / "a", many, **made)
    assert any("made on a workstation" in note for note in load_volume(alone).notes)
    both = write_series(tmp_path / "b")
    write_series(both / "more", many, **made)
    volume = load_volume(both)
    assert volume.hu.shape == body().shape
    assert any("24 images made on a workstation" in note for note in volume.notes)
    own = write_series(tmp_path / "c", ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    assert not any("workstation" in note for note in load_volume(own).notes)


# Places


def code_cell(source, *outputs, tags=()):
    return dict(
        cell_type="code", metadata={"tags": list(tags)}, source=source, outputs=list(outputs)
    )


def test_a_kept_notebook_holds_names_and_its_pictures_are_untouched(tmp_path):
    home, picture = "/mnt/Jane Doe/my data", "iVBORw0K/mnt/jane/x+/ab/cd="
    stream = {"output_type": "stream", "name": "stderr", "text": [
        f"{home}/merlin_data/x.nii: odd\n", f"{run.ROOT}/merlin/x.py:3: UserWarning\n"]}  # fmt: skip
    shown = {"output_type": "display_data", "metadata": {}, "data": {
        "image/png": picture, "text/html": f"<td>{home}/a.csv</td>", "text/plain": [f"f('{home}')"]}}  # fmt: skip
    book = {"cells": [
        code_cell(f'folder = "{home}"\n', tags=["injected-parameters"]),
        code_cell('x = "/usr/share/ours"', stream, shown),
    ], "metadata": {"papermill": {"parameters": {"folder": home}, "input_path": "/q/r/n.ipynb"}}}  # fmt: skip
    partial, target = tmp_path / "p.ipynb", tmp_path / "n.ipynb"
    partial.write_text(json.dumps(book))
    (tmp_path / run.OWN).write_text(json.dumps({"files": {"data": home}}))
    run.keep(partial, target)
    made, text = json.loads(target.read_text()), target.read_text()
    assert not partial.exists()
    assert "Jane" not in text
    assert str(run.ROOT) not in text
    assert made["cells"][1]["outputs"][1]["data"]["image/png"] == picture
    assert made["cells"][1]["source"] == 'x = "/usr/share/ours"'
    assert made["cells"][0]["source"] == 'folder = "my data"\n'
    assert made["metadata"]["papermill"] == {
        "parameters": {"folder": "my data"},
        "input_path": "n.ipynb",
    }
    assert made["cells"][1]["outputs"][0]["text"][0] == "my data/merlin_data/x.nii: odd\n"


def test_weights_name_their_text_encoder_and_find_it_beside_them(tmp_path):
    folder = make_longformer(tmp_path / "Jane Doe" / "encoder")
    text, image = TextConfig(folder=str(folder)), ImageConfig(depth=14, width=4, n_phecodes=2)
    model = TwoTowers(TowersConfig(image, text, (224, 224, 160)))
    path = tmp_path / "out" / "weights.safetensors"
    facts = {"grid": {}, "parameters": {"text_folder": str(folder)}}
    checkpoint.save_weights(path, model, facts)
    assert b"Jane" not in path.read_bytes()
    again, said = checkpoint.load_weights(path)
    assert said["parameters"] == {"text_folder": folder.name}
    assert torch.equal(again.logit_scale, model.logit_scale)
    copied = tmp_path / "elsewhere" / "w.safetensors"
    assert cli.main(["weights", str(path), "--out", str(copied)]) == 0
    checkpoint.load_weights(copied)
    alone = tmp_path / "alone" / "w.safetensors"
    alone.parent.mkdir()
    alone.write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=f"alone/{folder.name}"):
        checkpoint.load_weights(alone)


def test_a_manifest_names_volumes_through_a_link_and_is_read_again(tmp_path):
    data = tmp_path / "Jane Doe" / "release"
    (data / "v").mkdir(parents=True)
    outside = tmp_path / "other" / "b.nii"
    outside.parent.mkdir()
    for path in (data / "v" / "a.nii", outside):
        path.write_bytes(b"")
    (data / "v" / "b.nii").symlink_to(outside)
    volumes = [str(data / "v" / "a.nii"), str(data / "v" / "b.nii"), str(outside)]
    table = pd.DataFrame(
        {"study_id": list("abc"), "patient_id": list("abc"), "split": "test", "volume": volumes}
    )
    out = tmp_path / "out"
    for _ in range(2):  # once more over what is there
        made = linked(table, data, out)
        assert list(made["volume"]) == ["data/v/a.nii", "data/v/b.nii", "../other/b.nii"]
    assert list(linked(made, data, out)["volume"]) == list(made["volume"])
    made.to_csv(out / "manifest.csv", index=False)
    read = load_manifest(out / "manifest.csv")["volume"]
    assert list(read) == [str(Path(v).resolve()) for v in volumes]
    inside = linked(table[:1], data, data / "made")
    assert list(inside["volume"]) == ["../v/a.nii"]
    assert not (data / "made" / "data").exists()


# Time


def test_a_word_of_many_finds_is_drawn_to_its_ends_once(monkeypatch):
    calls, real = [], patterns._whole_word
    monkeypatch.setattr(patterns, "_whole_word", lambda *a: calls.append(a) or real(*a))
    text = "Doe" * 1000
    spans = [patterns.Span(k, k + 3, "") for k in range(0, 3000, 3)]
    assert patterns.redact(
        f"see {text} here", [patterns.Span(s + 4, e + 4, k) for s, e, k in spans]
    ) == ("see <DELETED> here")
    assert len(calls) == 1
