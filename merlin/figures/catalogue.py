"""Every figure by the name of its file."""

from merlin.figures import (
    adapted,
    causes,
    dataset,
    design,
    encoders,
    ideas,
    off_shelf,
    panels,
    subgroups,
)

FIGURES = (
    panels.FIGURES
    | dataset.FIGURES
    | off_shelf.FIGURES
    | adapted.FIGURES
    | design.FIGURES
    | encoders.FIGURES
    | ideas.FIGURES
    | causes.FIGURES
    | subgroups.FIGURES
)
