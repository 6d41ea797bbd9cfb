"""The scheduler: which rows run, when, and in which order."""
