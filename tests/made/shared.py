"""What tests of several files read and none changes: fixtures, made once in each process of the suite."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def training_set(tmp_path_factory) -> Path:
    """Processed takes and their pairs."""
    from tests.made.training import make_training_set  # with torch, as late as possible

    return make_training_set(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def scored_data(tmp_path_factory) -> Path:
    """Of `make_scored_data`."""
    from tests.made.results import make_scored_data

    return make_scored_data(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="session")
def data_path(tmp_path_factory) -> Path:
    """Three processed takes, all of the split val."""
    from tests.made.processed import make_data_set

    return make_data_set(tmp_path_factory.mktemp("val"), {"val": ["take-a", "take-b", "take-c"]})


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny network of the paper."""
    from tests.made.networks import write_network

    return write_network(tmp_path_factory.mktemp("paper") / "net.pth")


@pytest.fixture(scope="session")
def strong_checkpoint(tmp_path_factory) -> Path:
    """A tiny strong network."""
    from tests.made.networks import write_network

    return write_network(tmp_path_factory.mktemp("strong") / "net.pth", strong=True)
