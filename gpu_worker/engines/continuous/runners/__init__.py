"""What computes a step's tokens."""
