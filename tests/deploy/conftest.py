"""The image, built once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image import Image, build

MEMORY = Path("/dev/shm")
ROOM_BYTES = 1 << 30


def _quick() -> Path | None:
    """A file system in memory that programs may run from: thousands of small files come and go there in no time."""
    if not MEMORY.is_dir():
        return None
    about = os.statvfs(MEMORY)
    usable = not about.f_flag & os.ST_NOEXEC and about.f_bavail * about.f_frsize > ROOM_BYTES
    return MEMORY if usable else None


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """What ``k8s/Dockerfile`` makes. Not under pytest's own directory: that is closed to the image's user."""
    directory = Path(tempfile.mkdtemp(prefix="dynein-image-", dir=_quick()))
    directory.chmod(0o755)
    try:
        yield build(directory)
    finally:
        shutil.rmtree(directory)
