"""Rendered takes have the data set's layout, exact frames and masks, and depend on their options alone."""

import itertools
import json
from dataclasses import replace
from functools import partial

import av
import numpy as np
import pytest
from pytest import approx

from common.errors import UserError
from formats.masks import decode_lzstring, decode_mask
from formats.takes import SPLITS, camera_kind, read_splits, video_path
from synthetic.make_takes import make_takes, object_sizes, parse_args
from synthetic.options import REAL, VIDEO_SIZES, TakeOptions
from synthetic.render import render
from synthetic.tabletop import EGO
from synthetic.take import TakeId, build_tabletop, without_unseen
from synthetic.textures import deal_prints, deal_solids
from tests.made.raw_takes import tree

LARGE = object_sizes(["0.2"])
OPTIONS = TakeOptions(seed=0, size="tiny", num_frames=158, num_exo=2, num_objects=4, object_size=LARGE, hold=15)
COUNTS = {"train": 4, "val": 2, "test": 1}
FRAMES = list(range(0, 158, 30))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("generated") / "egoexo"
    make_takes(out, COUNTS, OPTIONS, num_workers=2)
    return out


@pytest.fixture(scope="module")
def raw(root):
    """Annotations of all splits by take id."""
    files = {split: json.loads((root / "annotations" / f"relations_{split}.json").read_text()) for split in SPLITS}
    takes = [TakeId(split, index) for split in SPLITS for index in range(COUNTS[split])]
    return {take: files[take.split]["annotations"][take.uid(OPTIONS)] for take in takes}


def tracks_of(raw):
    return [
        (take, number, camera, track)
        for take, annotation in raw.items()
        for number, cameras in enumerate(annotation["object_masks"].values())
        for camera, track in cameras.items()
    ]


def decoded(mask):
    return decode_mask({"size": [mask["height"], mask["width"]], "counts": decode_lzstring(mask["encodedMask"])})


def test_the_annotation_files_follow_the_schema(root, raw):
    splits = read_splits(root / "split.json")
    assert {split: len(uids) for split, uids in splits.items()} == COUNTS
    for take, annotation in raw.items():
        assert take.uid(OPTIONS) in splits[take.split]
        assert set(annotation) == {"take_name", "scenario", "object_names", "object_masks"}
        assert annotation["object_names"] == list(annotation["object_masks"])
        for camera in {camera for _, _, camera, _ in tracks_of({take: annotation})}:
            assert video_path(root / "takes", annotation["take_name"], camera).is_file()
    for _, _, camera, track in tracks_of(raw):
        assert set(track) == {"annotation", "annotation_metadata", "annotation_fps", "annotated_frames"}
        assert track["annotation_fps"] == 1
        assert {int(frame) for frame in track["annotation"]} <= set(track["annotated_frames"]) <= set(FRAMES)
        for mask in track["annotation"].values():
            assert set(mask) == {"width", "height", "encodedMask", "intSegClicks"}
            assert decoded(mask).shape == VIDEO_SIZES["tiny"][camera_kind(camera) == "exo"]


def test_the_data_sets_oddities_occur_and_objects_leave_the_view_of_both_kinds_of_camera(raw):
    cameras = [sorted(c) for annotation in raw.values() for c in annotation["object_masks"].values()]
    assert [] in cameras
    assert [EGO] in cameras
    assert ["cam01"] in cameras or ["cam02"] in cameras
    assert [EGO, "cam01", "cam02"] in cameras
    assert sum(len(c) == 2 for c in cameras) > len(cameras) / 2  # most: ego and exactly one exo
    tracks = [track for _, _, _, track in tracks_of(raw)]
    negatives = [camera_kind(c) for _, _, c, t in tracks_of(raw) if len(t["annotation"]) < len(t["annotated_frames"])]
    assert set(negatives) == {"ego", "exo"}
    assert any(list(t["annotation"]) != sorted(t["annotation"], key=int) for t in tracks)
    assert any(len(t["annotated_frames"]) < len(FRAMES) for t in tracks)  # a frame that nobody looked at
    names = [name for annotation in raw.values() for name in annotation["object_names"]]
    assert any(name.endswith("_0 ") for name in names) and any(" _0" in name for name in names)
    assert any("_" not in name for name in names) and any(name != name.lower() for name in names)


def test_masks_are_exactly_what_is_visible(raw):
    for take in (TakeId("train", 0), TakeId("val", 1)):
        tabletop = build_tabletop(take, OPTIONS)
        pictures = {frame: tabletop.pictures(frame / 30) for frame in FRAMES}
        for _, number, camera, track in tracks_of({take: raw[take]}):
            for frame in track["annotated_frames"]:
                visible = pictures[frame][camera].labels == number + 1
                mask = track["annotation"].get(str(frame))
                if visible.mean() < LARGE.least:
                    assert mask is None
                else:
                    np.testing.assert_array_equal(decoded(mask), visible)


