"""How the suite runs: one thread for each test process, and temporary files in memory where there is room for them."""

import os
import shutil
from pathlib import Path

# Before torch is imported; inherited by the scripts that tests start. The suite runs one process a core, and sums on a
# CPU depend on the thread count in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free > 2 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # of tmp_path: thousands of small files


def pytest_collection_modifyitems(items):
    """The files that take longest start first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
