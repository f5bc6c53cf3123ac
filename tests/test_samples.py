"""assets/samples: pairs and a video to try."""

import re

import pytest

from formats.footage import open_footage
from formats.mask_files import find_masks
from formats.mask_pictures import read_mask
from formats.masks import decode_mask
from formats.picture_files import read_picture
from tests.made import ROOT

SAMPLES = ROOT / "assets" / "samples"
PAIRS = sorted(path.parent.name for path in SAMPLES.glob("*/query.jpg"))
README = (SAMPLES / "README.md").read_text()
ABSENT = {"cup"}


@pytest.mark.parametrize("folder", PAIRS)
def test_each_pair_has_its_pictures_and_their_masks(folder):
    for view in ("query", "target"):
        image = read_picture(SAMPLES / folder / f"{view}.jpg")
        mask = read_mask(SAMPLES / folder / f"{view}_mask.png")
        assert mask.shape == image.shape[:2] and max(mask.shape) <= 960
        assert mask.any() != (folder in ABSENT and view == "target") and not mask.all()


@pytest.mark.parametrize("folder", sorted(path.name for path in SAMPLES.iterdir() if path.is_dir()))
def test_each_sample_has_a_license(folder):
    (entry,) = re.findall(rf"^\* `{folder}/`:(.*?)(?=^\* |\Z)", README, re.MULTILINE | re.DOTALL)
    assert re.search("license|permission", entry, re.IGNORECASE)
    for text in re.findall(r"\]\((\w+/LICENSE)\)", entry):
        assert "Copyright" in (SAMPLES / text).read_text()


def test_samples_are_small():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 1_500_000


@pytest.mark.parametrize("camera", ["cam1", "cam2", "cam3", "cam4"])
def test_each_frame_of_the_video_has_its_mask(camera):
    video = open_footage(SAMPLES / "cap" / f"{camera}.mp4")
    masks = find_masks([SAMPLES / "cap" / f"{camera}.json"])
    assert list(masks.objects["cap"]) == list(range(len(video.numbers)))
    for frame in masks.objects["cap"]:
        share = decode_mask(masks.read("cap", frame, video.size)).mean()
        assert 0.0005 < share < 0.01
