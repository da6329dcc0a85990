"""Every figure by the name of its file."""

from merlin.figures import adapted, design, off_shelf, panels

FIGURES = panels.FIGURES | off_shelf.FIGURES | adapted.FIGURES | design.FIGURES
