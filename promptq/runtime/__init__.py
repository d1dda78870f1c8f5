"""What every program needs to run: stop signals, logs, ports, children."""
