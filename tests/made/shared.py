"""Fixtures that tests of several files read; each is made once in each process of the suite."""

import os
import shutil
from pathlib import Path

import pytest

from tests.made.golden import GOLDEN_SPLITS, golden
from tests.made.processed import create_pairs, make_data_set, write_data_set
from tests.made.results import make_scored_data


@pytest.fixture(scope="session")
def warm_python() -> Path:
    """A program that runs scripts like Python, but has imported torch already; conftest.py starts its server."""
    return Path(os.environ["WARM_PYTHON"])


@pytest.fixture(scope="session")
def training_set(tmp_path_factory) -> Path:
    """The data folder of `make_training_set`."""
    from tests.made.training import make_training_set  # with torch, which few tests need

    return make_training_set(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def scored_data(tmp_path_factory) -> Path:
    """The folder of `make_scored_data`."""
    return make_scored_data(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="session")
def data_path(tmp_path_factory) -> Path:
    """Three processed takes, all of the split val."""
    return make_data_set(tmp_path_factory.mktemp("val"), {"val": ["take-a", "take-b", "take-c"]})


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The checkpoint of a tiny network of the paper."""
    from tests.made.networks import write_network

    return write_network(tmp_path_factory.mktemp("paper") / "net.pth")


@pytest.fixture(scope="session")
def strong_checkpoint(tmp_path_factory) -> Path:
    """The checkpoint of a tiny strong network."""
    from tests.made.networks import write_network

    return write_network(tmp_path_factory.mktemp("strong") / "net.pth", strong=True)


@pytest.fixture(scope="session")
def golden_root(tmp_path_factory) -> Path:
    """A folder with the golden takes, processed, and their pairs."""
    root = tmp_path_factory.mktemp("golden")
    data_dir = write_data_set(root, golden("pipeline/annotations"), GOLDEN_SPLITS)
    run = create_pairs(data_dir)
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def data_dir(golden_root, tmp_path) -> Path:
    """A copy of the golden takes that a test may damage; files keep their times."""
    return shutil.copytree(golden_root, tmp_path / "copy") / "processed"
