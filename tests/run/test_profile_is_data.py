"""A profile that a stranger wrote can be refused, or set values; it can run and exhaust nothing."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.utils import format as snakemake_format

from merlin import run
from merlin.run import places
from merlin.training.checkpoint import announce

HERE = Path(__file__).parents[2]
ALIASES = "01_dataset:\n  columns:\n    a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"    a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
SIGNS = [
    "$(touch ran)",
    "`touch ran`",
    "a\ntouch ran\n",
    "{ran}",
    "'; touch ran; '",
    '"&touch ran&"',
]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Text → what `load_profile` makes of it, beside the real default profile."""
    monkeypatch.setattr(places, "ROOT", tmp_path)
    (tmp_path / "default.yaml").write_bytes((run.PROFILES / "default.yaml").read_bytes())
    monkeypatch.setattr(places, "PROFILES", tmp_path)

    def load(text):
        (tmp_path / "odd.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return run.load_profile("odd")

    return load


@pytest.mark.parametrize(
    "name", [*SIGNS, "x$(id>PWNED)", "$(touch ran) arms.x", "../../x", "-x", "a" * 300, ""]
)
@pytest.mark.parametrize("place", [("arms",), ("sweep", "arms")])
def test_an_arms_name_that_a_shell_or_a_folder_could_read_is_refused(load, name, place):
    odd = {name: {}}
    for key in reversed(place):
        odd = {key: odd}
    with pytest.raises(run.ProfileError, match="names of arms are letters") as caught:
        load(yaml.safe_dump(odd))
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: '1; id'", "seed: '1; id'. Expected a number, as 20261."),
        ("01_dataset: {n_workers: '4; id'}", "01_dataset.n_workers: '4; id'. Expected a number"),
        (
            "expected: {minutes: '1 --wrap=id'}",
            "expected.minutes: '1 --wrap=id'. Expected a number",
        ),
        ("expected: {minutes: .nan}", "expected.minutes: nan. Expected a number"),
        ("sweep: {seeds: ['1/../../x']}", "sweep.seeds: '1/../../x'. Expected a number, as 1."),
        ("sweep: {sizes: ['$(id)']}", "sweep.sizes: '$(id)'. Expected a number"),
        ("sweep: {arms: [5]}", "sweep.arms: [5]. Expected keys and values."),
        ("arms: {main: x}", "arms.main: text. Expected keys and values."),
        ("arms: {main: {init_from: ../../x}}", "arms.main.init_from: no arm '../../x'"),
        ("arms: {main: {n_threads: '1; id'}}", "arms.main.n_threads: '1; id'. Expected a number"),
        ("02_pretraining: {learning_rate: 1e-5}", "'1e-5'. Expected a number, as 0.002."),
        ("02_pretraining: {folder: 2026-01-01}", "02_pretraining.folder: unknown"),
        ("seed: 2026-01-01", "seed: datetime.date(2026, 1, 1). Expected a number"),
        ("notebooks: ['../x']", "notebooks: ../x: unknown"),
        ("01_cohort: {n_patients: {internal: x}}", "n_patients.internal: 'x'. Expected a number"),
        ("- a list", "the file: ['a list']. Expected keys and values."),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_key_and_the_default(load, text, said):
    with pytest.raises(run.ProfileError) as caught:
        load(text)
    assert said in str(caught.value)


def test_texts_of_a_profile_may_hold_any_sign(load):
    text = "".join(SIGNS)
    values = load(yaml.safe_dump({"01_dataset": {"folder": text}, "expected": {"note": text}}))
    assert values["01_dataset"]["folder"] == values["expected"]["note"] == text
    assert load("02_pretraining: {code_map: null}")["02_pretraining"]["code_map"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "odd.yaml, line 4: an alias, *a0. Write out what it stands for."),
        ("a: &a {b: *a}", "odd.yaml, line 1: an alias"),
        ("x: &x 1\ny: {<<: *x}", "odd.yaml, line 2: an alias"),
        ("[" * 100_000, "nested too deeply"),
        ("{a: " * 5_000, "nested too deeply"),
        ("".join(" " * i + "- \n" for i in range(60)), "nested too deeply"),
        ("a: " + "x" * 5_000, "a value of 5,000 characters. Expected 2,000 at most"),
        ("# " + "x" * 100_000, "odd.yaml: 97 kB. Expected 64 at most."),
        ("seed: 0x" + "f" * 1_900, "Expected a number"),
        ("seed: 2026-99-99", "month must be in 1..12"),
        ("seed: !!python/object/apply:os.system ['id']", "could not determine a constructor"),
        ("seed: {", "odd.yaml, line 1"),
        ("seed: !!timestamp x", "odd.yaml: a value that its tag (!!…) does not fit"),
        ("seed: !!bool x", "does not fit"),
        ("seed: !!int ''", "does not fit"),
        (b"\xff\xfe\x00", "odd.yaml: unacceptable character"),
        (b"a: \xe9", "odd.yaml"),
    ],
)
def test_a_profile_that_would_exhaust_or_is_none_is_refused_with_its_line(load, text, said):
    if isinstance(text, str) and len(text) > 65_536 and "kB" not in said:
        text = text[:65_536]
    with pytest.raises(run.ProfileError) as caught:
        load(text)
    assert said in str(caught.value)


