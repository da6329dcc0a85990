"""Other people's data sets and hospitals → cohorts: nothing of the core imports this room."""
