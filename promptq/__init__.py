"""What the API, the GPU workers and the scaler share, and the command that starts them."""

__version__ = "0.2.0"
