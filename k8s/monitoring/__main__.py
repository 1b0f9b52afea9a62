"""Write the generated files: ``python -m k8s.monitoring``."""

from __future__ import annotations

from k8s.monitoring.made import MADE


def main() -> None:
    """Rewrite every file of `MADE`."""
    for path, make in MADE.items():
        path.write_text(make())


main()
