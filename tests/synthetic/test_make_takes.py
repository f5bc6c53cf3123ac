"""Rendered takes have the data set's layout, exact frames and masks, and depend on their options alone."""

import itertools
import json
from dataclasses import replace

import av
import numpy as np
import pytest
from pytest import approx

from common.errors import UserError
from formats.masks import decode_lzstring, decode_mask
from formats.takes import SPLITS, camera_kind, read_splits, video_path
from synthetic.make_takes import MARKER, make_takes, parse_args, parse_object_sizes
from synthetic.options import VIDEO_SIZES, TakeOptions
from synthetic.render import Picture, render
from synthetic.tabletop import EGO
from synthetic.take import TakeId, build_tabletop, encode_object_masks
from synthetic.textures import prints_of_take, twin_prints
from tests.made.raw_takes import tree

LARGE = parse_object_sizes(["0.2"])
OPTIONS = TakeOptions(seed=0, size="tiny", num_frames=98, num_exo=2, num_objects=4, object_size=LARGE, hold=15)
COUNTS = {"train": 2, "val": 1, "test": 1}
FRAMES = list(range(0, 98, 30))


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


def tracks_of(annotation):
    return [
        (number, camera, track)
        for number, cameras in enumerate(annotation["object_masks"].values())
        for camera, track in cameras.items()
    ]


def decoded(mask):
    return decode_mask({"size": [mask["height"], mask["width"]], "counts": decode_lzstring(mask["encodedMask"])})


def test_the_annotation_files_follow_the_schema_with_the_data_sets_oddities(root, raw):
    splits = read_splits(root / "split.json")
    assert {split: len(uids) for split, uids in splits.items()} == COUNTS
    cameras, names, tracks = [], [], []
    for take, annotation in raw.items():
        assert take.uid(OPTIONS) in splits[take.split]
        assert set(annotation) == {"take_name", "scenario", "object_names", "object_masks"}
        assert annotation["object_names"] == list(annotation["object_masks"])
        names += annotation["object_names"]
        cameras += [sorted(tracks) for tracks in annotation["object_masks"].values()]
        for _, camera, track in tracks_of(annotation):
            tracks.append(track)
            assert video_path(root / "takes", annotation["take_name"], camera).is_file()
            assert set(track) == {"annotation", "annotation_metadata", "annotation_fps", "annotated_frames"}
            assert {int(frame) for frame in track["annotation"]} <= set(track["annotated_frames"]) <= set(FRAMES)
            for mask in track["annotation"].values():
                assert set(mask) == {"width", "height", "encodedMask", "intSegClicks"}
                assert decoded(mask).shape == VIDEO_SIZES["tiny"][camera_kind(camera) == "exo"]
    assert all(odd in cameras for odd in ([], [EGO], ["cam02"], [EGO, "cam01"], [EGO, "cam02"]))
    assert any(list(track["annotation"]) != sorted(track["annotation"], key=int) for track in tracks)
    assert any(len(track["annotated_frames"]) < len(FRAMES) for track in tracks)  # a frame that nobody looked at
    assert any(len(track["annotation"]) < len(track["annotated_frames"]) for track in tracks)  # the object is not seen
    assert any(name.endswith("_0 ") for name in names) and any(name != name.lower() for name in names)


def test_masks_are_exactly_what_is_visible(raw):
    take = TakeId("train", 0)
    tabletop = build_tabletop(take, OPTIONS)
    pictures = {frame: tabletop.pictures(frame / 30) for frame in FRAMES}
    golden = {
        EGO: (133.6, 123.2, 128.5, 33.7),
        "cam01": (179.4, 159.3, 170.1, 45.9),
        "cam02": (141.8, 128.5, 127.4, 34.5),
    }
    for camera, picture in pictures[0].items():  # mean color, and the percentage of objects
        shown = *picture.image.mean((0, 1)), 100 * (picture.labels > 0).mean()
        assert shown == approx(golden[camera], abs=0.5)
    for number, camera, track in tracks_of(raw[take]):
        for frame in track["annotated_frames"]:
            visible = pictures[frame][camera].labels == number + 1
            mask = track["annotation"].get(str(frame))
            if visible.mean() < LARGE.least:
                assert mask is None
            else:
                np.testing.assert_array_equal(decoded(mask), visible)


def test_videos_show_the_rendered_picture_of_each_frame(root):
    take = TakeId("train", 1)
    tabletop = build_tabletop(take, OPTIONS)
    for camera in tabletop.cameras:
        with av.open(str(video_path(root / "takes", take.name, camera))) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.average_rate, stream.frames) == (30, OPTIONS.num_frames)
            frames = [frame.to_ndarray(format="bgr24").astype(int) for frame in container.decode(stream)]
        assert len(frames) == OPTIONS.num_frames
        for number in (0, 45, 90):
            image = tabletop.pictures(number / 30)[camera].image
            assert all(np.abs(frame - image).mean() < 6 for frame in frames[number : number + OPTIONS.hold])


def test_areas_are_spread_as_asked_and_real_ones_as_in_the_data_set():
    rng = np.random.default_rng(0)
    sizes = [parse_object_sizes(words) for words in (["0.001", "0.05"], ["real"])]
    asked, real = (of_words.ego * of_words.scales(rng, 10_000) ** 2 for of_words in sizes)
    assert ((asked > 0.001) & (asked < 0.05)).mean() == approx(0.9, abs=0.02)
    low, median, high = np.quantile(real, (0.05, 0.5, 0.95))
    assert sizes[1].least < 0.0001  # a twentieth of the exo masks in the data set are smaller
    assert median == approx(0.004, rel=0.1) and 40 < high / low < 100  # four takes: 0.05 to 2.5 % and more


