import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest

import data.extraction
from common.errors import warn_once
from data import check_processed, process_data
from data.process_data import claim_data_dir
from formats.frame_files import PACK, frame_bytes, frame_path, frames_of
from formats.pairs import open_pairs
from formats.pairs_file import listing_path
from formats.processed import ProcessedTake, is_processed
from tests.made import EGO, ROOT
from tests.made.processed import create_pairs
from tests.made.processes import claimed_elsewhere, killed_at, run_main, wait_for_the_end
from tests.made.raw_takes import (
    CAMERAS,
    EXO_1,
    EXO_2,
    NAMES,
    RAW_SPLITS,
    SIZE,
    TRACKS,
    assert_complete,
    expected_masks,
    failures,
    process,
    read_annotations,
    read_frames,
    tree,
    video,
    write_annotations,
)
from tests.made.videos import make_video

A, B, C = RAW_SPLITS["train"] + RAW_SPLITS["val"]


@pytest.fixture
def root(original, tmp_path):
    """A copy of the takes, to break something in."""
    warn_once.cache_clear()
    shutil.copytree(original, tmp_path / "data")
    return tmp_path / "data"


# What it makes of whole takes


def test_every_frame_and_mask_of_whole_takes_arrives_and_a_rerun_touches_nothing(root, capsys):
    assert process(root) == 0
    for uid in (A, B, C):
        assert_complete(root / "processed", uid)
    assert failures(root / "processed") == []
    out = capsys.readouterr().out
    assert "train: 2 of 2 takes complete, 0 in part, 0 left out" in out and "val: 1 of 1 take complete" in out
    times = {path: path.stat().st_mtime_ns for path in (root / "processed").rglob("[!.f]*.*")}
    for path in root.glob("takes/*/*/*.mp4"):
        os.utime(path, (1, 1))  # as if the videos were copied without their times
    assert process(root) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_ego_frames_are_halved_and_exo_frames_quartered_unless_more_detail_is_asked_for(original, tmp_path, capsys):
    root = tmp_path
    sizes = {EGO: ((1408, 1408), 2), EXO_1: ((2160, 2240), 4), EXO_2: ((1920, 1080), 2)}
    for camera, (size, _) in sizes.items():
        make_video(video(root, NAMES[C], camera), 2, size, options={"preset": "ultrafast"})
    take = read_annotations(original, "val")[C]
    take["object_masks"] = {"cup": {camera: {"annotation": {}} for camera in sizes}}
    write_annotations(root, "val", {C: take})
    shutil.copy(original / "split.json", root)
    details = {detail: root / f"detail_{detail}" for detail in (1, 2, 4)}
    for detail, folder in details.items():
        process(root, "--split", "val", "--outputpath", folder, "--detail", detail)
    for camera, ((height, width), factor) in sizes.items():
        with av.open(str(video(root, NAMES[C], camera))) as container:
            image = next(container.decode(video=0)).to_ndarray(format="bgr24")
        for detail, folder in details.items():
            size = (width // max(1, factor // detail), height // max(1, factor // detail))
            encoded = cv2.imencode(".jpg", cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))[1].tobytes()
            assert (folder / C / camera / "0.jpg").read_bytes() == encoded
    assert json.loads((details[1] / "videos.json").read_text()) == {"videos": "full size"}
    assert process(root, "--split", "val", "--outputpath", details[2], "--detail", 4) == 1
    assert "made of videos full size, detail 2, not full size, detail 4;" in capsys.readouterr().err.splitlines()[-1]
    assert process(root, "--split", "val", "--detail", 2, "--downscaled") == 1


def test_a_take_without_a_head_worn_cameras_name_says_what_to_do(root):
    write_annotations(root, "val", json.loads(json.dumps(read_annotations(root, "val")).replace(EGO, "headcam")))
    assert process(root, "--split", "val") == 1
    (reason,) = (row["reason"] for row in failures(root / "processed"))
    assert "(cam01, gp02, headcam) begins with aria" in reason and "data/import_take.py" in reason


