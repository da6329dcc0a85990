"""Every figure by the name of its file."""

from merlin.figures import adapted, causes, dataset, design, ideas, off_shelf, panels

FIGURES = (
    panels.FIGURES
    | dataset.FIGURES
    | off_shelf.FIGURES
    | adapted.FIGURES
    | design.FIGURES
    | ideas.FIGURES
    | causes.FIGURES
)
