"""Requests that wait for others: for a job's end, or for the round trip that submits together."""
