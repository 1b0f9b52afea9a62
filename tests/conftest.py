"""For all tests: examples of property tests take as long as they take, for time passes unevenly on a busy machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
