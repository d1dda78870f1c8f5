"""Batches: their lines become jobs, and the endings of those a file."""
