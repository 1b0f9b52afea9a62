"""``python -m dynein.events`` prints the reference page."""

from __future__ import annotations

import sys

from dynein.events.reference import reference_markdown

sys.stdout.write(reference_markdown())
