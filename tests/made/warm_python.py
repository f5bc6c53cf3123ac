"""A Python that has imported the libraries already, for the commands of documents and for scripts that tests start.

To import torch and timm takes five seconds of CPU time. A server does it once, and each script is a fork of it. No
module of this project is imported there: a script takes those that lie beside it.
"""

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
import types
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = (
    *("av", "cv2", "pycocotools.mask", "timm", "torch._dynamo"),
    *("torch.distributed.launcher.api", "torch.utils.data", "torch.utils.tensorboard"),
)
# The program that is called in Python's place. It passes on the signals that ask a script to stop, and ends as it does.
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
    """Within the block there is such a program, which is given."""
    python, address = folder / "python", str(folder / "socket")
    python.write_text(CLIENT.format(python=sys.executable, address=address))
    python.chmod(0o755)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, __file__, address], **pipes) as server:
        server.stdout.readline()
        yield python


def next_client(address: str) -> socket.socket | None:
    """Returns in a fork for each client, and in the server, with None, when whoever started it has gone."""
    with socket.create_server(address, family=socket.AF_UNIX) as server:
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            client, _ = server.accept()
            if not os.fork():
                return client
            client.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)


def become_script(client: socket.socket) -> list[str]:
    """Returns in a further fork, which has the client's streams, folder and environment, with its command line. This
    process tells the client how that one ends.
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
    multiprocessing.process.ORIGINAL_DIR = folder  # where processes that the script spawns look for it
    os.environ.clear()
    os.environ.update(environment)
    return words


def run(python: str, *words: str) -> None:
    """Do in this process what `python *words` does."""
    os.environ["PYTHON_EXEC"] = python  # with which torchrun starts its ranks
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


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    if asked := next_client(sys.argv[1]):
        run(*become_script(asked))
