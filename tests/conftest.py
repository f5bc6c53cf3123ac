"""How the suite runs: one thread for each test process, and temporary files in memory where there is room for them."""

import os
import shutil
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

# Before torch is imported; inherited by the scripts that tests start. The suite runs one process a core, and sums on a
# CPU depend on the thread count in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell ignores Ctrl-C in what it starts with `&`, and all processes started from there would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test measures time, also not how long an example takes or how long it takes to be drawn.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # of tmp_path: thousands of small files


pytest_plugins = ["tests.made.shared", "tests.made.browser", "tests.made.raw_takes"]


# These start first, so that no process is left with one of them at the end.
LONGEST = [
    *("test_train", "test_demo", "test_readme", "test_quickstart", "test_inference", "test_train_resume"),
    *("test_search", "test_device", "test_benchmarks", "test_process_data", "test_tour", "test_segment"),
    *("test_own_method", "test_predictor"),
]


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
