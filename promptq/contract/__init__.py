"""What the programs agree on: jobs, requests, keys, errors, metrics, settings. Pure."""
