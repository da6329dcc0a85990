"""The command line on small scans with small models."""

import gzip
import io
import os
import re
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from merlin import cli
from merlin.embeddings import load_embeddings
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.phantom import synthesis
from merlin.phantom.build import save_nifti
from merlin.training import diseases
from merlin.vocabulary import DISEASES


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of a tiny model, saved as a run would."""
    from merlin.model.text import TextConfig
    from merlin.model.two_towers import TowersConfig, TwoTowers
    from merlin.training.checkpoint import save_weights

    torch.manual_seed(3)
    image = ImageConfig(
        depth=14,
        width=4,
        block="basic",
        stem="patch",
        pool="grid",
        grid_cells=4,
        in_channels=1,
        n_phecodes=2,
    )
    text = TextConfig(kind="small", max_length=64, hidden_size=32, n_layers=1)
    model = TwoTowers(TowersConfig(image, text, (32, 32, 32)))
    grid = {"spacing_mm": [12.0, 12.0, 14.0], "shape": [32, 32, 32], "hu_window": [-1000.0, 1000.0]}
    facts = {
        "grid": grid,
        "tier": "phantom",
        "profile": "test",
        "seed": 1,
        "model": "main",
        "phecodes": ["8", "8.5"],
    }
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(path, model, facts)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A phantom scan and a file that is none."""
    folder = tmp_path_factory.mktemp("scans")
    site = synthesis.SITES["internal"]
    study = synthesis.draw_study(4, "P1-1", synthesis.draw_patient(4, "P1", site), site)
    hu, _, grid = synthesis.acquire(4, study, matrix=40)
    save_nifti(folder / "good.nii.gz", hu, grid.affine, "LPS")
    (folder / "bad.nii.gz").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    return folder


def test_one_bad_scan_is_reported_and_does_not_lose_the_others(weights, scans, tmp_path, capsys):
    paths = [str(scans / "bad.nii.gz"), str(scans / "good.nii.gz")]
    code = cli.main(["findings", *paths, "--weights", str(weights), "--out", str(tmp_path / "out")])
    assert code == 1
    table = pd.read_csv(tmp_path / "out" / "findings.csv")
    assert len(table) == 30
    assert np.isfinite(table["score"]).all()
    assert (tmp_path / "out" / "scan_001.png").stat().st_size > 10_000
    page = (tmp_path / "out" / "findings.html").read_text()
    assert "Not for clinical use" in page
    assert page.count("<tr><td") == 30
    assert "of the body lies inside" in page
    assert not re.findall(r"(?:src|href)=.?https?:", page)
    first = table.sort_values("score", ascending=False)["finding"].iloc[0].replace("_", " ")
    assert page.index(first) == min(page.index(f.replace("_", " ")) for f in table["finding"])
    said = capsys.readouterr()
    assert "trained on synthetic phantoms" in said.out
    assert "1 of 2 scans could not be read" in said.err
    assert "bad.nii.gz" in said.err


@pytest.fixture
def many(scans, tmp_path):
    """Scans as they lie about: equal, linked, odd names, DICOM beside NIfTI, damaged ones."""
    folder = tmp_path / "many"
    (folder / "sub").mkdir(parents=True)
    good = (scans / "good.nii.gz").read_bytes()
    raw = bytearray(gzip.decompress(good))
    raw[80:84] = np.float32(2.5).tobytes()  # pixdim of one axis alone: a contradiction
    (folder / "a.nii.gz").write_bytes(good)
    (folder / "b_equal.nii.gz").write_bytes(good)
    (folder / "c_spacing.nii").write_bytes(raw)
    (folder / "d_cut.nii.gz").write_bytes(good[: len(good) // 2])
    Path(os.fsdecode(bytes(folder / "sub") + b"/caf\xe9\x1b.nii.gz")).write_bytes(good)
    (folder / "._a.nii.gz").write_bytes(b"double")
    (folder / "loop").symlink_to(folder)
    (folder / "IM1").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 200)
    (folder / "series").mkdir()
    (folder / "series/IM1").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 200)
    return folder


def test_of_a_folder_all_that_can_be_read_is_done_and_the_rest_said(
    many, weights, tmp_path, capsys
):
    out = tmp_path / "scans.npz"
    assert cli.main(["embed", str(many), "--weights", str(weights), "--out", str(out)]) == 1
    found = load_embeddings(out)
    one = found.patient_id[0]
    assert found.study_id.tolist() == [one, f"{one}-2", f"{one}-3"]  # what evaluate asks for
    assert set(found.patient_id) == {one}
    said = capsys.readouterr()
    assert r"caf\xe9\x1b.nii.gz" in said.out
    assert "1 DICOM files beside NIfTI in many/ were not read" in said.out
    assert "1 macOS doubles left out." in said.out
    assert "1 links to what stands elsewhere in the folder left out." in said.out
    assert "2 scans equal another one" in said.out
    assert "3 of 6 scans could not be read" in said.err
    for name in ("c_spacing.nii", "d_cut.nii.gz", "series"):
        assert f"{name}: found " in said.err
    assert not list(tmp_path.glob(".unfinished*"))


