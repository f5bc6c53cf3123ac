"""The golden takes of tests/golden/pipeline as a processed data set without frames, and create_pairs.py run on it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "pipeline"
SPLITS = {
    "train": ["50a33d6e-2fe5-44aa-a16e-38964ac13e2c", "38382b7e-c92a-474e-8d3c-76d939ac7191"],
    "val": ["4674852c-dcfd-4ee1-a886-90c498eee1dd"],
    "test": ["44667a22-cc41-4b97-b865-f79f4215be35"],
}


def golden(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def write_data_set(root: Path, annotations: dict[str, dict], splits: dict[str, list[str]]) -> Path:
    """Write annotation.json of each take and split.json; returns the processed folder."""
    for uid, annotation in annotations.items():
        folder = root / "processed" / uid
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "annotation.json").write_text(json.dumps(annotation))
    (root / "split.json").write_text(json.dumps(splits))
    return root / "processed"


def create_pairs(data_dir: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "data/create_pairs.py", "--data_dir", data_dir, *flags]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)
