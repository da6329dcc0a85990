"""Every figure by the name of its file."""

from merlin.figures import adapted, off_shelf, panels

FIGURES = panels.FIGURES | off_shelf.FIGURES | adapted.FIGURES
