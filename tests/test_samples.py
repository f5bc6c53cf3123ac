"""assets/samples: pairs to try."""

import re

import pytest

from formats.mask_pictures import read_mask
from formats.picture_files import read_picture
from tests.made import ROOT

SAMPLES = ROOT / "assets" / "samples"
FOLDERS = sorted(path.name for path in SAMPLES.iterdir() if path.is_dir())
README = (SAMPLES / "README.md").read_text()
ABSENT = {"cup"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_sample_has_its_pictures_their_masks_and_a_license(folder):
    for view in ("query", "target"):
        image = read_picture(SAMPLES / folder / f"{view}.jpg")
        mask = read_mask(SAMPLES / folder / f"{view}_mask.png")
        assert mask.shape == image.shape[:2] and max(mask.shape) <= 960
        assert mask.any() != (folder in ABSENT and view == "target") and not mask.all()
    (entry,) = re.findall(rf"^\* `{folder}/`:(.*?)(?=^\* |\Z)", README, re.MULTILINE | re.DOTALL)
    assert re.search("license|permission", entry, re.IGNORECASE)
    for text in re.findall(r"\]\((\w+/LICENSE)\)", entry):
        assert "Copyright" in (SAMPLES / text).read_text()


def test_samples_are_small():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 1_000_000
