"""Finding, converting and loading a model."""
