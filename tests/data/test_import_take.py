"""import_take.py: the frames and masks that process_data.py extracts from its takes show the same moment.

Each picture shows its number, and a mask covers as many rows as its number says.
"""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from data import create_pairs, import_take
from formats.masks import decode_mask
from formats.processed import ProcessedTake
from tests.made.processes import run_main
from tests.made.raw_takes import process, read_frames, tree
from tests.made.videos import make_video, numbered_image

SIZE = (192, 384)
HEAD, LEFT, PHOTOS = "head", "left cam", "photos"
EGO = "aria_head"  # the head camera's name in the take
OFFSETS = {HEAD: 0, LEFT: 5, PHOTOS: 3}  # frame 0 of the head camera is frame 5 of the left one


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two videos and a folder of pictures, with masks of two cameras."""
    folder = tmp_path_factory.mktemp("inputs")
    make_video(folder / "head.mp4", 70, SIZE)
    make_video(folder / "left.mp4", 80, SIZE, options={"bf": "3"})
    (folder / "photos").mkdir()
    for number in range(70):
        cv2.imwrite(str(folder / "photos" / f"{number:04d}.jpg"), numbered_image(number, (97, 193)))
    for camera in (HEAD, LEFT):
        for number in range(OFFSETS[camera], OFFSETS[camera] + 65, 10):
            mask = np.zeros(SIZE, np.uint8)
            mask[: number + 1] = 255
            path = folder / "masks" / camera / "cup" / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask)
    return folder


def words(inputs, root, **other):
    """The command line; `other` replaces or adds options."""
    options = {
        "name": "kitchen",
        "root": root,
        "videos": [f"{HEAD}={inputs}/head.mp4", f"{LEFT}={inputs}/left.mp4", f"{PHOTOS}={inputs}/photos"],
        "masks": [f"{camera}={inputs}/masks/{camera}" for camera in (HEAD, LEFT)],
        "ego": HEAD,
        "offset": [f"{camera}={offset}" for camera, offset in OFFSETS.items()],
    } | other
    lists = ((flag, value if isinstance(value, list) else [value]) for flag, value in options.items() if value)
    return [word for flag, values in lists for word in (f"--{flag}", *values)]


def test_frames_and_masks_of_all_cameras_are_of_one_moment(inputs, tmp_path):
    done = run_main(import_take.main, *words(inputs, tmp_path))
    assert done.returncode == 0 and "kitchen: 67 frames, 14 masks" in done.stdout, done.stderr
    assert process(tmp_path, "--split", "test") == 0
    data_dir = tmp_path / "processed"
    take = ProcessedTake.read(data_dir, "kitchen")
    for camera, offset in {EGO: 0, LEFT: 5, PHOTOS: 3}.items():
        frames = read_frames(data_dir, "kitchen", camera)
        assert frames == {frame: frame + offset for frame in range(0, 70, 10) if frame < 67}
        for frame, rle in take.masks["cup"][camera].items():
            assert decode_mask(rle)[:, 0].sum() == frame + offset + 1
    assert list(take.correspondences("ego-exo")) == [("cup", EGO, LEFT), ("cup", EGO, PHOTOS)]
    assert run_main(create_pairs.main, "--data_dir", data_dir).returncode == 0


def test_only_what_does_not_fit_is_written_anew_and_copies_stay_when_the_original_is_changed_in_place(inputs, tmp_path):
    copy = shutil.copy(inputs / "left.mp4", tmp_path)
    videos = [f"{HEAD}={inputs}/head.mp4", f"{LEFT}={copy}"]
    command = words(inputs, tmp_path / "root", videos=videos, offset=f"{LEFT}=-5")
    assert run_main(import_take.main, *command).returncode == 0
    with (tmp_path / "left.mp4").open("r+b") as file:
        file.write(bytes(1000))
    folder = tmp_path / "root" / "takes" / "kitchen" / "frame_aligned_videos"
    assert (folder / f"{LEFT}.mp4").read_bytes() == (inputs / "left.mp4").read_bytes()  # it began last
    assert (folder / f"{EGO}.mp4").read_bytes() != (inputs / "head.mp4").read_bytes()


def test_the_folder_of_a_take_comes_last_so_that_a_stopped_import_is_continued_by_the_same_command(
    inputs, tmp_path, monkeypatch
):
    videos = [f"{HEAD}={inputs}/head.mp4", f"{LEFT}={inputs}/left.mp4"]
    short = {"videos": videos, "masks": f"{HEAD}={inputs}/masks/{HEAD}", "offset": []}
    done = run_main(import_take.main, *words(inputs, tmp_path, name="former", split="train", **short))
    assert done.returncode == 0 and "cup: no pairs; they need masks under this name in the --ego camera" in done.stdout
    with monkeypatch.context() as stop:
        stop.setattr(Path, "rename", Mock(side_effect=KeyboardInterrupt))
        assert run_main(import_take.main, *words(inputs, tmp_path, **short)).returncode == 130
    splits = {"train": ["former"], "val": [], "test": ["kitchen"]}
    assert json.loads((tmp_path / "split.json").read_text()) == splits and not (tmp_path / "takes" / "kitchen").exists()
    stopped = {name: content for name, content in tree(tmp_path).items() if not name.startswith("takes")}
    for said in ("kitchen: ", "kitchen is in "):
        assert run_main(import_take.main, *words(inputs, tmp_path, **short)).stdout.startswith(said)
    whole = tree(tmp_path)
    assert {name: whole[name] for name in stopped} == stopped
    assert len([name for name in whole if name.startswith("takes/kitchen/")]) == len(whole) - len(stopped) - 2 == 2


def test_a_take_that_was_deleted_by_hand_can_be_imported_again(inputs, tmp_path):
    assert run_main(import_take.main, *words(inputs, tmp_path, split="val")).returncode == 0
    assert process(tmp_path) == 0
    again = words(inputs, tmp_path, offset=[])
    for folder, what in {"processed": "holds a take; give", "takes": "exists; give"}.items():
        message = f"error: {tmp_path / folder / 'kitchen'} {what} another "  # old frames must not come to new masks
        assert message in run_main(import_take.main, *again).stderr
        shutil.rmtree(tmp_path / folder / "kitchen")
    assert run_main(import_take.main, *again).returncode == 0
    assert json.loads((tmp_path / "split.json").read_text()) == {"train": [], "val": [], "test": ["kitchen"]}


@pytest.mark.parametrize("split", ["train", "val"])  # training validates on the latter
def test_training_gets_no_moment_at_which_nobody_looked_in_the_other_camera(inputs, tmp_path, split):
    few = tmp_path / "few" / "cup"
    few.mkdir(parents=True)
    for number in (15, 35):
        shutil.copy(inputs / "masks" / LEFT / "cup" / f"{number:05d}.png", few)
    masks = [f"{HEAD}={inputs}/masks/{HEAD}", f"{LEFT}={few.parent}"]
    done = run_main(import_take.main, *words(inputs, tmp_path / "root", masks=masks, split=split))
    assert "kitchen: 67 frames, 4 masks" in done.stdout and "5 masks left out: nobody looked" in done.stdout
    annotations = json.loads((tmp_path / "root" / "annotations" / f"relations_{split}.json").read_text())["annotations"]
    tracks = annotations["kitchen"]["object_masks"]["cup"]
    assert [*tracks] == [EGO, LEFT]  # nobody looked for it in photos
    assert [list(tracks[camera]["annotation"]) for camera in (EGO, LEFT)] == [["10", "30"]] * 2


def test_a_single_mask_and_coco_are_enough(inputs, tmp_path):
    box = [10, 10, 50, 10, 50, 60, 10, 60]
    coco = {"images": [{"id": 1, "file_name": "frame_00035.png", "height": SIZE[0], "width": SIZE[1]}]}
    coco["annotations"] = [{"image_id": 1, "category_id": 2, "segmentation": [box]}]
    (tmp_path / "left.json").write_text(json.dumps(coco | {"categories": [{"id": 2, "name": "cup"}]}))
    cv2.imwrite(str(tmp_path / "cup.png"), np.ones(SIZE, np.uint8))
    masks = [f"{HEAD}={tmp_path}/cup.png", f"{LEFT}={tmp_path}/left.json"]
    done = run_main(import_take.main, *words(inputs, tmp_path / "root", masks=masks, mask_frame=30))
    assert done.returncode == 0, done.stderr
    annotations = json.loads((tmp_path / "root" / "annotations" / "relations_test.json").read_text())["annotations"]
    tracks = annotations["kitchen"]["object_masks"]["cup"]
    looked_at = {camera: track["annotated_frames"] for camera, track in tracks.items()}
    assert looked_at == {EGO: [30], LEFT: [30], PHOTOS: []}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../x"}, "--name '../x' cannot be the name of a take's folder"),
        ({"videos": ["head={}/head.mp4", "aria_2={}/left.mp4"], "offset": []}, "camera 'aria_2': only the --ego"),
        ({"ego": "nose"}, "--ego names camera 'nose'; --videos has head, left cam, photos"),
        ({"videos": "head={}/head.mp4", "offset": []}, "--videos takes two or more cameras"),
        (
            {"videos": ["head={}/head.mp4", "left={}/photos/../head.mp4"], "offset": []},
            "--videos head and left are both ",
        ),
        ({"masks": ["head={}/masks/head", "head={}/masks/left cam"]}, "--masks takes one path of each camera"),
        ({"masks": "head={}/photos/0000.jpg"}, "0000.jpg holds no masks; give a folder"),
        ({"masks": "head={}/masks/head", "offset": f"{LEFT}=80"}, "left.mp4 ends before"),
        ({"masks": "head={}/masks/head", "offset": [f"{HEAD}=69"]}, "no mask shows an object in a frame that all"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_nothing_is_written(inputs, tmp_path, options, message):
    def fill(value):
        return [text.format(inputs) for text in value] if isinstance(value, list) else str(value).format(inputs)

    options = {"masks": f"{HEAD}={inputs}/masks/{HEAD}"} | {flag: fill(value) for flag, value in options.items()}
    done = run_main(import_take.main, *words(inputs, tmp_path / "root", **options))
    assert done.returncode == 1 and done.stderr.count("error:") == 1
    assert message in done.stderr
    assert not (tmp_path / "root").exists()
