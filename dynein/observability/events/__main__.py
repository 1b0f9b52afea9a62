"""``python -m dynein.observability.events`` prints the reference page."""

from __future__ import annotations

import sys

from dynein.observability.events.reference import reference_markdown

sys.stdout.write(reference_markdown())
