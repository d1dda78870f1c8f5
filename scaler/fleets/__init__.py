"""Where workers run. `base` has the protocol."""
