"""A Python that has imported the libraries already, for commands of the documents and for scripts that tests start.

To import torch and timm takes five seconds of CPU time. A server imports them once, when the first script is to
run, and each script runs in a fork of the server. The server imports no module of this project, so a script imports
the modules of its own repository.
"""

import atexit
import contextlib
import importlib
import json
import multiprocessing.process
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = (
    *("av", "cv2", "pycocotools.mask", "timm", "torch._dynamo"),
    *("torch.distributed.launcher.api", "torch.utils.data", "torch.utils.tensorboard"),
)
# The program that tests call in place of Python. It passes signals that ask a script to stop on to the script, and ends
# with the script's status.
CLIENT = """#!{python} -ESs
import json, os, signal, socket, sys
PASSED_ON = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    given = json.dumps([sys.argv, os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [given.encode() + b"\\n"], [0, 1, 2])
    answers = server.makefile()
    script = int(answers.readline())
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(script, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = int(answers.readline())
if status < 0:
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@contextlib.contextmanager
def warm_python_in(folder: Path) -> Iterator[Path]:
    """Start the server for the time of the block; yields the program to call in place of Python."""
    python, address = folder / "python", str(folder / "socket")
    python.write_text(CLIENT.format(python=sys.executable, address=address))
    python.chmod(0o755)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, __file__, address], **pipes) as server:
        server.stdout.readline()
        yield python


def next_client(address: str) -> socket.socket | None:
    """Fork for each client: returns the client in each fork, and None in the server when its parent has ended."""
    with socket.create_server(address, family=socket.AF_UNIX) as server:
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            client, _ = server.accept()
            for library in LIBRARIES:
                importlib.import_module(library)
            if not os.fork():
                return client
            client.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)


def become_script(client: socket.socket) -> list[str]:
    """Fork again. The new process gets the streams, folder and environment of the client and returns its command line;
    this process waits for the new one, tells the client its exit status and ends.
    """
    given, streams, *_ = socket.recv_fds(client, 1 << 16, 3)
    while not given.endswith(b"\n"):
        given += client.recv(1 << 16)
    if script := os.fork():
        for stream in streams:
            os.close(stream)
        client.sendall(f"{script}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(script, 0)[1])
        with contextlib.suppress(OSError):  # a client that was killed
            client.sendall(f"{status}\n".encode())
        os._exit(0)
    client.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    words, folder, environment = json.loads(given)
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder  # processes that the script spawns look for the script here
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # the folder that a library asked for in the server; TMPDIR may name another one
    return words


def run(python: str, *words: str) -> None:
    """Run in this process what `python *words` runs."""
    os.environ["PYTHON_EXEC"] = python  # torchrun starts its processes with it
    kind, *rest = words[1:] if words[0] == "-u" else words
    folder = str(Path(kind).resolve().parent) if kind.endswith(".py") else ""
    sys.path[:1] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = sys.modules["__mp_main__"] = types.ModuleType("__main__")
    sys.argv = [kind, *rest]
    if kind == "-c":
        code = sys.argv.pop(1)
    elif kind == "-":
        code = sys.stdin.read()
    else:
        main.__file__ = kind
        code = compile(Path(kind).read_bytes(), kind, "exec")
    exec(code, vars(main))


def run_and_end(*words: str) -> None:
    """Run as `run` does, and end this process as Python does, but for its last step: it would look through and take
    down all that the server has imported, for a second and a half.
    """
    end = SystemExit()
    try:
        run(*words)
    except SystemExit as raised:
        end = raised
    if isinstance(end.code, str):
        raise end
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code or 0)


if __name__ == "__main__":
    if asked := next_client(sys.argv[1]):
        run_and_end(*become_script(asked))
