"""What surrounds every view: checking, keys and limits, metrics, answers."""
