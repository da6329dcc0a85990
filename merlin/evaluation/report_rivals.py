"""Reports that no network wrote, which a report writer has to beat.

All wording comes from training reports. A finding's sentence is the commonest that states it and nothing
else, with the side and degree that it happens to name; a section without a finding gets its commonest text
that states none.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from merlin.data.extract import label_table, report_sentences
from merlin.statistics import metrics
from merlin.vocabulary import FINDINGS_OF, NAMES


def nearest_report(query: np.ndarray, library: np.ndarray) -> np.ndarray:
    """Position in the library of each query's nearest image; both (n, D), unit length."""
    return np.argmax(np.asarray(query) @ np.asarray(library).T, axis=1)


def most_frequent(sections: np.ndarray) -> np.ndarray:
    """(n_sections,) str: the commonest non-empty text of each section; ties go to the first."""
    out = []
    for column in np.asarray(sections, object).T:
        texts, count = np.unique([t for t in column if t], return_counts=True)
        out.append(str(texts[count.argmax()]) if len(texts) else "")
    return np.array(out, object)


def phrase_book(sections: np.ndarray, names: Sequence[str]) -> tuple[dict[str, str], np.ndarray]:
    """Training sentences for a template.

    Parameters
    ----------
    sections : (n, n_sections) str
        Of training reports; of one reader, or of all.
    names : sequence of str
        Of the sections.

    Returns
    -------
    phrases : dict of finding to str
        Findings that no sentence states are left out.
    normal : (n_sections,) str
        What a section says where it states nothing; `Normal.` where training has no such text.
    """
    phrases, normal = {}, []
    for name, column in zip(names, np.asarray(sections, object).T, strict=True):
        heading = f"{name[0].upper()}{name[1:]}: "
        own = [t for t in column if t]
        usual = [t for t, _ in sorted(Counter(own).items(), key=lambda x: (-x[1], x[0]))]
        said = Counter(s for t in own for s in report_sentences(t))
        spoken = [s for s, _ in sorted(said.items(), key=lambda x: (-x[1], x[0]))]
        states = label_table([heading + s for s in spoken]) == 1 if spoken else np.zeros((0, 30))
        for finding in FINDINGS_OF.get(name, ()):
            at = states[:, NAMES.index(finding)].astype(bool)
            alone = np.flatnonzero(at & (states.sum(1) == 1))
            if at.any():
                phrases[finding] = spoken[alone[0] if len(alone) else np.flatnonzero(at)[0]]
        quiet = (t for t in usual if not (label_table([heading + t]) == 1).any())
        normal.append(next(quiet, "Normal."))
    return phrases, np.array(normal, object)


def filled(
    present: np.ndarray, phrases: dict[str, str], normal: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Reports by template, (n, n_sections) str: a sentence for each finding, else the normal text.

    Parameters
    ----------
    present : (n, n_findings) bool
        Columns as `vocabulary.NAMES`.
    phrases, normal
        From `phrase_book`.
    """
    out = np.tile(np.asarray(normal, object), (len(present), 1))
    for s, name in enumerate(names):
        own = [f for f in FINDINGS_OF.get(name, ()) if f in phrases]
        columns = present[:, [NAMES.index(f) for f in own]]
        for i in np.flatnonzero(columns.any(1)):
            out[i, s] = " ".join(phrases[f] for f, has in zip(own, columns[i], strict=True) if has)
    return out


def called_above(scores: np.ndarray, val: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n, n_findings) bool: scores above the threshold of each finding's best F1 on validation.

    A finding that no validation report states is never called.
    """
    with np.errstate(invalid="ignore"):
        return scores > metrics.best_f1_threshold(val, truth.astype(float))


def rivals(
    sections: np.ndarray, image: np.ndarray, scores: np.ndarray, truth: np.ndarray,
    rows: dict[str, np.ndarray], names: Sequence[str], *, readers: np.ndarray | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Reports of every rival for the test studies, each (n_test, n_sections) str.

    `template` states the findings whose zero-shot score is above its threshold of validation, `everything`
    states all, both in the words of the training reader with most reports. `nearest` copies the report of
    the training volume with the most similar embedding, `frequent` takes the commonest text of each
    section, `normal` says so everywhere: it must lose on findings, whatever it wins in words.

    Parameters
    ----------
    sections : (n, n_sections) str
    image : (n, D) float
        Unit length.
    scores : (n, n_findings) float
    truth : (n, n_findings) bool
        What each report states; of test studies it is not looked at.
    rows : dict of split to int array
        `train`, `val`, `test`.
    readers : (n,) str, optional
        Who dictated.
    """
    train, val, test = (rows[s] for s in ("train", "val", "test"))
    own = train
    if readers is not None:
        who, count = np.unique(np.asarray(readers)[train], return_counts=True)
        own = train[np.asarray(readers)[train] == who[count.argmax()]]
    phrases, normal = phrase_book(sections[own], names)
    called = called_above(scores[test], scores[val], truth[val])
    return {
        "template": filled(called, phrases, normal, names),
        "nearest": sections[train][nearest_report(image[test], image[train])],
        "frequent": np.tile(most_frequent(sections[train]), (len(test), 1)),
        "everything": filled(np.ones_like(called), phrases, normal, names),
        "normal": np.full_like(sections[test], "Normal."),
    }
