"""``python -m faults``: run a scenario, the campaign, or write docs/reliability.md from its results."""

import sys

from faults.campaign import main

sys.exit(main())
