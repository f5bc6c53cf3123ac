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


pytest_plugins = ["tests.made.shared", "tests.made.browser", "tests.made.golden_pairs", "tests.made.raw_takes"]


# These start first, so that no process is left with one of them at the end.
LONGEST = [
    "test_train.py",
    "test_demo.py",
    "test_readme.py",
    "test_quickstart.py",
    "test_inference.py",
    "test_train_resume.py",
    "test_search.py",
    "test_pretended_device.py",
    "test_benchmarks.py",
    "test_process_data.py",
    "test_tour.py",
    "test_segment_video.py",
    "test_own_method.py",
]


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