def test_an_interrupted_call_goes_on_and_holds_one_scan_at_a_time(
    many, weights, tmp_path, monkeypatch
):
    from merlin.commands import scans as own_scans

    read, alive = [], []

    def load(source, *args, **options):
        assert not [r for r in alive if r() is not None]
        if len(read) == 1:
            read.append("stopped")
            raise KeyboardInterrupt
        read.append(source.path.name)
        seen = load_input(source, *args, **options)
        alive.append(weakref.ref(seen))
        return seen

    load_input = own_scans.load_input
    monkeypatch.setattr(own_scans, "load_input", load)
    ask = ["findings", str(many / "a.nii.gz"), str(many / "b_equal.nii.gz"),
           "--weights", str(weights), "--out", str(tmp_path / "out")]  # fmt: skip
    assert cli.main(ask) == 130
    assert not (tmp_path / "out" / "findings.csv").exists()
    assert cli.main(ask) == 0
    assert read == ["a.nii.gz", "stopped", "b_equal.nii.gz"]
    resumed = (tmp_path / "out" / "findings.csv").read_bytes()
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"findings.csv", "findings.html", "scan_001.png", "scan_002.png"}
    assert cli.main([*ask[:-1], str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole" / "findings.csv").read_bytes() == resumed


def test_a_kept_file_that_a_power_cut_emptied_is_made_again(many, weights, tmp_path, monkeypatch):
    from merlin.commands import scans as own_scans

    ask = ["findings", str(many / "a.nii.gz"), str(many / "b_equal.nii.gz"),
           "--weights", str(weights), "--out", str(tmp_path / "out")]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(
            own_scans, "_write_findings", lambda *_: (_ for _ in ()).throw(OSError("cut"))
        )
        assert cli.main(ask) == 2
    kept = sorted((tmp_path / "out" / ".unfinished").glob("*.npz"))
    kept[0].write_bytes(b"")
    kept[1].write_bytes(kept[1].read_bytes()[:100])
    assert cli.main(ask) == 0


def test_results_that_another_call_wrote_meanwhile_are_not_replaced(
    many, weights, tmp_path, capsys
):
    from merlin.commands import scans as own_scans

    out = tmp_path / "out"
    out.mkdir()
    (out / "findings.csv").write_text("another call's")
    with pytest.raises(FileExistsError, match="another call meanwhile"):
        own_scans.run("findings", [str(many / "a.nii.gz")], out, weights, assume_hu=False,
                      overwrite=False)  # fmt: skip
    assert (out / "findings.csv").read_text() == "another call's"


def test_overwrite_leaves_nothing_of_the_former_call_and_all_else(many, weights, tmp_path):
    out = tmp_path / "out"
    two = [str(many / "a.nii.gz"), str(many / "b_equal.nii.gz")]
    ask = ["--weights", str(weights), "--out", str(out)]
    assert cli.main(["findings", *two, *ask]) == 0
    (out / "scan_009.png").write_bytes(b"the user's own")
    assert cli.main(["findings", two[0], *ask]) == 2
    assert cli.main(["findings", two[0], *ask, "--overwrite"]) == 0
    assert {p.name for p in out.iterdir()} == {
        "findings.csv", "findings.html", "scan_001.png", "scan_009.png"
    }  # fmt: skip
    assert pd.read_csv(out / "findings.csv")["scan"].unique().tolist() == [1]


def test_a_scan_that_cannot_be_encoded_is_refused_alone(
    many, weights, tmp_path, monkeypatch, capsys
):
    from merlin.model.two_towers import TwoTowers

    calls, embed = [], TwoTowers.embed_volumes

    def fails_once(self, batch):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("shape of PLANTED^NAME")
        return embed(self, batch)

    monkeypatch.setattr(TwoTowers, "embed_volumes", fails_once)
    two = [str(many / "a.nii.gz"), str(many / "b_equal.nii.gz")]
    out = tmp_path / "o.npz"
    assert cli.main(["embed", *two, "--weights", str(weights), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "a.nii.gz: found an error while it was encoded (RuntimeError)" in said
    assert "PLANTED" not in said
    assert len(load_embeddings(out).study_id) == 1


def test_a_terminal_that_cannot_write_a_sign_loses_no_result(many, weights, tmp_path, monkeypatch):
    path = many / "Bäuche.nii.gz"
    path.write_bytes((many / "a.nii.gz").read_bytes())
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    ask = ["embed", str(path), "--weights", str(weights), "--out", str(tmp_path / "o.npz")]
    assert cli.main(ask) == 0
    terminal.flush()
    assert rb"B\xe4uche" in terminal.buffer.getvalue()


def test_results_are_not_overwritten_in_silence(weights, scans, tmp_path, capsys):
    out = tmp_path / "scans.npz"
    command = ["embed", str(scans / "good.nii.gz"), "--weights", str(weights), "--out", str(out)]
    assert cli.main(command) == 0
    assert load_embeddings(out).image.shape == (1, 512)
    before = out.read_bytes()
    assert cli.main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert cli.main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("paths", "message"), [(["nowhere.nii.gz"], "nowhere.nii.gz"), (["."], "neither a NIfTI file")]
)
def test_nothing_to_do_exits_with_2(weights, tmp_path, monkeypatch, capsys, paths, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["findings", *paths, "--weights", str(weights), "--out", "out"]) == 2
    assert message in capsys.readouterr().err


def test_a_look_alike_of_the_release_is_written_from_a_run_and_read_back(
    tmp_path, monkeypatch, capsys
):
    from merlin.phantom import build
    from merlin.readers import release
    from merlin.run import places

    folder = tmp_path / "runs" / "smoke" / "cohort"
    jobs = build.plan("internal", 8, seed=5, matrix=48, folder=folder)
    table, _, _ = build.build_cohort(jobs, n_workers=0)
    table.to_csv(folder / "manifest.csv", index=False)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    ask = ["phantom", "--layout", "merlin", "--out", str(tmp_path / "look alike"), "--studies", "6"]
    assert cli.main(ask) == 0
    assert "Wrote 6 synthetic studies" in capsys.readouterr().out
    back = release.read_release(tmp_path / "look alike")
    assert back.manifest["study_id"].tolist() == table["study_id"].tolist()[:6]
    assert cli.main(ask) == 2  # never over what is there
    assert cli.main([*ask[:4], str(tmp_path / "x"), "--profile", "default"]) == 2
    assert "Run notebooks/01_cohort.ipynb first" in capsys.readouterr().err


def test_a_five_year_model_is_judged_on_a_cohorts_labels(tmp_path, capsys):
    names = list(DISEASES)
    folder, rng = tmp_path / "cohort", np.random.default_rng(2)
    folder.mkdir()
    for i in range(14):
        hu = np.full((16, 16, 16), -1000, np.int16)
        hu[3:13, 3:13] = rng.normal(40, 60, (10, 10, 16))
        save_nifti(folder / f"{i}.nii.gz", hu, np.diag([20.0, 20, 20, 1]), "RAS")
    (folder / "0.nii.gz").write_bytes(b"not a volume")
    codes = rng.integers(0, 2, (14, 6))
    codes[1] = 3  # of no use to anybody
    codes[2:5, 0] = [2, 3, 2]  # out for one disease alone
    table = pd.DataFrame(codes, columns=[f"five_year_{d}" for d in names])
    table.insert(0, "study_id", [f"s{i}" for i in range(14)])
    table = table.assign(patient_id=table["study_id"].str.replace("s9", "s8"), split="test")
    table = table.assign(volume=[f"{i}.nii.gz" for i in range(14)], site="internal")
    elsewhere = table.tail(1).assign(study_id="x", site="site_b")
    pd.concat([table, elsewhere]).to_csv(folder / "manifest.csv", index=False)
    torch.manual_seed(0)
    image = ImageConfig(depth=14, width=4, stem="patch", n_stages=2, in_channels=1, n_phecodes=2)
    model = diseases.DiseaseModel(ImageEncoder(image), 6).eval()
    torch.nn.init.normal_(model.head.weight)
    grid = dict(spacing_mm=[20.0] * 3, shape=[16, 16, 16], hu_window=[-1000.0, 1000.0])
    facts = {"grid": grid, "tier": "phantom", "profile": "none"}
    diseases.save_model(tmp_path / "five.safetensors", model, names, facts)
    ask = ["five-year", str(folder / "manifest.csv"), "--min-events", "1", "--workers", "1",
           "--weights", str(tmp_path / "five.safetensors"), "--resamples", "20"]  # fmt: skip
    out = tmp_path / "out"
    assert cli.main([*ask, "--out", str(out)]) == 1  # one volume is unreadable
    said = capsys.readouterr().out
    assert f"({len(table) - 2} studies, 1 could not be read)" in said
    assert pd.read_csv(out / "unreadable.csv")["study_id"].tolist() == ["s0"]
    found = pd.read_csv(out / "predictions.csv").set_index("study_id")
    assert not set(table["study_id"][:2]) & set(found.index)
    assert (out / "five_year.png").stat().st_size > 10_000
    results = pd.read_csv(out / "results.csv").set_index(["label", "metric"])
    codes = table.set_index("study_id").loc[found.index]
    judged = 0
    for name in names:
        y = codes[f"five_year_{name}"].astype(int)
        counts, row = y.isin([0, 1]), results.loc[(name, "auroc")]
        if y[counts].nunique() == 2:
            judged += 1
            assert row["value"] == pytest.approx(roc_auc_score(y[counts], found[name][counts]))
            assert row["n_studies"] == counts.sum()
        else:
            assert row["status"] != "ok"
    assert judged >= 5
    assert results.loc[("mean", "auroc"), "n_patients"] == 11
    assert cli.main([*ask, "--out", str(out)]) == 2  # nothing is replaced in silence
    assert cli.main([*ask, "--out", str(tmp_path / "none"), "--split", "val"]) == 2
    assert "no study of split val at site internal has a label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "a.npz", "--outt", "x"], "--outt. Did you mean --out?"),
        (["evaluate", "a.npz"], "--out requires an argument"),
        (["evaluate", "--out", "x"], "PATHS requires an argument"),
        (["evaluate", "a.npz", "--out", "x", "--pools", "ten"], 'unable to convert "ten" into int'),
        (["evaluate", "a.npz", "--out", "x", "--uncertain", "perhaps"], "Choose from"),
        (["findings", "a.nii", "--out", "x", "--no-overwrite"], "--no-overwrite"),
        (["evaluat", "a.npz"], 'Did you mean "evaluate"?'),
        (["embed", "a.nii", "--\x1b[2J"], r"\x1b[2J"),
    ],
)
def test_a_call_that_is_not_understood_ends_with_2_and_names_the_mend(capsys, words, said):
    assert cli.main(words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert "--help lists what it takes" in told.err
    assert all(line.isprintable() for line in told.err.split("\n"))
    assert not told.out


def test_options_are_understood_as_they_were_ever_written():
    def understood(*words):
        _, bound, _ = cli.app.parse_args(list(words), exit_on_error=False, print_error=False)
        return bound.arguments

    one = understood("evaluate", "a", "b", "--out", "c", "--pools", "32", "64", "--names", "x", "y",
                     "--threshold", "-0.5", "--id", "VolumeName", "--mask-nan")  # fmt: skip
    assert (one["paths"], one["out"], one["pools"]) == ([Path("a"), Path("b")], Path("c"), (32, 64))
    assert (one["names"], one["threshold"], one["id_column"]) == (["x", "y"], "-0.5", "VolumeName")
    two = understood("release", "f", "--column", "a", "b", "--out=c", "--column", "c", "d")
    assert two["column"] == [("a", "b"), ("c", "d")]
    three = understood("embed", "--out", "first", "a", "--assume-hu", "--out", "last.npz")
    assert (three["paths"], three["out"], three["assume_hu"]) == (["a"], Path("last.npz"), True)
    assert understood("check", "--ct", "a", "b", "--write") == {"ct": ["a", "b"], "write": True}


@pytest.mark.parametrize("command", ["", *sorted(n for n in cli.app if not n.startswith("-"))])
def test_each_commands_help_tells_what_its_options_are(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"Usage: merlin {command}".strip() in said
    assert "--write" not in said  # of the reference, for who changes the phantom
    if command:
        assert ("[required]" in said) == (command != "check")


def test_phantoms_of_ones_own_are_the_same_twice_and_replace_nothing(tmp_path, capsys):
    ask = ["phantom", "--patients", "3", "--matrix", "40", "--seed", "5", "--out"]
    assert cli.main([*ask, str(tmp_path / "a")]) == 0
    assert "Not patients" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "a" / "manifest.csv")
    assert table["patient_id"].nunique() == 3
    assert {"truth.csv", "codes.csv"} <= {p.name for p in (tmp_path / "a").iterdir()}
    volume = (
        Path(table["volume"][0]).relative_to(tmp_path / "a")
        if Path(table["volume"][0]).is_absolute()
        else Path(table["volume"][0])
    )
    before = (tmp_path / "a" / volume).read_bytes()
    assert cli.main([*ask, str(tmp_path / "a")]) == 0  # resumed: nothing anew
    assert cli.main([*ask, str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / volume).read_bytes() == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    for folder, seed in (("own", "5"), ("a", "6")):
        assert cli.main([*ask[:6], seed, "--out", str(tmp_path / folder)]) == 2
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"
    assert cli.main([*ask, str(tmp_path / "c"), "--site", "mars"]) == 2
    assert "expected one of internal" in capsys.readouterr().err