def test_seen_only_leaves_out_what_is_almost_hidden_or_in_the_dark():
    labels = np.zeros((100, 100), np.uint8)
    labels[10:20, 10:20], labels[50:60, 50:60] = 1, 2
    colors = np.full((100, 100), 0x1C1C1C, np.uint32)
    colors[labels == 2] = 0x101010
    picture = Picture(colors, np.zeros((100, 100), np.float32), labels)
    seen = {area: [*encode_object_masks(picture, 0.001, lambda _, area=area: area)] for area in (300, 900, 1100)}
    assert seen == {300: [1], 900: [1], 1100: []}
    assert [*encode_object_masks(picture, 0.001)] == [1, 2] and not encode_object_masks(picture, 0.011)


@pytest.mark.parametrize("prints_of", [prints_of_take, twin_prints])
def test_prints_of_one_split_never_occur_in_another_nor_twice_in_a_take(prints_of):
    takes = {split: [prints_of(7, split, index, 18) for index in range(14)] for split in SPLITS}
    assert all(len(set(take)) == 18 for of_split in takes.values() for take in of_split)
    prints = [set(itertools.chain(*of_split)) for of_split in takes.values()]
    assert all(one and not one & other for one, other in itertools.combinations(prints, 2))


def test_by_default_each_object_stands_beside_one_of_its_colors_and_the_take_has_another_of_its_pattern():
    for split, index in itertools.product(SPLITS, range(9)):
        (one, *colors), (other, *same), *second_pair = twin_prints(OPTIONS.seed, split, index, OPTIONS.num_objects)
        assert colors == same and one != other and [pattern for pattern, *_ in second_pair] == [one, other]
        assert second_pair[0][1:] == second_pair[1][1:] != tuple(colors)
    world = build_tabletop(TakeId(split, index), OPTIONS)
    assert {item.name.split()[1].lower() for item in world.items} == {one, other}
    assert world.tints[EGO] != approx(world.tints["cam01"], rel=0.01)


def test_object_size_is_the_fraction_of_the_picture_that_an_object_fills():
    areas, options = [], replace(OPTIONS, object_size=parse_object_sizes(["0.05"]))
    for index in range(3):
        tabletop = build_tabletop(TakeId("train", index), options)
        for camera, view in zip(tabletop.exo_cameras, tabletop.exo_views, strict=True):
            areas += [(render(camera, [tabletop.object_solid(item, 0)]).labels > 0).mean() for item in view]
    assert np.mean(areas) == approx(0.05, rel=0.25)


def test_the_same_options_give_the_same_files_and_a_rerun_keeps_finished_takes_and_makes_the_others(
    root, tmp_path, capsys
):
    first, second = make_takes(tmp_path, {"train": 2}, OPTIONS, num_workers=1)
    before = tree(tmp_path)
    assert tree(tmp_path / "takes").items() <= tree(root / "takes").items() and len(tree(tmp_path / "takes")) == 8
    kept = video_path(tmp_path / "takes", first.name, EGO)
    time = kept.stat().st_mtime_ns
    (tmp_path / "takes" / second.name / "relations.json").unlink()  # as if stopped in between
    video = video_path(tmp_path / "takes", second.name, "cam02")
    video.unlink()
    for path in (video, tmp_path / "split.json"):  # as a killed run leaves them
        path.with_name(f".{path.name}.0123abcd.tmp").touch()
    make_takes(tmp_path, {"train": 2}, OPTIONS, 1)
    assert tree(tmp_path) == before and kept.stat().st_mtime_ns == time
    other = replace(OPTIONS, seed=1, num_frames=1)
    capsys.readouterr()
    make_takes(tmp_path, {"train": 1}, other, 1)
    replaced = f"that have other options are replaced: seed 0 -> 1, num_frames {OPTIONS.num_frames} -> 1\n"
    assert capsys.readouterr().out.endswith(replaced)
    assert kept.stat().st_mtime_ns != time
    assert read_splits(tmp_path / "split.json")["train"] == [first.uid(other)] != [first.uid(OPTIONS)]


@pytest.mark.parametrize("name", ["annotations", "split.json", "takes/kitchen"])
def test_a_folder_with_takes_of_somebody_else_is_refused(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    if "/" in name:
        (tmp_path / MARKER).write_text("{}")  # beside rendered takes
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"{name} was not made by this script; choose another --outputpath"):
        make_takes(tmp_path, COUNTS, OPTIONS, 1)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flags", ["--hold 7", "--object_size 0.9", "--object_size huge", "--num_objects 40"])
def test_options_that_cannot_be_met_are_named_in_one_line(flags, capsys):
    with pytest.raises((UserError, SystemExit)) as error:  # argparse checks what concerns one option alone
        parse_args(flags.split())
    line = str(error.value) if error.type is UserError else capsys.readouterr().err.splitlines()[-1]
    assert flags.split()[0] in line and "\n" not in line


def test_an_object_left_out_is_missing_while_all_else_stays():
    plain = build_tabletop(TakeId("train", 0), OPTIONS)
    world = build_tabletop(TakeId("train", 0), replace(OPTIONS, left_out=0.3))
    assert world.left_out[:2].any() and not world.left_out[:2].all(2).any()
    for second in range(2):
        pictures, whole = world.pictures(second), plain.pictures(second)
        for camera, missing in zip(world.cameras, world.left_out[second], strict=True):
            for label, is_missing in enumerate(missing, 1):  # what was in front of others shows them now
                mask = pictures[camera].labels == label
                assert not mask.any() if is_missing else mask[whole[camera].labels == label].all()
