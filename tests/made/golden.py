"""Read the files of tests/golden, which hold results of the original implementation on its takes."""

import gzip
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_SPLITS = {
    "train": ["50a33d6e-2fe5-44aa-a16e-38964ac13e2c", "38382b7e-c92a-474e-8d3c-76d939ac7191"],
    "val": ["4674852c-dcfd-4ee1-a886-90c498eee1dd"],
    "test": ["44667a22-cc41-4b97-b865-f79f4215be35"],
}


def golden(name: str) -> Any:
    """The content of a golden file; `name` is a path such as "pipeline/pairs"."""
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
