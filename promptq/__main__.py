"""`python -m promptq` is the command `promptq`."""

import sys

from promptq.cli import main

sys.exit(main())
