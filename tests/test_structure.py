"""The form of the repository: which room may import which, what imports change, what --help says, what the docs say."""

import ast
import contextlib
import functools
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made import ROOT

FLOORS = {  # folder -> what it may import of ours, besides itself
    "common": set(),
    "formats": {"common"},
    "model": {"common", "formats"},
    "data": {"common", "formats"},
    "synthetic": {"common", "formats"},
    "recipes": {"common", "formats", "model"},
    "inference": {"common", "formats", "model", "recipes"},
    "train": {"common", "formats", "model", "recipes"},
    "evaluation": {"common", "formats"},
    "examples": {"common", "formats", "model", "recipes"},
}
METHODS = {  # module or folder of recipes/, besides those that all may import -> what it may import of the others
    "search": set(),
    "paper": set(),
    "matching": {"search"},
    "strong": {"search"},
    "table": {"matching"},
}
FOLDERS = (*FLOORS, "benchmarks")
SOURCES = sorted([*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), ROOT / "eval_segswap.py"])
SCRIPTS = [path for path in SOURCES if '__name__ == "__main__"' in path.read_text()]
SHELL_SCRIPTS = (
    *("data/download_split.sh", "data/download_uids.sh", "model/pretrained/download_model.sh"),
    *("model/pretrained/train_network.sh", "quickstart.sh", "tests/run.sh"),
)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOREIGN_FLAGS = {  # of the programs that our documents call
    *("--parts", "--benchmarks", "--uids", "--yes"),  # egoexo
    *("--nproc_per_node",),  # torchrun
    *("--array", "--cpus-per-task", "--nodes", "--requeue", "--wrap"),  # sbatch
    *("--shm-size",),  # docker
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def helps() -> dict[str, tuple[int, str]]:
    """Exit status and text of every script's --help, by the script's name."""
    texts = {}
    for path in SCRIPTS:
        text = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text), pytest.raises(SystemExit) as end:
            patch.setenv("COLUMNS", "500")
            patch.setattr(sys, "argv", [str(path), "--help"])
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "excepthook", sys.excepthook)
            runpy.run_path(str(path), run_name="__main__")
        texts[name_of(path)] = end.value.code or 0, text.getvalue()
    for name in SHELL_SCRIPTS:
        shell = subprocess.run(["bash", ROOT / name, "--help"], capture_output=True, text=True)
        texts[name] = shell.returncode, shell.stdout + shell.stderr
    return texts


