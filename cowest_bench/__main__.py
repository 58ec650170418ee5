"""``python -m cowest_bench`` is the command ``cowest``."""

from cowest_bench.cli import main

main()
