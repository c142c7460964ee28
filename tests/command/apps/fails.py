"""A program that fails before it forks."""

raise ValueError("no")
