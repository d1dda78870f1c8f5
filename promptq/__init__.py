"""The contract that the API, the GPU workers and the scaler share."""

__version__ = "0.1.0"