def test_videos_show_the_rendered_picture_of_each_frame(root, raw):
    take = TakeId("train", 1)
    tabletop = build_tabletop(take, OPTIONS)
    for camera in tabletop.cameras:
        with av.open(str(video_path(root / "takes", take.name, camera))) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.average_rate, stream.frames) == (30, OPTIONS.num_frames)
            for number, frame in enumerate(container.decode(stream)):
                if number % OPTIONS.hold == 0:
                    image = tabletop.pictures(number / 30)[camera].image
                    assert np.abs(frame.to_ndarray(format="bgr24").astype(int) - image).mean() < 6, (camera, number)
            assert number == OPTIONS.num_frames - 1


def prints_of(split):
    return {design for index in range(100) for design in deal_prints(7, split, index, 4)}


def test_prints_of_one_split_never_occur_in_another():
    for one, other in itertools.combinations(map(prints_of, SPLITS), 2):
        assert one and not one & other


@pytest.mark.parametrize("count", [1, 4, 18])
def test_objects_of_one_take_are_told_apart_by_name_and_print(count):
    for index in range(2):
        items, _ = deal_solids(3, "val", index, count, 0)
        assert len({item.name for item in items}) == len({item.parts[0].texture.tobytes() for item in items}) == count
        colors = {color for item in items for color in item.name.lower().split()[0].split("-")}
        assert count > 4 or len(colors) == 2 * count


@pytest.mark.parametrize("object_size", [0.01, 0.05, 0.2])
def test_object_size_is_the_fraction_of_the_picture_that_an_object_fills(object_size):
    areas, options = [], replace(OPTIONS, object_size=object_sizes([str(object_size)]))
    for index in range(6):
        tabletop = build_tabletop(TakeId("train", index), options)
        for k, view in enumerate(tabletop.exo_views):
            labels = tabletop.pictures(0.0)[f"cam{k + 1:02d}"].labels
            areas += [(labels == item + 1).mean() for item in view]
    assert np.mean(areas) == approx(object_size, rel=0.25)


def test_clutter_hides_objects_and_is_never_outlined():
    options = replace(OPTIONS, object_size=REAL, clutter=24)
    plain, full = (build_tabletop(TakeId("val", 1), replace(options, clutter=count)) for count in (0, 24))
    assert len(full.clutter) > 12 and not plain.clutter and not any(solid.label for solid in full.clutter)
    one, other = (tabletop.pictures(1.0) for tabletop in (plain, full))
    for camera in plain.cameras:
        labels = other[camera].labels
        assert (one[camera].labels[labels > 0] == labels[labels > 0]).all()  # the objects stand where they stood
        assert (one[camera].colors != other[camera].colors).mean() > 0.002


def test_the_same_options_give_the_same_files_in_one_process_or_several(root, tmp_path):
    make_takes(tmp_path, {"train": 1, "val": 1, "test": 0}, OPTIONS, num_workers=1)
    again, first = tree(tmp_path / "takes"), tree(root / "takes")
    assert again.items() <= first.items() and len(again) == 2 * len(first) / 7


def test_a_rerun_keeps_finished_takes_and_makes_the_others(tmp_path):
    out, counts, options = tmp_path / "out", {"train": 2, "val": 0, "test": 0}, replace(OPTIONS, num_frames=31)
    first, second = make_takes(out, counts, options, 1)
    before = tree(out)
    kept = video_path(out / "takes", first.name, EGO)
    time = kept.stat().st_mtime_ns
    (out / "takes" / second.name / "relations.json").unlink()  # as if stopped in between
    video = video_path(out / "takes", second.name, "cam02")
    video.unlink()
    for path in (video, out / "split.json"):  # as a killed run leaves them
        path.with_name(f".{path.name}.0123abcd.tmp").touch()
    make_takes(out, counts, options, 1)
    assert tree(out) == before and kept.stat().st_mtime_ns == time
    make_takes(out, counts, replace(options, seed=1), 1)
    assert kept.stat().st_mtime_ns != time


