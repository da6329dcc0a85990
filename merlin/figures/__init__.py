"""Style and panels: tables in, axes out; nothing is computed here."""
