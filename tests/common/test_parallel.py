"""common/parallel.py: many jobs at once, the number of processes, and processes that fail."""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common import parallel
from common.errors import UserError
from common.parallel import default_workers, in_threads, run_jobs
from tests.made import ROOT
from tests.made.jobs import die_at_three, double, fail_at_three


def test_a_containers_share_of_the_cpus_is_all_that_is_used(tmp_path):
    for text, cpus in {"250000 100000": 2, "50000 100000": 1, "max 100000": None}.items():
        (tmp_path / "cpu.max").write_text(text)
        assert parallel._cpu_quota(tmp_path / "cpu.max") == cpus


def test_the_processes_of_torchrun_share_a_machines_cpus(monkeypatch):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert default_workers() == 12
    for ranks, expected in ((4, 3), (5, 2), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert default_workers() == expected


@pytest.mark.parametrize(("cpus", "ranks", "threads"), [(2, 4, 0), (3, 1, 3), (8, 2, 4)])
def test_a_process_has_one_pool_of_threads_for_its_share_of_the_cpus_and_a_fork_has_its_own(
    monkeypatch, cpus, ranks, threads
):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    monkeypatch.setattr(parallel, "_pool_of", functools.cache(parallel._pool_of.__wrapped__))
    assert in_threads(pow, range(99), 99 * [2]) == [x * x for x in range(99)]
    used = {thread for _ in range(9) for thread in in_threads(lambda _: threading.get_ident(), range(99))}
    assert len(used) <= threads if threads else used == {threading.get_ident()}
    if not (child := os.fork()):
        signal.alarm(30)
        os._exit(in_threads(abs, [-1, 2]) != [1, 2])  # would wait for ever for the threads of its parent
    assert os.waitpid(child, 0)[1] == 0
    if pool := parallel._pool_of(os.getpid()):
        pool.shutdown()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_is_done_once_whatever_the_number_of_processes(workers):
    drawn = []
    done = run_jobs(double, (drawn.append(n) or n for n in range(9)), workers)
    first = next(done)
    assert len(drawn) <= max(1, 2 * workers)  # as they are needed
    assert sorted([first, *done]) == [(n, 2 * n) for n in range(9)]


@pytest.mark.parametrize(
    ("job", "line"),
    [(fail_at_three, "^job 3 is bad$"), (die_at_three, "^[^\n]*killed[^\n]*fewer --num_workers .now 2.[^\n]*$")],
)
def test_an_error_or_the_end_of_a_process_is_named_in_one_line_and_none_is_left(job, line):
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=line):
        list(run_jobs(job, range(6), 2))
    assert set(multiprocessing.active_children()) <= before


BUSY = """
import sys, time
from common.errors import UserError, run_script
from common.parallel import loader_failures, run_jobs, init_loader_worker
from tests.made.jobs import say_busy, sleep

if sys.argv[1] == "starting_pool" and __name__ == "__mp_main__":  # its processes import this script
    say_busy()
    time.sleep(1)

class Pictures:
    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index in (2, 3):
            say_busy()
        return bytes(1 << 20)  # more than a pipe takes

def pool():
    for _ in run_jobs(sleep, range(6), 2):
        pass

starting_pool = pool

def loader():
    from torch.utils.data import DataLoader  # seconds, which the processes of a pool need not wait for
    with loader_failures():
        for _ in DataLoader(Pictures(), batch_size=None, num_workers=2, worker_init_fn=init_loader_worker):
            time.sleep(600)

def faulty_loader():
    from torch.utils.data import DataLoader
    with loader_failures():
        list(DataLoader([0], batch_size=None, num_workers=1, collate_fn=refuse))

def refuse(_):
    raise UserError("16 samples in a row cannot be read")

def failing_loader():
    from torch.utils.data import DataLoader
    global pictures  # is there until the end, as if a traceback held it
    pictures = iter(DataLoader(Pictures(), batch_size=None, num_workers=2, worker_init_fn=init_loader_worker))
    for _ in range(3):
        next(pictures)
    raise RuntimeError("the other rank has gone")

if __name__ == "__main__":
    run_script(globals()[sys.argv[1]])
"""


def test_an_error_in_a_loader_process_is_one_line_without_its_traceback(tmp_path, warm_python):
    (tmp_path / "script.py").write_text(BUSY)
    command = [warm_python, tmp_path / "script.py", "faulty_loader"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: 16 samples in a row cannot be read\n")


@pytest.fixture
def busy(tmp_path, request):
    """A script whose two workers are busy, in a session of its own."""
    script = tmp_path / "script.py"
    script.write_text(BUSY)
    command, pipes = [sys.executable, script, request.param], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, **pipes, text=True, env=environment, start_new_session=True)
    assert process.stdout.readline() == process.stdout.readline() == "busy\n"
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("busy", ["pool", "loader"], indirect=True)
def test_ctrl_c_ends_all_at_once_without_a_traceback(busy):
    os.killpg(busy.pid, signal.SIGINT)  # a terminal sends it to parent and workers alike
    _, stderr = busy.communicate(timeout=300)
    assert (busy.returncode, stderr) == (130, "interrupted; run the same command again to continue\n")


@pytest.mark.parametrize("busy", ["pool", "loader"], indirect=True)
def test_workers_end_with_a_killed_parent(busy):
    busy.kill()
    busy.communicate(timeout=300)  # the workers have what it prints to, too


@pytest.mark.parametrize("busy", ["failing_loader"], indirect=True)
def test_a_parent_that_fails_ends_with_its_loader_processes(busy):
    _, stderr = busy.communicate(timeout=100)
    assert busy.returncode == 1 and stderr.endswith("RuntimeError: the other rank has gone\n")


@pytest.mark.parametrize(
    ("busy", "number"),
    [("starting_pool", signal.SIGTERM), ("loader", signal.SIGUSR1)],
    indirect=["busy"],
)
def test_a_signal_to_all_processes_is_for_the_parent_alone(busy, number):
    """None of the workers ends before it, which would look like a lack of memory. SLURM sends it to each process."""
    for worker in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(worker.read_text().rpartition(")")[2].split()[1]) == busy.pid:
                os.kill(int(worker.parent.name), number)
    with pytest.raises(subprocess.TimeoutExpired):  # nobody says that a worker was killed
        busy.wait(1)
    os.killpg(busy.pid, number)
    _, stderr = busy.communicate(timeout=300)
    assert busy.returncode == -number and "Traceback" not in stderr
