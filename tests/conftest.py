"""How the suite runs: one thread for each test process, and temporary files in memory where there is room for them."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is imported; inherited by the scripts that tests start. The suite runs one process a core, and sums on a
# CPU depend on the thread count in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell ignores Ctrl-C in what it starts with `&`, and all processes started from there would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # of tmp_path: thousands of small files


# These start first, so that no process is left with one of them at the end.
LONGEST = [
    "test_pretended_device.py",
    "test_benchmarks.py",
    "test_train.py",
    "test_inference.py",
    "test_quickstart.py",
    "test_readme.py",
    "test_process_data.py",
]


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(params=["pipe", "device"])
def put_special(request) -> Iterator[Callable[[Path], Path]]:
    """`put_special(path)` puts a pipe or a device in a file's place; a test that waits there fails after 20 seconds."""

    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        if request.param == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/null")
        return path

    former = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waited at a pipe"))
    signal.alarm(20)
    yield put
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)
