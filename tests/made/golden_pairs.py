"""The golden takes, processed, with their pairs: fixtures."""

import shutil

import pytest

from tests.made.golden import GOLDEN_SPLITS, golden
from tests.made.processed import create_pairs, write_data_set


@pytest.fixture(scope="module")
def golden_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("golden")
    data_dir = write_data_set(root, golden("pipeline/annotations"), GOLDEN_SPLITS)
    run = create_pairs(data_dir)
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def data_dir(golden_root, tmp_path):
    """A copy that a test may damage; files keep their times."""
    shutil.copytree(golden_root, tmp_path / "copy")
    return tmp_path / "copy" / "processed"