def shell_lines():
    """Names of the Snakefile that hold what is handed to bash, from its own text."""
    text = (HERE / "Snakefile").read_text()
    names = {}
    exec(
        text[text.index("PROGRESS = ") : text.index("\n)\n", text.index("PAPERMILL = ")) + 3], names
    )
    return names


def test_a_note_on_a_checkpoint_reaches_the_console_among_progress_bars(tmp_path, capsys):
    announce(tmp_path / "main" / "checkpoint.pt", "kept as checkpoint.other-settings.pt")
    said = (
        "\rpretraining:  40%|##  | 4/10"
        + capsys.readouterr().err
        + "\rpretraining:  50%|## | 5/10\r"
    )
    done = subprocess.run(
        ["bash", "-c", f"name=02; partial={tmp_path}; {shell_lines()['PROGRESS']}"], input=said,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "02: pretraining:  40%|##  | 4/10", "02: main: kept as checkpoint.other-settings.pt"
    ]  # fmt: skip


def rule_line(**values):
    """The line that Snakemake hands to bash for a notebook."""
    names = shell_lines()
    return snakemake_format(names["PAPERMILL"], PROGRESS=names["PROGRESS"], **values)


@pytest.mark.parametrize("sign", SIGNS)
def test_what_reaches_a_rules_line_is_a_word_whatever_it_holds(tmp_path, sign):
    """Were a name let through, the line would still pass it on sign for sign."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "papermill").write_text(
        "#!/usr/bin/env python3\nimport sys, pathlib\n"
        "pathlib.Path('said').write_text(repr(sys.argv[1:]))\n"
        'pathlib.Path(sys.argv[2]).write_text(\'{"cells": [], "metadata": {}}\')\n'
    )
    (tools / "sleep").write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    arm, base = f"02_pretraining-{sign.replace('/', '')}", f"runs/{sign}"
    line = rule_line(
        BASE=base, PROFILE=sign, input=[f"notebooks/{sign}.ipynb"], output=[f"{base}/{arm}.ipynb"],
        params=SimpleNamespace(name=arm, extra=["-r", "arm", sign]),
    )  # fmt: skip
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail; {line}"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text()
    for words in ([f"notebooks/{sign}.ipynb", f"{base}/partial/{arm}.ipynb"],
                  ["-r", "profile", sign, "-r", "arm", sign]):  # fmt: skip
        assert repr(words)[1:-1] in said
    assert (tmp_path / base / f"{arm}.ipynb").is_file()
    assert not list(tmp_path.rglob("ran"))