def test_downscaled_videos_are_read_by_a_flag_and_keep_their_size(root, capsys):
    folder = video(root, NAMES[C], EGO).parent / "downscaled" / "448"
    for camera in CAMERAS:
        make_video(folder / f"{camera}.mp4", 95, (224, 448), options={"preset": "ultrafast"})
    assert process(root, "--downscaled", "--split", "val") == 0
    assert_complete(root / "processed", C)
    assert cv2.imread(str(root / "processed" / C / EXO_1 / "90.jpg")).shape == (224, 448, 3)
    assert process(root, "--split", "val") == 1  # frames of both are not mixed
    assert "was made of videos downscaled/448, not" in capsys.readouterr().err.splitlines()[-1]


def test_the_first_of_two_kinds_of_frames_claims_the_folder_before_it_has_any(root, capsys):
    claim_data_dir(root / "processed", downscaled=False, detail=2)  # by another job, which is about to write its frames
    assert process(root, "--split", "val") == 1
    error, path = capsys.readouterr().err, root / "processed" / "videos.json"
    assert error.endswith(f"the same --downscaled and --detail; if it has no frames, delete {path}\n")
    path.unlink()
    assert process(root, "--split", "val") == 0


def test_takes_can_be_named_whatever_split_holds_them(root, capsys):
    assert process(root, "--uids", C, B) == 0
    assert {path.name for path in (root / "processed").glob("uid-*")} == {B, C}
    shutil.rmtree(root / "takes" / NAMES[A])
    assert process(root, "--uids", A) == 0  # withdrawn
    assert {row["take_uid"] for row in failures(root / "processed")} == {A}
    assert process(root, "--uids", A, "--split", "val") == 1
    assert f"no take {A} in val of {root / 'split.json'}" in capsys.readouterr().err


def test_shards_divide_the_takes_and_together_do_what_one_run_does(root, undisturbed):
    out = root / "processed"
    for number in range(1, 5):  # more shards than takes of a split
        assert process(root, "--shard", f"{number}/4") == 0
        assert len(list(out.glob("uid-*"))) == min(number + 1, 3)  # each shard takes its part of train and of val
    assert tree(out) == undisturbed


def test_a_split_from_elsewhere_goes_along_so_that_the_later_stages_find_it(root, tmp_path, capsys):
    split = (root / "split.json").rename(tmp_path / "my_split.json")
    assert process(root, "--split_path", split) == 0
    assert create_pairs(root / "processed").returncode == 0
    assert len(list((root / "processed").glob("*_pairs.npz"))) == 2
    split.write_text(json.dumps({"train": [A]}))
    capsys.readouterr()
    assert process(root, "--split_path", split) == 0  # a training may use what is there
    assert f"warning: {root / 'processed' / 'split.json'} is another split and stays" in capsys.readouterr().err
    assert json.loads((root / "processed" / "split.json").read_text()) == RAW_SPLITS


# A rerun, and a kill at any moment


def test_a_rerun_replaces_lost_frames_removes_leftovers_and_follows_a_changed_annotation(root, undisturbed):
    assert process(root) == 0
    out = root / "processed"
    (out / A / EGO / "30.jpg").unlink()
    (out / A / EXO_1 / "0.jpg").unlink()
    (out / B / "annotation.json").write_text("{")
    shutil.rmtree(out / C / EXO_1)
    for leftover in (".annotation.json", ".failed.json", f"{EGO}/.30.jpg", "../.videos.json"):
        (out / A / f"{leftover}.0123abcd.tmp").write_bytes(b"left by a killed run")
    assert process(root) == 0
    assert tree(out) == undisturbed


def digest_of(data_dir, uid):
    store = open_pairs([data_dir], "val", "ego-exo").store
    return store.digest(store.takes.index(uid))


def frames_by_camera(folder):
    """The bytes of each frame of a take, packed or not."""
    frames = {camera: sorted(sizes) for camera, sizes in frames_of(folder).items()}
    return {camera: [frame_bytes(frame_path(folder / camera, n)) for n in frames[camera]] for camera in frames}


def replace_annotation(root):
    annotations = read_annotations(root, "val")
    masks = annotations[C]["object_masks"]["cup _0"][EXO_1]["annotation"]
    masks["60"] = masks["45"] = masks["90"]  # another mask of the same frame, and a further frame
    write_annotations(root, "val", annotations)


def replace_video(root):
    make_video(video(root, NAMES[C], EXO_1), 95, SIZE, options={"crf": "45"})


ANNOTATION, VIDEO = (replace_annotation, "annotation"), (replace_video, f"{EXO_1}.mp4")


