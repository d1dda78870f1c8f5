"""Gunicorn, started from our package: it puts the working folder first on the path, where another `api` may be."""

import sys

from gunicorn.app.wsgiapp import run  # type: ignore[import-untyped]

if __name__ == "__main__":
    sys.exit(run())
