"""A few seconds of the fuzz, always the same inputs; `make fuzz MINUTES=30` goes on from other seeds."""

import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from damage import MARK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS, Files, Reader, judge


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_input_is_read_by_the_contract_or_refused(name):
    reader, n_read = READERS[name], []

    @settings(max_examples=reader.n, derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(reader.inputs.map(Files), st.integers(0, reader.ways - 1))
    def fuzz(files, way):
        with TemporaryDirectory() as folder:
            n_read.append(judge(reader, files, way, Path(folder)))

    fuzz()
    assert any(n_read)
    assert not all(n_read) or not reader.refusals


def refused(text):
    def read(path, way):
        raise ValueError(f"{path.name}: {text}")

    return read


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path, way: {}[path.name], "KeyError"),
        (lambda path, way: np.zeros(1)[2:].max(), "no file's name"),
        (refused("\x1b[2J"), "unprintable"),
        (refused(f"of {MARK}"), "repeated"),
        (refused("x" * 30_000), "a refusal of 30,"),
        (lambda path, way: [f"took {MARK.upper()}"], "repeated"),
        (lambda path, way: warnings.warn("PatientName", stacklevel=1) or [], "a UserWarning"),
        (lambda path, way: os.write(2, b"from C") and [], "said beside by print"),
    ],
)
def test_a_broken_promise_is_noticed(tmp_path, read, said):
    with pytest.raises(AssertionError, match=said):
        judge(Reader(st.none(), read, (ValueError,)), {"a.nii": b""}, 0, tmp_path)
