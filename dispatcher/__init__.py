"""Runs what is slow and outside: batches, and what is to be done with files."""