@pytest.mark.parametrize(
    ("replace", "what", "kept", "pack"),
    [(*ANNOTATION, f"{EGO}/0.jpg", ()), (*VIDEO, f"{EGO}/0.jpg", ()), (*ANNOTATION, PACK, ["--pack"])],
)
def test_what_is_of_a_replaced_annotation_or_video_is_named_and_made_anew(
    root, tmp_path, capsys, replace, what, kept, pack
):
    assert process(root, *pack) == 0
    out = root / "processed"
    before = digest_of(out, C)
    assert create_pairs(out).returncode == 0
    pairs, made_at = listing_path(out, "val"), (out / C / kept).stat().st_mtime_ns
    replace(root)
    check = run_main(check_processed.main, "--data_dir", out, "--num_workers", 1)
    changed = f"take {C}: its annotation has changed since it was processed; run data/process_data.py --uids {C}"
    assert (changed in check.stdout) == check.returncode == (what == "annotation")
    assert process(root) == 0
    assert f"warning: take {C} ({NAMES[C]}): {what} changed since it was processed" in capsys.readouterr().err
    assert (out / C / kept).stat().st_mtime_ns == made_at
    assert process(root, *pack) == 0
    assert process(root, "--outputpath", tmp_path / "new", "--split_path", root / "split.json", *pack) == 0
    assert tree(out / C) == tree(tmp_path / "new" / C)
    capsys.readouterr()
    assert digest_of(out, C) != before  # by which predictions notice
    said = capsys.readouterr().err
    if what == "annotation":
        assert re.search(f"{pairs} is out of date: .*{C}/annotation.json has changed; the pairs", said)


@pytest.mark.parametrize("pack", [(), ("--pack",)], ids=["loose", "packed"])
def test_a_run_killed_at_any_file_event_after_a_replacement_is_continued_to_the_same_bytes(root, pack):
    words = "--takepath", root / "takes", "--num_workers", 1, "--uids", C, *pack
    assert process(root, "--uids", C, *pack) == 0
    former = shutil.copytree(root / "processed", root / "former")
    assert (former / C / EGO).exists() == (not pack)
    replace_annotation(root)
    replace_video(root)
    new = root / "new"
    assert process(root, "--uids", C, "--outputpath", new, "--split_path", root / "split.json", *pack) == 0
    for event in range(0, 200, 5):  # at 0 it runs undisturbed
        shutil.rmtree(root / "processed")
        shutil.copytree(former, root / "processed")
        killed = killed_at(event, root / "processed", process_data.main, *words)
        if is_processed(root / "processed", C):  # then all frames of its pairs are there
            there = frames_of(root / "processed" / C)
            needed = ProcessedTake.read(root / "processed", C).needed_frames()
            assert all(there[camera].keys() >= needed[camera] for camera in needed), event
        assert process(root, "--uids", C, *pack) == 0
        assert tree(root / "processed" / C) == tree(new / C), event
        if event and not killed:
            break
    assert event > 20


@pytest.mark.parametrize("deleted", ["takes/*", "takes/*/*/cam01.mp4"])
def test_what_was_made_of_videos_that_were_deleted_afterwards_stays(root, deleted, capsys):
    video(root, NAMES[B], EXO_2).unlink()
    process(root)
    before = tree(root / "processed")
    for path in root.glob(deleted):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    replace_annotation(root)
    assert process(root) == 0
    assert tree(root / "processed") == before
    check = run_main(check_processed.main, "--data_dir", root / "processed", "--num_workers", 1)
    assert f"run data/process_data.py --uids {C}, which needs the videos of {NAMES[C]}\n" in check.stdout
    folder = video(root, NAMES[C], EXO_1).parent
    remedy = f"put its videos, which are gone, back into {folder} and run this again"
    assert f"annotation changed since it was processed; it stays as it was: {remedy}" in capsys.readouterr().err


