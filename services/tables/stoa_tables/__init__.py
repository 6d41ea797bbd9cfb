"""Worktables, rows, links and their history."""
