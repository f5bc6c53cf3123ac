"""Settings of the test suite: each test process has one thread; temporary files lie in memory if they fit."""

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from tests.made.warm_python import warm_python_in

# This is set before torch is imported, and the scripts that tests start inherit it. The suite runs one process on each
# core, and the last bits of sums on a CPU depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"

# A program that a shell has started with `&` ignores Ctrl-C, and all processes that it starts would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may depend on time, so Hypothesis must not limit the time of an example or of drawing it.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # tmp_path has thousands of small files


def pytest_configure(config):
    """Start the server of `warm_python`, which all processes of the suite share. On other systems than Linux, Python
    itself runs the scripts, because macOS ends forks of a process that has used its libraries.
    """
    if hasattr(config, "workerinput"):
        return
    os.environ["WARM_PYTHON"] = sys.executable
    if sys.platform == "linux":
        ends = contextlib.ExitStack()
        config.add_cleanup(ends.close)
        folder = ends.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
        os.environ["WARM_PYTHON"] = str(ends.enter_context(warm_python_in(Path(folder))))


pytest_plugins = ["tests.made.shared", "tests.made.browser", "tests.made.raw_takes"]


# The files of `--quick`: golden numbers, the original's numbers, answers and units. They start no command.
QUICK = {
    *("test_original_numbers", "test_xsegtx", "test_golden_answers", "test_losses", "test_samples", "test_steps"),
    *("test_search", "test_strong_network", "test_crops", "test_scene", "test_masks", "test_mask_files"),
    *("test_pictures", "test_pairs", "test_processed", "test_takes", "test_metrics", "test_evaluate"),
    *("test_results", "test_summary", "test_make_submission", "test_synthetic_render", "test_models"),
}


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="golden numbers, answers and units alone, in 45 seconds")


def pytest_ignore_collect(collection_path, config):
    is_left_out = config.getoption("quick") and collection_path.stem not in QUICK
    return True if is_left_out and collection_path.name.startswith("test_") else None


# The longest tests start first, so that no process still runs one of them at the end.
LONGEST = [
    *("test_train", "test_train_resume", "test_readme", "test_choice", "test_inference", "test_demo"),
    *("test_benchmarks", "test_original_numbers", "test_backbones", "test_segment", "test_process_data"),
    *("test_search", "test_mining", "test_device", "test_tour", "test_video", "test_parallel", "test_xsegtx"),
    *("test_own_method", "test_install", "test_validation", "test_predictor"),
]


def pytest_collection(session):
    gc.disable()  # to collect imports PyTorch and all else: a search for garbage in it takes seconds


def pytest_collection_finish(session):
    gc.enable()


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
