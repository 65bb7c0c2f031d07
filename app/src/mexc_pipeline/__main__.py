"""``python -m mexc_pipeline``: the same as ``mexc-pipeline``; how the supervisor starts its children."""

from mexc_pipeline.cli import main

main()
