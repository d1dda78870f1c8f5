"""What speaks to a running service from the command line."""
