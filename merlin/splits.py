"""Names of splits as others write them → train, val and test."""

import numpy as np

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"training": "train", "testing": "test"} | dict.fromkeys(
    ("valid", "validation"), "val"
)


def plain_splits(splits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Splits as we call them (`Test` is test, `validation` is val), and a note that lists what was read so."""
    plain = np.char.lower(np.char.strip(np.asarray(splits, str)))
    plain = np.array([SPLIT_NAMES.get(s, s) for s in plain.tolist()], str)
    plain = np.where(np.isin(plain, SPLITS), plain, splits)
    changed = sorted(set(zip(np.asarray(splits, str), plain, strict=True)))
    said = ", ".join(f"{a} as {b}" for a, b in changed if a != b)
    return plain, [f"split: {said}"] if said else []
