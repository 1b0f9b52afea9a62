"""``python -m dynein``."""

from dynein.cli import main

main()
