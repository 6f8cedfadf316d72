"""Manage one run's life: how it begins, which calls belong to it, how it is stopped, and how it
ends."""