def start(root):
    command = [sys.executable, ROOT / "data/process_data.py", "--takepath", root / "takes", "--num_workers", "2"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps to see processes")
def test_a_killed_run_leaves_no_process_and_a_rerun_gives_the_same_bytes(root, undisturbed):
    run = start(root)
    deadline = time.monotonic() + 300
    while len(list((root / "processed").glob("*/*/*.jpg"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    run.kill()
    run.communicate(timeout=300)
    wait_for_the_end(run)
    assert process(root) == 0
    assert tree(root / "processed") == undisturbed


def test_a_second_run_waits_for_the_first_and_two_processes_give_the_same_bytes_as_one(root, undisturbed):
    with claimed_elsewhere(root / "processed", "process_data_1_of_1"):
        run = start(root)
        assert run.stderr.readline().startswith("waiting for another process, which processes takes into ")
        assert not list((root / "processed").glob("uid-*"))
    out, error = run.communicate(timeout=300)
    assert (run.returncode, error) == (0, "") and "train: 2 of 2 takes complete" in out  # a log gets no bar
    assert tree(root / "processed") == undisturbed


def test_a_run_waits_for_another_one_that_makes_the_same_take_and_then_finds_it_made(root, undisturbed):
    temporary = root / "processed" / B / EGO / ".0.jpg.0123abcd.tmp"
    temporary.parent.mkdir(parents=True)
    with claimed_elsewhere(root / "processed", B):
        temporary.touch()  # the other run writes a frame
        run = start(root)
        waiting = f"waiting for another process, which processes take {B} ({root / 'processed' / f'.{B}.lock'})\n"
        assert run.stderr.readline() == waiting and temporary.exists()
    assert run.communicate(timeout=300)[1] == "" and run.returncode == 0
    assert tree(root / "processed") == undisturbed


@pytest.mark.parametrize("pack", [(), ("--pack",)], ids=["loose", "packed"])
def test_frames_of_a_video_that_is_gone_outlive_other_damage(root, pack):
    """Nothing can make them again."""
    assert process(root, "--uids", C, *pack) == 0
    before, out = frames_by_camera(root / "processed" / C), root / "processed" / C
    video(root, NAMES[C], EXO_2).unlink()
    replace_video(root)
    (out / "annotation.json").write_text("{")
    assert process(root, "--uids", C, *pack) == 0
    after = frames_by_camera(out)
    assert [after[camera] == before[camera] for camera in (EGO, EXO_1, EXO_2)] == [True, False, True]


def test_a_packing_killed_at_any_file_event_leaves_every_frame_and_the_same_command_ends_it(root):
    words = "--takepath", root / "takes", "--num_workers", 1, "--uids", C, "--pack"
    assert process(root, "--uids", C) == 0
    former, whole = shutil.copytree(root / "processed", root / "former"), None
    for event in range(0, 200, 5):  # at 0 it runs undisturbed
        shutil.rmtree(root / "processed")
        shutil.copytree(former, root / "processed")
        killed = killed_at(event, root / "processed", process_data.main, *words)
        assert frames_by_camera(root / "processed" / C) == frames_by_camera(former / C), event
        assert process(root, "--uids", C, "--pack") == 0
        whole = whole or tree(root / "processed")
        assert tree(root / "processed") == whole, event
        if event and not killed:
            break
    assert event > 20 and "uid-c/frames.zip" in whole and not [name for name in whole if name.endswith(".jpg")]


# What can be wrong with the data


def remake(camera, num_frames, size=SIZE):
    return lambda root: make_video(video(root, NAMES[A], camera), num_frames, size)


def annotate(raw):
    return lambda root: write_annotations(root, "train", read_annotations(root, "train") | {A: raw})


def unannotate(root):
    write_annotations(root, "train", {B: read_annotations(root, "train")[B]})


def replace_mask(encoded):
    def do(root):
        takes = read_annotations(root, "train")
        takes[A]["object_masks"]["cup _0"][EXO_1]["annotation"]["60"]["encodedMask"] = encoded
        write_annotations(root, "train", takes)

    return do


def cut_off_behind_the_index(root):
    path = make_video(video(root, NAMES[A], EXO_1), 95, SIZE, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def add_noise(root):
    path = video(root, NAMES[A], EGO)
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    size = (content.index(b"moov") - start) // 2
    noise = np.random.default_rng(0).bytes(size)
    path.write_bytes(content[: start + size // 2] + noise + content[start + size // 2 + size :])


def assert_fails(root, *patterns):
    """All failures are of take A, and their camera, kind and reason match the patterns."""
    rows = failures(root / "processed")
    assert {row["take_uid"] for row in rows} == {A}
    lines = [f"{row['camera']} {row['kind']} {row['reason']}" for row in rows]
    assert all(re.match(pattern, line) for line, pattern in zip(lines, patterns, strict=True)), lines


NO_EGO = "None missing no usable ego video"
DISASTERS = {  # what is done to take A, its failures, the cameras that it loses; with the ego camera goes the take
    "no exo video": (lambda root: video(root, NAMES[A], EXO_1).unlink(), ["cam01 missing no file .*mp4$"], {EXO_1}),
    "cut off at 3/4": (cut_off_behind_the_index, [r"cam01 broken .* is cut off or damaged: \d+ of 95 frames"], {EXO_1}),
    "noise in ego": (add_noise, [f"{EGO} broken .* is damaged.* of 95", NO_EGO], {EGO}),
    "on its side": (remake(EXO_1, 95, SIZE[::-1]), ["cam01 broken .* 96x192, masks of its camera are 192x96"], {EXO_1}),
    "no annotation": (unannotate, ["None missing .*/relations_train.json does not annotate it"], {*CAMERAS}),
    "empty annotation": (annotate({}), ["None broken the annotation of take uid-a is malformed"], {*CAMERAS}),
}


@pytest.mark.parametrize("name", DISASTERS)
def test_a_bad_video_or_annotation_costs_its_camera_or_take_only_until_it_is_mended(root, original, undisturbed, name):
    (do, patterns, lost), out = DISASTERS[name], root / "processed"
    do(root)
    assert process(root) == any(" broken " in pattern for pattern in patterns)  # another download will help
    assert_fails(root, *patterns)
    if EGO in lost:
        assert {path.name for path in (out / A).iterdir()} - {"source.json"} == {"failed.json", *CAMERAS} - lost
    else:
        assert_complete(out, A, without=lost)
    assert_complete(out, B)
    assert_complete(out, C)
    shutil.copytree(original, root, dirs_exist_ok=True)
    assert process(root) == 0
    assert tree(out) == undisturbed


def test_videos_are_read_again_only_where_one_may_have_been_mended(root, monkeypatch):
    read, index_video = [], data.extraction.index_video
    monkeypatch.setattr(data.extraction, "index_video", lambda path: read.append(path) or index_video(path))
    video(root, NAMES[A], EXO_1).unlink()  # withdrawn
    video(root, NAMES[C], EGO).unlink()
    make_video(video(root, NAMES[B], EXO_2), 70, SIZE)
    process(root)
    before = tree(root / "processed")
    read.clear()
    process(root)
    assert read == [video(root, NAMES[C], EGO)]  # to see whether it is there again
    assert tree(root / "processed") == before


def test_a_damaged_record_of_a_take_costs_this_take_only(root, capsys):
    assert process(root) == 0
    source = root / "processed" / A / "source.json"
    source.write_text("{")
    (root / "processed" / B / EGO / "30.jpg").unlink()
    assert process(root, "--uids", C, "--pack") == 0
    pack = root / "processed" / C / PACK
    pack.write_bytes(pack.read_bytes()[:-50])  # as a copy that was broken off
    (pack.parent / "annotation.json").unlink()
    assert process(root) == 1
    lines = capsys.readouterr().out
    assert f"take {A} ({NAMES[A]}): {source} is not valid JSON" in lines
    assert f"take {C} ({NAMES[C]}): {pack} is damaged (BadZipFile: " in lines
    assert_complete(root / "processed", B)
    pack.unlink()
    process(root)
    assert_complete(root / "processed", C)


CORRUPT = r"cam01 broken corrupt masks of object 'cup _0', frames left out: 60 \(.*"
SMALL_DISASTERS = {  # what is done to take A, its failure, the frame that objects lose, the lengths of its new videos
    "short exo": (
        remake(EXO_1, 70),
        "cam01 missing .* ends after 70 frames; 1 wanted frame left out, up to frame 90$",
        {"cup _0": "90"},
        {EXO_1: 70},
    ),
    "short ego": (remake(EGO, 61), f"{EGO} missing .* ends after 61 frames", dict.fromkeys(TRACKS, "90"), {EGO: 61}),
    "no LZString": (replace_mask("!!not lzstring!!"), f"{CORRUPT} is not LZString text", {"cup _0": "60"}, {}),
}


@pytest.mark.parametrize("name", SMALL_DISASTERS)
def test_a_short_video_or_a_corrupt_mask_costs_frames_only_in_all_cameras_of_their_objects(root, name):
    (do, pattern, lost, lengths), out = SMALL_DISASTERS[name], root / "processed"
    do(root)
    assert process(root) == (" broken " in pattern)
    assert_fails(root, pattern)
    masks = expected_masks(A)
    for object_name, frame in lost.items():  # a mask in one camera would say that the other does not see the object
        for track in masks[object_name].values():
            track.pop(frame, None)
    grid = list(range(0, lengths.get(EGO, 95), 30))
    assert json.loads((out / A / "annotation.json").read_text()) == {"masks": masks, "subsample_idx": grid}
    for camera in CAMERAS:
        assert sorted(read_frames(out, A, camera)) == list(range(0, lengths.get(camera, 95), 30))
    assert_complete(out, B)


def test_a_take_whose_ego_video_is_broken_when_a_frame_is_missing_is_no_longer_complete(root):
    assert process(root, "--uids", A) == 0
    (root / "processed" / A / EGO / "30.jpg").unlink()
    add_noise(root)
    assert process(root, "--uids", A) == 1
    assert not (root / "processed" / A / "annotation.json").exists()


def test_splits_may_overlap_or_be_empty_and_need_not_hold_every_annotated_take(root, capsys):
    (root / "split.json").write_text(json.dumps({"train": [A, A], "val": [C, A], "test": []}))
    assert process(root) == 0
    out = capsys.readouterr().out
    assert "train: 1 of 1 take" in out and "val: 1 of 1 take" in out
    assert {path.name for path in (root / "processed").glob("uid-*")} == {A, C}


# What can be wrong with the machine


def test_a_full_disk_ends_the_run_in_one_line_and_a_rerun_completes(root, undisturbed, monkeypatch, capsys):
    def write(path, mode="w", original=data.extraction.atomic_write):
        write.files += 1
        if write.files == 17:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original(path, mode)

    write.files = 0
    with monkeypatch.context() as patch:
        patch.setattr(data.extraction, "atomic_write", write)
        assert process(root) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and f"No space left on device: '{root / 'processed'}/" in error
    assert not failures(root / "processed")
    assert process(root) == 0
    assert tree(root / "processed") == undisturbed


# What can be wrong with the command


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--split", "nowhere"], ["no take of split 'nowhere'", "'train', 'val'"]),
        (["--split_path", "{root}/none.json"], ["no file", "none.json", "download_split.sh"]),
        (["--annotationpath", "{root}/annotations/relations_val.json"], ["annotates no take of train in "]),
        (
            ["--annotationpath", f"{{root}}/processed/{A}/a.json"],
            [f"cannot write {{root}}/processed/{A}: this command"],
        ),
        (["--takepath", "{root}/nothing"], ["no folder", "--takepath"]),
        (["--takepath", "{root}"], ["did you mean {root}/takes?"]),
        (["--shard", "3/2"], ["'3/2' is not I/N"]),
        (["--outputpath", "{root}/split.json/out"], ["cannot write into {root}/split.json (Not a directory)"]),
    ],
)
def test_bad_input_is_one_line_that_names_it(root, capsys, flags, words):
    assert process(root, *(flag.format(root=root) for flag in flags)) == (2 if "--shard" in flags else 1)
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    assert all(word.format(root=root) in error for word in words)


def test_annotations_that_are_withheld_are_named_before_the_other_splits_are_processed(root, capsys):
    (path := root / "annotations" / "relations_val.json").unlink()
    assert process(root) == 1
    place = f"no annotations of val in {path.parent}"
    assert capsys.readouterr().err == f"error: {place}; to process the others, give --split train\n"
    assert not (root / "processed").exists()
    assert process(root, "--split", "train") == process(root, "--uids", A) == 0


def test_no_take_left_is_not_a_success(root, capsys):
    shutil.rmtree(root / "takes")
    (root / "takes").mkdir()
    assert process(root, "--split", "val") == 1
    out, reason = capsys.readouterr().out, f"no file {video(root, NAMES[C], EGO)}"
    assert (
        "0 of 1 take complete, 0 in part, 1 left out" in out and f"take {C} ({NAMES[C]}), camera {EGO}: {reason}" in out
    )
