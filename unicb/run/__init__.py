"""Manage one run's life: how it begins, whose calls are its own, how it is stopped, and how it
ends."""
