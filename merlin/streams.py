"""Every stream of random numbers by name, so that no two questions share one.

All follow from the profile's one seed. The phantom has streams of its own, by patient, study and part
(`merlin.phantom.synthesis.stream`); networks are drawn after `torch.manual_seed`.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What the numbers of a stream decide."""

    RESAMPLES = 1  # patients of each bootstrap resample
    EPOCH = 2  # order of the studies in an epoch of pretraining
    STEP = 3  # sections, crops and turns of a step of pretraining
    BALANCED = 5  # negatives of a class-balanced test set, by finding
    POOLS = 6  # test studies of a retrieval pool, by draw
    ADAPTED_STEP = 7  # what a step of an adapted network draws
    ADAPTED_EPOCH = 8  # order of its examples in an epoch
    GUESSES = 9  # scores of the row that calls findings by chance
    CHANCE_CODES = 10  # scores of the row that ranks phenotypes by chance
    CHANCE_VECTORS = 11  # embeddings of retrieval's chance row
    SHOWN = 12  # test studies whose similarities 06_retrieval shows
    BERTSCORE = 13  # studies that BERTScore reads
    SEGMENTED = 14  # test patients of segmentation
    PERMUTATIONS = 21  # of patients' two scores in a permutation test
    COVERAGE = 22  # simulated cohorts
    FITS = 23  # resamples of a power law's points
    PROMPTS = 24  # few prompts of many, by number and draw
    SHARE = 77  # order in which training patients enter a share of them


def stream_of(seed: int, stream: Stream, *parts: int) -> np.random.Generator:
    """The generator of one stream, or of one part of it as an epoch or a draw."""
    return np.random.default_rng([seed, int(stream), *parts])
