"""What the commands of `merlin` do, one module a kind; `merlin.cli` says how they are called."""
