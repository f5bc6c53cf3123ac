"""One thread for each test process: the suite runs one process a core, and sums on a CPU depend on the thread count in
their last bits.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; inherited by the scripts that tests start


def pytest_collection_modifyitems(items):
    """The files that take longest start first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