def test_a_folder_with_takes_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(UserError, match="holds takes that this script did not make; choose another --outputpath"):
        make_takes(tmp_path, COUNTS, OPTIONS, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["annotations"]
    (tmp_path / "annotations").rmdir()
    make_takes(tmp_path, {"test": 0}, OPTIONS, 1)
    (tmp_path / "takes" / "kitchen").mkdir(parents=True)  # imported since
    with pytest.raises(UserError, match="holds takes that this script did not make"):
        make_takes(tmp_path, COUNTS, OPTIONS, 1)


@pytest.mark.parametrize(
    "flags",
    [
        *("--hold 7", "--object_size 0.9", "--object_size huge", "--num_objects 40", "--blur 1000000", "--blur inf"),
        *("--num_frames 10000000", "--num_train 1000000"),
    ],
)
def test_options_that_cannot_be_met_are_named_in_one_line(flags, capsys):
    with pytest.raises((UserError, SystemExit)) as error:  # argparse checks what concerns one option alone
        parse_args(flags.split())
    line = str(error.value) if error.type is UserError else capsys.readouterr().err.splitlines()[-1]
    assert flags.split()[0] in line and "\n" not in line


def test_an_object_left_out_is_missing_while_all_else_stays():
    take, seconds = TakeId("train", 0), range(2)
    plain = build_tabletop(take, OPTIONS)
    world = build_tabletop(take, replace(OPTIONS, left_out=0.3))
    left_out = world.left_out[: len(seconds)]
    assert left_out.any() and not left_out.all(2).any()
    for second in seconds:
        for camera, missing in zip(world.cameras, left_out[second], strict=True):
            picture, whole = (x.pictures(second)[camera] for x in (world, plain))
            labels = 1 + np.flatnonzero(missing)
            assert not np.isin(picture.labels, labels).any()
            for label in range(1, 5):  # what was in front of others shows them now
                if label not in labels:
                    assert (picture.labels == label)[whole.labels == label].all()
            if not missing.any():
                np.testing.assert_array_equal(picture.image, whole.image)


def test_odd_cameras_are_fixed_or_turned_or_gray():
    worlds = [build_tabletop(TakeId("train", k), replace(OPTIONS, odd_cameras=1)) for k in range(12)]
    fixed = [w for w in worlds if (w.ego_camera(0).position == w.ego_camera(1.5).position).all()]
    turned = [w for w in worlds if abs(w.rolls).max() > 0.5]
    gray = [w for w in worlds if any(np.ptp(p.image, axis=2).max() == 0 for p in w.pictures(0).values())]
    assert all(0 < len(kind) < len(worlds) for kind in (fixed, turned, gray))
    for world in fixed:  # as closely as an exo camera, at its objects
        pixels, depth = world.ego_camera(0).project(world.places[world.exo_views[0]])
        exo = world.exo_cameras[0].project(world.places[world.exo_views[0]])[1]
        assert (pixels > 0).all() and (pixels < 192).all() and (depth / exo > 0.6).all() and (depth / exo < 1.3).all()


def test_touching_objects_stand_box_to_box_in_pairs():
    world = build_tabletop(TakeId("train", 0), replace(OPTIONS, touching=True))
    for left, right in ((0, 1), (2, 3)):
        (x, y, _), (other_x, other_y, _) = world.places[left], world.places[right]
        widths = world.items[left].half_axes[0] + world.items[right].half_axes[0]
        assert other_x - x == pytest.approx(widths) and other_y == y
    assert not world.yaws.any()


def test_takes_of_other_options_have_other_names():
    others = [replace(OPTIONS, seed=1), replace(OPTIONS, left_out=0.3), replace(OPTIONS, touching=True)]
    assert len({TakeId("train", 0).uid(options) for options in (OPTIONS, *others)}) == 4


def test_real_sizes_are_those_of_the_data_set_and_what_an_annotator_would_not_see_is_not_outlined():
    options = replace(OPTIONS, object_size=REAL, num_objects=6, clutter=24, seen_only=True)
    slivers, areas = 0, {"ego": [], "exo": []}
    for index in range(6):
        tabletop = build_tabletop(TakeId("train", index), options)
        for camera, picture in tabletop.pictures(1.0).items():
            outlined = without_unseen(picture, partial(tabletop.outline_area, camera, 1.0))
            for label in np.unique(picture.labels[picture.labels > 0]):
                mask = picture.labels == label
                areas[camera_kind(camera)] += [100 * mask.mean()] if mask.mean() >= REAL.least else []
                alone = render(tabletop.camera(camera, 1.0), tabletop.object_solids(label - 1, 1.0))
                whole = (alone.labels == label).sum()  # in the picture, where an edge can cut it, too
                assert (outlined[mask] == label).all() or not outlined[mask].any()
                if mask.sum() < 0.08 * whole:
                    assert not outlined[mask].any()
                    slivers += 1
                elif not is_cut(alone.labels) and mask.sum() > 0.12 * whole:
                    assert outlined[mask].all()
            picture.channels[:] = picture.channels // 12  # night falls
            assert not without_unseen(picture, lambda _: 1).any()
    assert slivers
    ego, exo = (np.quantile(areas[kind], (0.25, 0.75)) for kind in ("ego", "exo"))
    assert 0.01 < exo[0] < 0.06 and 0.15 < exo[1] < 0.45
    assert 0.08 < ego[0] < 0.25 and 0.5 < ego[1] < 1.9


def is_cut(labels):
    return any(labels[edge].any() for edge in (0, -1)) or any(labels[:, edge].any() for edge in (0, -1))