def imported_by(path: Path) -> set[str]:
    """The modules that a module imports, anywhere in it, and the names in them."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return imported


@pytest.mark.parametrize("folder", FLOORS)
def test_no_floor_imports_one_above_it_nor_a_script(folder):
    scripts, own = {module_of(path) for path in SCRIPTS}, {*FOLDERS, "tests", "eval_segswap"}
    for path in (path for path in SOURCES if name_of(path).startswith(f"{folder}/")):
        ours = {name for name in imported_by(path) if name.split(".")[0] in own}
        assert {name.split(".")[0] for name in ours} <= FLOORS[folder] | {folder}, name_of(path)
        assert not ours & scripts, name_of(path)


def test_recipes_build_on_the_search_but_neither_it_nor_what_all_share_on_them():
    for path in (path for path in SOURCES if name_of(path).startswith("recipes/")):
        own = module_of(path).split(".")[1:2]
        used = {name.split(".")[1] for name in imported_by(path) if name.startswith("recipes.")}
        assert used & {*METHODS} <= {*own, *(METHODS.get(own[0], ()) if own else ())}, name_of(path)


def test_help_of_every_script_keeps_the_docstring_with_the_command_to_copy():
    for name, (status, text) in helps().items():
        assert status == 0, f"{name} --help: {text[-500:]}"
        assert "None: " not in text and "(default: None)" not in text, name
        assert str(ROOT) not in text.partition("\n\n")[2], f"{name} --help shows a path of this machine"
        if name in SHELL_SCRIPTS:  # nothing but the comment above the first command: no work has begun
            comment = (ROOT / name).read_text().partition("\nset ")[0].splitlines()[1:]
            assert text.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in comment]
        if name.endswith(".py"):
            docstring = ast.get_docstring(ast.parse((ROOT / name).read_text()), clean=False) or ""
            commands = re.findall(r"^ *(?:python|cd|torchrun) .*", docstring, re.MULTILINE)
            assert commands, f"the docstring of {name} shows no command"
            assert all(command in text for command in commands), f"{name} --help loses the docstring's commands"


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", text))


def commands_in(text: str) -> list[str]:
    """Commands that call a script of ours: of the code blocks, and the ones in backquotes."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    lines = [line.split(" #")[0].strip() for line in blocks] + re.findall(r"`([^`\n]+)`", text)
    return [line for line in lines if re.search(r"\w+\.(py|sh)\b.* --", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documents_uses_flags_of_its_own_script(document):
    text = document.read_text()
    for command in commands_in(text):
        script = re.search(r"([\w/]+\.(?:py|sh))", command)[1]
        script = {"inference/slurm.sh": "eval_segswap.py"}.get(script, script)  # they pass their arguments on
        if Path(script).name in ("run_ego.sh", "run_exo.sh", "run_both.sh", "slurm.sh"):
            script = "train/train.py"
        if script not in helps():  # named without its folder
            script = next((name for name in helps() if Path(name).name == Path(script).name), script)
        assert script in helps(), f"{document.name}: {command}: there is no script {script}"
        unknown = flags_in(command) - flags_in(helps()[script][1]) - FOREIGN_FLAGS
        assert not unknown, f"{document.name}: {command}: {script} has no {sorted(unknown)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_every_path_in_the_documents_leads_somewhere(document):
    text = document.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            assert target.exists(), f"{document.name}: {link}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, f"{document.name}: {link}"
    for path in re.findall(
        r"`((?:data|train|inference|evaluation|examples|model|recipes|formats|synthetic|benchmarks|docs)/[\w/]*\.?\w*)`",
        text,
    ):
        assert (ROOT / path).exists() or path.startswith(MADE), f"{document.name}: {path}"


def test_what_the_page_on_own_models_names_is_in_the_code():
    """It tells people where to change what: a name that is gone sends them nowhere."""
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in SOURCES)))
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "extending.md").read_text(), flags=re.DOTALL)
    named = {part for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(\.\.\.\))?`", text) for part in name.split(".")}
    assert len(named) > 40 and named <= words, named - words


MADE = ("data/egoexo", "data/split.json", "data/correspondence_takes.txt", "train/checkpoints")  # not in the repository

PROBE = """
import importlib, os, sys, threading
import cv2, numpy, torch

def state():
    numbers = torch.get_rng_state().sum().item(), int(numpy.random.get_state()[1].sum())
    modes = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, torch.get_default_dtype()
    threads = cv2.getNumThreads(), torch.get_num_threads(), threading.active_count()
    return {"random numbers": numbers, "modes": modes, "threads": threads, "environment": dict(os.environ)}

for module in sys.argv[1:]:
    before = state()
    importlib.import_module(module)
    if (after := state()) != before:
        print(f"importing {module} changes", *(f"{what}: {x} -> {after[what]}" for what, x in before.items()))
"""


def test_importing_a_module_changes_nothing_outside_it(warm_python):
    modules = [module_of(path) for path in SOURCES if path not in SCRIPTS and path.parts[-2] != "benchmarks"]
    # GOMP_SPINCOUNT is the one exception: inference/predictor.py sets it where it is not set (common/start.py).
    environment = {**os.environ, "GOMP_SPINCOUNT": "2000", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    words = [warm_python, "-c", PROBE, *modules]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_release_has_one_version_and_one_date_everywhere():
    read = {name: (ROOT / name).read_text() for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")}
    patterns = {
        "pyproject.toml": r'^version = "([\d.]+)"',
        "CITATION.cff": r'^version: "([\d.]+)"',
        "CHANGELOG.md": r"^## ([\d.]+), [\d-]+$",
    }
    assert len({re.search(pattern, read[name], re.MULTILINE)[1] for name, pattern in patterns.items()}) == 1
    date = re.search(r", ([0-9-]+)$", read["CHANGELOG.md"], re.MULTILINE)[1]
    assert f'date-released: "{date}"' in read["CITATION.cff"]
