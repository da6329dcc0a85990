"""A rerun beside what is committed, and the time that a run will take."""

import re
import subprocess
from threading import Event

import pandas as pd
import pytest

from merlin import run
from merlin.run import pace, places, rerun

WAS = pd.DataFrame(
    {
        "label": ["macro", "macro", "spleen", "spleen", "twice", "twice", "point"],
        "metric": ["f1", "auroc", "auroc", "f1", "f1", "f1", "f1"],
        "fraction": [1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0],
        "value": [0.70, 0.86, 0.90, 0.5, 0.1, 0.1, 0.3],
        "low": [0.68, 0.85, 0.80, 0.4, 0.0, 0.0, None],
        "high": [0.72, 0.87, 0.95, 0.6, 0.2, 0.2, None],
        "n_studies": 540,
        "reason": "",
    }
)


def test_quantities_are_paired_by_their_names_and_stand_inside_or_not():
    now = WAS.assign(n_studies=7, reason="other")
    now.loc[0, "value"], now.loc[1, "value"] = 0.719, 0.849
    now = now[now["label"] + now["metric"] != "spleenf1"].iloc[::-1]
    found = rerun.beside(WAS, now).set_index("quantity")
    assert found["inside"].to_dict() == {
        "macro, f1, 1.0": True, "macro, auroc, 1.0": False, "spleen, auroc, 1.0": True,
    }  # fmt: skip
    assert found.loc["macro, auroc, 1.0", ["committed", "low", "high", "rerun"]].tolist() == [
        0.86, 0.85, 0.87, 0.849,
    ]  # fmt: skip


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A default run and one with another seed, and what is committed of them."""
    monkeypatch.setattr(places, "ROOT", tmp_path)
    old = {"data_manifests/phantom_internal.csv": b"study_id\nA\n"}
    headline = WAS.iloc[:2].drop(columns="fraction").assign(is_ours=True)
    old["figures/summary.csv"] = headline.to_csv(index=False).encode()
    old["figures/text.csv"] = b"word\nx\n"
    for profile in ("default", "default-seed7"):
        base = tmp_path / "runs" / profile
        (base / "cohort").mkdir(parents=True)
        (base / "figures").mkdir()
        (base / "cohort" / "phantom_internal.csv").write_bytes(b"study_id\nA\n")
        for name in ("summary", "text", "new"):
            new = old.get(f"figures/{name}.csv", b"value,low,high\n1,0,2\n")
            (base / "figures" / f"{name}.csv").write_bytes(new.replace(b",0.86,", b",0.91,"))
    return old


@pytest.mark.parametrize("profile", ["default", "default-seed7"])
def test_a_run_of_the_same_patients_ends_with_the_table(made, tmp_path, profile):
    said = rerun.told(profile, made.get)
    assert "0.860 [0.850, 0.870], here 0.910: OUTSIDE" in said
    assert "0.700 [0.680, 0.720], here 0.700: inside" in said
    assert "all: 1 of 2." in said
    table = pd.read_csv(tmp_path / "runs" / profile / "figures" / f"{rerun.NAME}.csv")
    assert list(table) == ["table", "quantity", "committed", "low", "high", "rerun", "inside"]
    assert set(table["table"]) == {"summary"}
    assert rerun.told(profile, made.get) == said  # its own table is none of the run's


def test_other_patients_or_another_profile_are_not_compared_and_it_says_why(made, tmp_path):
    assert "this is smoke" in rerun.told("smoke", made.get)
    made["data_manifests/phantom_internal.csv"] = b"study_id\nB\n"
    said = rerun.told("default", made.get)
    assert said.count("\n") == 1
    assert "another cohort than the committed one (phantom_internal.csv)" in said
    assert not list(tmp_path.rglob(f"{rerun.NAME}.csv"))


def test_what_is_committed_is_read_from_git_not_from_the_folder():
    """`make figures` has overwritten the folder by then."""
    path = "data_manifests/README.md"
    try:
        shown = subprocess.check_output(["git", "-C", run.ROOT, "show", f"HEAD:{path}"])
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a checkout")
    assert rerun.committed(path) == shown
    assert rerun.committed("figures/no such.csv") is None


# Time


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("main:  12%|#2   | 150/1200 [01:10<08:12,  2.00it/s]", (0.5, 70)),
        ("main:  12%|#2   | 150/1200 [1:01:10<8:12:00,  1.25s/it, loss=2.1]", (1.25, 3670)),
        ("main:   0%|     | 0/1200 [00:00<?, ?it/s]", None),
        ("no bar", None),
    ],
)
def test_a_progress_bar_tells_the_seconds_of_a_step(line, found):
    assert pace.step_seconds(line) == (found and pytest.approx(found))


def test_the_estimate_follows_the_machine(tmp_path, capsys):
    """More than a minute of steps has been seen, each twice as slow as expected."""
    line = "main:  12%|#2   | 150/1200 [02:30<17:30,  1.00s/it]"

    class Ended(Event):
        def wait(self, timeout=None):  # the bar's line comes while it waits
            (tmp_path / "partial").mkdir(exist_ok=True)
            (tmp_path / "partial" / pace.FIRST).write_text(line)
            return False

    pace.watch(tmp_path, {"minutes": 50, "step_seconds": 0.5}, Ended(), every=0)
    said = capsys.readouterr().out
    assert "takes 1.00 s here, 2.0 times" in said
    assert "about 100 minutes in all, 100 left" in said
    assert pace.beside(tmp_path, {}, lambda: 3) == 3


def test_make_takes_another_seed_as_a_profile_of_its_own():
    def planned(*words):
        told = subprocess.run(
            ["make", "-pn", "help", *words], cwd=run.ROOT, capture_output=True, text=True, check=False
        )  # fmt: skip
        return re.search(r"^PROFILE := (.*)$", told.stdout, re.MULTILINE)[1]

    assert planned("SEED=7") == "default-seed7"
    assert planned("PROFILE=smoke", "SEED=7") == "smoke-seed7"
    assert planned() == "default"
