"""``python -m dynein``."""

from dynein.cli.main import main

main()
