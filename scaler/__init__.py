"""The scaler: watches the queue, runs the workers, and takes back what dead ones held."""
