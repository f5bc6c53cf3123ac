"""eval_segswap.py and the modules behind it, on small processed takes and a small random network."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import eval_segswap
from formats import parallel
from formats.errors import UserError
from formats.geometry import eval_size, letterbox, unletterbox
from formats.masks import decode_mask, letterbox_mask
from formats.processed import ProcessedTake, read_frame
from inference.chunks import ChunkDataset, pairs_by_frame, plan_chunks
from inference.predictor import resize_prob
from model.backbone import calibrate_batch_norm, mask_to_image, normalize_image, random_backbone
from model.checkpoint import load_checkpoint, save_checkpoint
from model.xsegtx import XSegTx, XSegTxConfig, cell_share
from tests.made import EGO
from tests.made.processed import LAYOUT, make_data_set

ROOT = Path(__file__).resolve().parents[1]
SIDE = 96
TAKES = {"val": ["take-a", "take-b", "take-c"]}


def make_checkpoint(path: Path, **options) -> Path:
    torch.manual_seed(0)
    backbone, model = random_backbone(0), XSegTx(XSegTxConfig("tiny", SIDE, **options))
    calibrate_batch_norm(backbone, [normalize_image(torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8))])
    save_checkpoint(path, backbone, model)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "net.pth")


@pytest.fixture(scope="module")
def data_path(tmp_path_factory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("data"), TAKES)


@pytest.fixture
def own_data(tmp_path) -> Path:
    """A data set that the test may damage."""
    return make_data_set(tmp_path / "data", TAKES)


def arguments(checkpoint, data_path, out_path, setting="ego-exo", *more) -> list[str]:
    named = {"--setting": setting, "--ckpt_path": checkpoint, "--data_path": data_path, "--out_path": out_path}
    return [str(x) for pair in named.items() for x in pair] + ["--num_workers", "0", "--device", "cpu", *more]


def run(*args) -> Path:
    """Run the script in this process; returns the results file."""
    words = arguments(*args)
    assert eval_segswap.main(words) == 0
    return Path(words[7]) / f"{words[1]}_val_results.json"


@pytest.mark.parametrize(
    ("setting", "options"),
    [("ego-exo", {}), ("exo-ego", {}), ("ego-exo", {"similarity_prior": True}), ("exo-ego", {"mask_position": True})],
)
def test_results_equal_one_pair_at_a_time_with_the_plain_network(data_path, tmp_path, setting, options):
    checkpoint = make_checkpoint(tmp_path / "net.pth", **options)
    results = json.loads(run(checkpoint, data_path, tmp_path, setting).read_text())[setting]["results"]
    backbone, model, *_ = load_checkpoint(checkpoint)
    count = 0
    for uid in TAKES["val"]:
        take = ProcessedTake.read(data_path, uid)
        assert results[uid]["subsample_idx"] == take.subsample_idx
        for pair in take.camera_pairs(setting):
            frames = results[uid]["masks"][pair.object_name][f"{pair.query_camera}_{pair.target_camera}"]
            assert set(map(int, frames)) == set(take.masks[pair.object_name][pair.query_camera])
            for frame, value in frames.items():
                prob, existence = plain_prediction(backbone, model, take, pair, int(frame))
                assert value["confidence"] == pytest.approx(existence, abs=1e-4)
                expected = unletterbox(prob, eval_size(take.video_size(pair.target_camera)))
                sure = abs(expected - 0.5) > 1e-3
                assert (decode_mask(value["pred_mask"]) == (expected > 0.5))[sure].all()
                count += 1
    assert count == (3 * (6 + 2) if setting == "ego-exo" else 3 * (5 + 2))


def plain_prediction(backbone, model, take, pair, frame) -> tuple[np.ndarray, float]:
    images = [letterbox(read_frame(take.frame_path(camera, frame)), SIDE) for camera in pair[1:]]
    mask = letterbox_mask(take.masks[pair.object_name][pair.query_camera][frame], SIDE)
    query, target = (backbone(normalize_image(torch.from_numpy(image))[None]) for image in images)
    with torch.inference_mode():
        mask = torch.from_numpy(mask)[None]
        prediction = model(query, target, backbone(mask_to_image(mask)), query_share=cell_share(mask))
    return resize_prob(prediction.target_mask_prob, 480)[0].numpy(), prediction.existence.item()


def test_every_object_has_a_key_even_without_a_pair(checkpoint, data_path, tmp_path):
    results = json.loads(run(checkpoint, data_path, tmp_path).read_text())["ego-exo"]["results"]
    assert list(results["take-a"]["masks"]) == list(LAYOUT)
    assert results["take-a"]["masks"]["nothing_0"] == results["take-a"]["masks"]["ego only_0"] == {}


@pytest.mark.parametrize("more", [("--batch_size", "1"), ("--batch_size", "3", "--num_workers", "2")])
def test_batch_size_and_workers_change_nothing_that_counts(checkpoint, data_path, tmp_path, more):
    base = json.loads(run(checkpoint, data_path, tmp_path / "base").read_text())["ego-exo"]["results"]
    other = json.loads(run(checkpoint, data_path, tmp_path / "other", "ego-exo", *more).read_text())["ego-exo"][
        "results"
    ]
    for uid, take in base.items():
        for name, cameras in take["masks"].items():
            for key, frames in cameras.items():
                for frame, value in frames.items():
                    twin = other[uid]["masks"][name][key][frame]
                    assert value["confidence"] == pytest.approx(twin["confidence"], abs=1e-5)
                    a, b = decode_mask(value["pred_mask"]), decode_mask(twin["pred_mask"])
                    assert (a == b).mean() > 0.999


def test_two_ranks_write_the_file_of_one_process_byte_for_byte(checkpoint, data_path, tmp_path):
    single = run(checkpoint, data_path, tmp_path / "single")
    words = arguments(checkpoint, data_path, tmp_path / "ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    subprocess.run([*command, str(ROOT / "eval_segswap.py"), *words], check=True, capture_output=True, timeout=120)
    assert (tmp_path / "ranks" / single.name).read_bytes() == single.read_bytes()


def test_a_killed_run_continues_to_the_same_bytes(checkpoint, data_path, tmp_path):
    whole = run(checkpoint, data_path, tmp_path / "whole")
    words = arguments(checkpoint, data_path, tmp_path / "killed", "ego-exo", "--batch_size", "8")
    command = [sys.executable, str(ROOT / "eval_segswap.py"), *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (
        not list((tmp_path / "killed").rglob("take-*.json")) and time.monotonic() < deadline and process.poll() is None
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("take-*.json")}
    assert finished and not (tmp_path / "killed" / whole.name).exists()
    assert eval_segswap.main([*words, "--save_inter"]) == 0
    assert (tmp_path / "killed" / whole.name).read_bytes() == whole.read_bytes()
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())


def test_per_take_files_stay_only_if_asked_for_and_then_where_the_original_has_them(checkpoint, data_path, tmp_path):
    path = run(checkpoint, data_path, tmp_path)
    assert not list(tmp_path.rglob("*.json*.tmp")) and not list(tmp_path.glob("take-*"))
    before = path.stat().st_mtime_ns
    run(checkpoint, data_path, tmp_path, "ego-exo", "--save_inter")  # from the results file, which is complete
    assert path.stat().st_mtime_ns == before
    for uid, result in json.loads(path.read_text())["ego-exo"]["results"].items():
        assert json.loads((tmp_path / uid / "pred_annotations.json").read_text()) == result
    run(checkpoint, data_path, tmp_path / "other", "ego-exo", "--save_inter")
    assert len(list((tmp_path / "other" / "ego-exo_val_takes").rglob("take-*.json"))) == 3


def test_the_record_says_how_the_results_were_made(checkpoint, data_path, tmp_path):
    run(checkpoint, data_path, tmp_path)
    made = json.loads((tmp_path / "ego-exo_val_run.json").read_text())["provenance"]
    assert made.keys() >= {"date", "command", "commit"}
    assert made["checkpoint"] == "net.pth" and made["precision"] == "fp32"
    assert made["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_what_killed_runs_left_half_written_is_removed(checkpoint, data_path, tmp_path):
    path = run(checkpoint, data_path, tmp_path, "ego-exo", "--save_inter")
    path.unlink()
    (parts,) = (tmp_path / "ego-exo_val_takes").iterdir()
    left = [f"{folder}/.{name}.0badcafe.tmp" for folder, name in ((tmp_path, path.name), (parts, "take-a.1.json"))]
    others = tmp_path / ".exo-ego_val_results.json.0badcafe.tmp"  # perhaps being written now
    for name in (*left, others):
        Path(name).write_text("{")
    run(checkpoint, data_path, tmp_path)
    assert not any(Path(name).exists() for name in left) and others.exists()


def test_a_second_run_into_the_same_folder_says_that_it_waits_for_the_first(checkpoint, data_path, tmp_path):
    whole = run(checkpoint, data_path, tmp_path / "whole")
    words = arguments(checkpoint, data_path, tmp_path / "both", "ego-exo", "--batch_size", "8")
    command = [sys.executable, str(ROOT / "eval_segswap.py"), *words]
    first, second = (subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "12")
    (out, err), (other_out, other_err) = (process.communicate(timeout=120) for process in (first, second))
    assert first.returncode == second.returncode == 0
    assert ("waiting for another process" in err) != ("waiting for another process" in other_err)
    assert ("complete already" in out) != ("complete already" in other_out)
    assert (tmp_path / "both" / whole.name).read_bytes() == whole.read_bytes()


def test_with_a_small_shared_memory_this_process_reads_alone(checkpoint, data_path, tmp_path, monkeypatch, capsys):
    whole = run(checkpoint, data_path, tmp_path / "whole")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    monkeypatch.setattr(parallel, "SHARED_MEMORY", tmp_path)
    path = run(checkpoint, data_path, tmp_path / "small", "ego-exo", "--num_workers", "2")
    assert f"need 1 MB of {tmp_path}, 0 MB are free: 0 are used" in capsys.readouterr().err
    assert path.read_bytes() == whole.read_bytes()


def test_a_complete_run_is_not_repeated(checkpoint, data_path, tmp_path, capsys):
    path = run(checkpoint, data_path, tmp_path)
    written = path.stat().st_mtime_ns
    run(checkpoint, data_path, tmp_path)
    assert "complete already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written


def test_results_of_another_checkpoint_are_never_mixed_in_nor_replaced_unasked(checkpoint, data_path, tmp_path):
    path = run(checkpoint, data_path, tmp_path)
    before = path.read_bytes()
    torch.manual_seed(1)
    backbone, *_ = load_checkpoint(checkpoint)
    other = tmp_path / "other.pth"
    save_checkpoint(other, backbone, XSegTx(XSegTxConfig("tiny", SIDE)))
    with pytest.raises(UserError, match="made by another checkpoint.*--overwrite"):
        eval_segswap.main(arguments(other, data_path, tmp_path))
    assert path.read_bytes() == before
    run(other, data_path, tmp_path, "ego-exo", "--overwrite")
    assert path.read_bytes() != before


def test_a_take_processed_again_is_predicted_again(checkpoint, own_data, tmp_path):
    path = run(checkpoint, own_data, tmp_path / "out", "ego-exo", "--save_inter")
    annotation = own_data / "take-a" / "annotation.json"
    content = json.loads(annotation.read_text())
    del content["masks"]["Milk carton "]
    annotation.write_text(json.dumps(content))
    run(checkpoint, own_data, tmp_path / "out")
    assert "Milk carton " not in json.loads(path.read_text())["ego-exo"]["results"]["take-a"]["masks"]


def damage_frame(take: Path) -> str:
    (take / "cam01" / "30.jpg").unlink()
    return "cam01/30.jpg is missing"


def damage_image(take: Path) -> str:
    (take / EGO / "0.jpg").write_bytes(b"no picture")
    return "0.jpg cannot be decoded"


def damage_mask(take: Path) -> str:
    path = take / "annotation.json"
    content = json.loads(path.read_text())
    content["masks"]["cup_0"][EGO]["30"]["counts"] = "12"
    path.write_text(json.dumps(content))
    return "mask of object 'cup_0', camera aria01_214-1, frame 30, take take-b is unreadable"


def damage_annotation(take: Path) -> str:
    (take / "annotation.json").write_text('{"masks": ')
    return "not valid JSON"


def remove_annotation(take: Path) -> str:
    (take / "annotation.json").unlink()
    return "run data/process_data.py"


@pytest.mark.parametrize("damage", [damage_frame, damage_image, damage_mask, damage_annotation, remove_annotation])
def test_an_unreadable_take_is_reported_and_the_others_finish(checkpoint, own_data, tmp_path, capsys, damage):
    reason = damage(own_data / "take-b")
    words = arguments(checkpoint, own_data, tmp_path / "out")
    assert eval_segswap.main(words) == eval_segswap.SKIPPED_STATUS
    assert reason in capsys.readouterr().err
    path = tmp_path / "out" / "ego-exo_val_results.json"
    assert list(json.loads(path.read_text())["ego-exo"]["results"]) == ["take-a", "take-c"]
    with pytest.raises(UserError, match="take-b"):
        eval_segswap.main([*words, "--strict", "--overwrite"])


def test_a_repaired_take_completes_the_file(checkpoint, own_data, tmp_path):
    words = arguments(checkpoint, own_data, tmp_path / "out")
    frame = own_data / "take-b" / "cam01" / "30.jpg"
    content = frame.read_bytes()
    frame.unlink()
    assert eval_segswap.main(words) == eval_segswap.SKIPPED_STATUS
    frame.write_bytes(content)
    assert eval_segswap.main(words) == 0
    results = json.loads((tmp_path / "out" / "ego-exo_val_results.json").read_text())["ego-exo"]["results"]
    assert list(results) == TAKES["val"]


def test_a_run_with_an_unprocessed_take_can_be_repeated(checkpoint, own_data, tmp_path):
    (own_data / "take-b" / "annotation.json").unlink()
    words = arguments(checkpoint, own_data, tmp_path / "out")
    assert [eval_segswap.main(words) for _ in range(2)] == [eval_segswap.SKIPPED_STATUS] * 2


def bad_input(kind: str, checkpoint: Path, data_path: Path, tmp_path: Path) -> list[str]:
    words = arguments(checkpoint, data_path, tmp_path / "out")
    text = tmp_path / "text"
    text.write_text("{}")
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(checkpoint.read_bytes()[:100_000])
    more = {
        "missing checkpoint": ["--ckpt_path", "nowhere.pth"],
        "truncated checkpoint": ["--ckpt_path", str(truncated)],
        "no checkpoint": ["--ckpt_path", str(text)],
        "missing split file": ["--splits_path", "nowhere.json"],
        "malformed split file": ["--splits_path", str(truncated)],
        "unknown split": ["--split", "test"],
        "missing data": [
            "--data_path",
            str(tmp_path / "nowhere"),
            "--splits_path",
            str(data_path.parent / "split.json"),
        ],
        "absent GPU": ["--device", "cuda:63"],
    }
    return words + more[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing checkpoint", "nowhere.pth"),
        ("truncated checkpoint", "truncated.pth"),
        ("no checkpoint", "/text "),
        ("missing split file", "no file nowhere.json; get the paper's"),
        ("malformed split file", "truncated.pth is not valid JSON"),
        ("unknown split", "no split 'test'"),
        ("missing data", "none of the 3 takes of split 'val' can be read"),
        ("absent GPU", "cuda:63"),
    ],
)
def test_bad_input_ends_in_one_line_and_a_status(checkpoint, data_path, tmp_path, kind, message):
    words = bad_input(kind, checkpoint, data_path, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        eval_segswap.main(words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--ckpt_path", "nowhere.pth"), ("--device", "cuda:63"), ("--device", "x")]
)
def test_the_command_line_prints_the_line_without_a_traceback(checkpoint, data_path, tmp_path, option, value):
    words = [*arguments(checkpoint, data_path, tmp_path), option, value]
    command = [sys.executable, str(ROOT / "eval_segswap.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and value in done.stderr and done.stderr.count("\n") == 1


def test_chunks_hold_each_pair_once_and_no_frame_is_cut(data_path):
    take = ProcessedTake.read(data_path, "take-a")
    frames = pairs_by_frame(take, "ego-exo")
    for batch_size in (1, 2, 3, 5, 100):
        plans = plan_chunks(take, "ego-exo", batch_size)
        assert [frame for plan in plans for frame in plan.frames] == list(frames)
        assert sum(plan.pair_count for plan in plans) == sum(map(len, frames.values()))
        assert all(plan.pair_count <= batch_size or len(plan.frames) == 1 for plan in plans)
        for plan, chunk in zip(plans, ChunkDataset(data_path, "ego-exo", 32, plans), strict=True):
            assert plan.planes * 32 * 32 == chunk.images.numel() + chunk.masks.numel()


def test_without_a_checkpoint_named_a_settings_own_is_taken_else_that_of_both(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_segswap, "ROOT", tmp_path)
    with pytest.raises(UserError, match="run_exo.sh"):
        eval_segswap.default_checkpoint("exo-ego")
    folders = [tmp_path / "train/checkpoints" / name for name in ("egoexo_v2_480x480_both", "egoexo_v2_480x480")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "netLast.pth").touch()
    chosen = [eval_segswap.default_checkpoint(setting).parent for setting in ("exo-ego", "ego-exo")]
    assert chosen == folders
    (folders[0] / "netBest.pth").touch()
    assert eval_segswap.default_checkpoint("exo-ego").name == "netBest.pth"
