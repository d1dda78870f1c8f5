"""Sizes in whole buckets: few shapes, and aligned rows."""


def round_up(number: int, step: int) -> int:
    """The next multiple of the step."""
    return -(-number // step) * step
