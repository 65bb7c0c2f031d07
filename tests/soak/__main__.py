"""``python -m soak run`` records and judges; ``python -m soak page`` writes the page of an earlier run again."""

import sys

from soak.command import main

sys.exit(main())
