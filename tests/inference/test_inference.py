"""eval_segswap.py and the modules behind it, on small processed takes with a small random network."""

import hashlib
import json
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import eval_segswap
from common.constants import SETTINGS, THRESHOLD
from common.errors import UserError
from formats.frame_files import pack_frames
from formats.geometry import letterbox
from formats.masks import decode_mask
from formats.pairs import open_pairs
from formats.pairs_file import listing_path
from formats.processed import ProcessedTake, read_frame
from inference import resumable_run
from model.backbone import mask_to_image, normalize_image
from model.checkpoint import save_checkpoint
from model.features import Encoder
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.scene import Scene
from recipes.search import search
from recipes.strong.recipe import Strong
from recipes.table import load_checkpoint, load_recipe
from tests.made import EGO, ROOT
from tests.made.networks import write_network
from tests.made.processed import LAYOUT, make_data_set
from tests.made.processes import claimed_elsewhere, run_main
from tests.made.results import keyed_entries, read_results

SIDE = 96
TAKES = {"val": ["take-a", "take-b", "take-c"]}


@pytest.fixture(scope="module")
def whole(checkpoint, data_path, tmp_path_factory) -> Path:
    """The results file of a run that nothing goes wrong in, with its record and the takes' files. Do not change it."""
    return run(checkpoint, data_path, tmp_path_factory.mktemp("whole"), "ego-exo", "--save_inter")


@pytest.fixture(scope="module")
def other(checkpoint) -> Path:
    """A checkpoint of another network."""
    backbone = load_checkpoint(checkpoint).backbone
    torch.manual_seed(1)
    save_checkpoint(
        checkpoint.with_name("other.pth"), "paper", backbone, XSegTx(XSegTxConfig("tiny", SIDE, feature_channels=112))
    )
    return checkpoint.with_name("other.pth")


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    """The results file of a copy of that run."""
    return shutil.copytree(whole.parent, tmp_path / "finished") / whole.name


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
    ("setting", "strong", "expected"),
    [("ego-exo", False, (0.41540, 0.33169)), ("exo-ego", False, (0.41410, 0.31194)), ("exo-ego", True, None)],
)
def test_results_equal_single_pairs_and_golden_ones(strong_checkpoint, tmp_path, setting, strong, expected):
    """Golden, of the paper's network: of all pairs, the mean existence and the share of pictures that masks cover."""
    layout = {"cup_0": {EGO: [30, 0], "cam01": [0], "cam02": [0, 30]}}
    data_path = make_data_set(tmp_path, {"val": ["a"]}, layout)
    checkpoint = strong_checkpoint if strong else write_network(tmp_path / "net.pth", published=True)
    result = read_results(run(checkpoint, data_path, tmp_path, setting), setting)["a"]
    recipe, networks, answers = load_recipe(checkpoint, "cpu"), load_checkpoint(checkpoint)[1:3], []
    kinds = setting.split("-")
    take = ProcessedTake.read(data_path, "a")
    assert result["subsample_idx"] == take.subsample_idx
    for pair in take.correspondences(setting):
        frames = result["masks"][pair.object_name][f"{pair.query_camera}_{pair.target_camera}"]
        assert set(map(int, frames)) == set(take.masks[pair.object_name][pair.query_camera])
        for frame, value in frames.items():
            query, target = (read_frame(take.folder / camera / f"{frame}.jpg") for camera in pair[1:])
            query_mask = decode_mask(take.masks[pair.object_name][pair.query_camera][int(frame)])
            alone, existence = alone_in_frame(recipe, query, query_mask, target, kinds)
            assert value["confidence"] == pytest.approx(existence, abs=1e-4)
            mask = decode_mask(value["pred_mask"])
            assert (cv2.resize(mask, target.shape[1::-1], interpolation=cv2.INTER_AREA) == alone).mean() > 0.95
            answers.append((existence, mask.mean()))
            if not strong:
                assert existence == pytest.approx(plain_existence(*networks, query, query_mask, target), abs=1e-4)
    assert strong or np.mean(answers, axis=0) == pytest.approx(expected, rel=0.02)


def alone_in_frame(recipe, query, query_mask, target, kinds):
    """The mask and the existence of one pair, whose cameras are of these kinds."""
    scene = Scene()
    marked = scene.add_object(query_mask, scene.add_picture(query, kinds[0]))
    scene.add_pair(marked, scene.add_picture(target, kinds[1]), 0)
    [answer] = recipe.predict(recipe.prepare(scene))
    return answer.in_image(target.shape[:2]) > THRESHOLD, answer.existence


def plain_existence(backbone, model, query, query_mask, target) -> float:
    """By the network alone."""
    query, query_mask, target = (
        torch.from_numpy(letterbox(image, SIDE))[None] for image in (query, query_mask, target)
    )
    with torch.inference_mode():
        images = normalize_image(query), normalize_image(target), mask_to_image(query_mask)
        return model(*map(backbone, images)).logit.sigmoid().item()


def entries(path: Path) -> dict[tuple, dict]:
    """What a results file says about each take, object, camera pair and frame."""
    return dict(keyed_entries(read_results(path)))


def test_both_settings_at_once_give_the_answers_of_each_alone_also_after_a_stop_and_on_two_ranks(
    checkpoint, data_path, tmp_path, warm_python, monkeypatch, capsys
):
    names = [f"{setting}_val_results.json" for setting in SETTINGS]
    words = {name: arguments(checkpoint, data_path, tmp_path / name, "both") for name in ("once", "stopped", "ranks")}
    assert eval_segswap.main(words["once"]) == 0
    expected = [(tmp_path / "once" / name).read_bytes() for name in names]
    alone = {setting: run(checkpoint, data_path, tmp_path / "alone", setting) for setting in SETTINGS}
    for setting, name in zip(SETTINGS, names, strict=True):
        both, single = (
            dict(keyed_entries(read_results(path, setting))) for path in (tmp_path / "once" / name, alone[setting])
        )
        assert [*both] == [*single] and all(both[key]["pred_mask"] == single[key]["pred_mask"] for key in both)
        assert [x["confidence"] for x in both.values()] == pytest.approx(
            [x["confidence"] for x in single.values()], abs=1e-5
        )

    def stop_between_the_files_of_a_take(path, *given, write=resumable_run.write_json):
        if "exo-ego" in str(path):
            raise KeyboardInterrupt
        write(path, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resumable_run, "write_json", stop_between_the_files_of_a_take)
        eval_segswap.main(words["stopped"])
    assert len(list((tmp_path / "stopped").rglob("take-*.json"))) == 1
    assert eval_segswap.main(words["stopped"]) == 0
    command = [warm_python, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += [str(ROOT / "eval_segswap.py"), *words["ranks"]]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for folder in ("stopped", "ranks"):
        assert [(tmp_path / folder / name).read_bytes() for name in names] == expected
    capsys.readouterr()
    assert eval_segswap.main(words["stopped"]) == 0
    assert capsys.readouterr().out.count("is complete already") == 2
    with pytest.raises(SystemExit):
        eval_segswap.main([*words["stopped"], "--save_inter"])
    assert "predict one --setting after the other" in capsys.readouterr().err


def test_a_strong_networks_results_are_the_same_bytes_after_a_stop_and_smaller_batches_go_on_with_them(
    strong_checkpoint, tmp_path, monkeypatch, capsys
):
    layout = {"cup_0": {EGO: [0, 30], "cam01": [0, 30]}, "pot_0": {EGO: [0], "cam01": [0]}}
    data_path = make_data_set(tmp_path / "data", {"val": ["take-a", "take-b"]}, layout)
    whole, stopped, asked = run(strong_checkpoint, data_path, tmp_path / "whole"), tmp_path / "stopped", []

    def interrupt_in_the_second_take(*given, predict=Strong.predict):
        asked.append(given)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return predict(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Strong, "predict", interrupt_in_the_second_take)
        run(strong_checkpoint, data_path, stopped)
    assert [path for path in stopped.rglob("*.json") if path.parent != stopped]
    assert " kept of " not in capsys.readouterr().out
    smaller, others = (shutil.copytree(stopped, tmp_path / name) for name in ("smaller", "others"))
    assert run(strong_checkpoint, data_path, stopped).read_bytes() == whole.read_bytes()
    assert "\n3 pairs kept of a run that was stopped, 3 to predict\n" in capsys.readouterr().out
    records = [json.loads((path / "ego-exo_val_run.json").read_text()) for path in (stopped, whole.parent)]
    for record in records:
        del record["provenance"]["date"]
    assert records[0] == records[1]
    capsys.readouterr()
    run(strong_checkpoint, data_path, smaller, "ego-exo", "--batch_size", "1")
    assert "\n3 pairs in " in capsys.readouterr().out  # of the take that was left
    run(strong_checkpoint, data_path, others, "ego-exo", "--looks", "1")
    assert not (others / "ego-exo_val_takes").exists()


def test_every_object_has_a_key_and_takes_have_files_only_if_asked_for(checkpoint, data_path, whole, tmp_path):
    masks = read_results(whole)["take-a"]["masks"]
    assert list(masks) == list(LAYOUT) and masks["nothing_0"] == masks["ego only_0"] == {}
    path = run(checkpoint, data_path, tmp_path)
    assert {file.name for file in tmp_path.glob("[!.]*")} == {path.name, "ego-exo_val_run.json"}
    before, left = path.stat().st_mtime_ns, tmp_path / "take-a" / ".pred_annotations.json.0123abcd.tmp"
    left.parent.mkdir()
    left.touch()  # by a run that was killed
    run(checkpoint, data_path, tmp_path, "ego-exo", "--save_inter")  # from the results file, which is complete
    assert path.stat().st_mtime_ns == before and not left.exists()
    for folder in (tmp_path, whole.parent):
        for uid, result in read_results(path).items():
            assert json.loads((folder / uid / "pred_annotations.json").read_text()) == result
    assert not (whole.parent / "ego-exo_val_takes").exists()


def test_a_second_run_says_that_it_waits_for_the_first(checkpoint, data_path, whole, tmp_path, capsys):
    second = threading.Thread(target=run, args=(checkpoint, data_path, tmp_path))
    printed = ""
    with claimed_elsewhere(tmp_path, "ego-exo_val"):
        second.start()
        while "waiting for another process, which writes " not in printed:
            assert second.is_alive()
            printed += capsys.readouterr().err
            time.sleep(0.01)
        shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)  # the first has finished
    second.join()
    assert "complete already" in capsys.readouterr().out


def test_a_complete_run_is_not_repeated_and_what_was_put_in_its_place_is_kept(checkpoint, data_path, finished, capsys):
    """Whoever has changed the code meanwhile reads which commit made the results."""
    written = finished.stat().st_mtime_ns
    made = json.loads(finished.with_name("ego-exo_val_run.json").read_text())["provenance"]
    assert made["checkpoint"] == "net.pth" and made["precision"] == "fp32"
    assert made["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    run(checkpoint, data_path, finished.parent)
    printed = capsys.readouterr().out
    assert f"complete already (by commit {made['commit']}, {made['date']}); delete it" in printed
    assert finished.stat().st_mtime_ns == written
    record = finished.with_name("ego-exo_val_run.json")
    whole = record.read_text()
    record.write_text(whole.replace('"date"', '"day"'))
    with pytest.raises(UserError, match="run.json is not of the form that this version writes; give another --out"):
        run(checkpoint, data_path, finished.parent)
    record.write_text(whole)
    content = finished.read_bytes()
    finished.write_bytes(content[: len(content) // 2])  # or another run's results, copied over these
    with pytest.raises(UserError, match="was changed, or copied here, after it was made; .*--overwrite to replace it$"):
        run(checkpoint, data_path, finished.parent)
    assert finished.read_bytes() == content[: len(content) // 2]
    run(checkpoint, data_path, finished.parent, "ego-exo", "--overwrite")
    assert finished.read_bytes() == content


def test_results_of_another_checkpoint_are_never_mixed_in_nor_replaced_unasked(checkpoint, other, data_path, finished):
    before = finished.read_bytes()
    record, words = finished.with_name("ego-exo_val_run.json"), arguments(other, data_path, finished.parent)
    command = json.loads(record.read_text())["provenance"]["command"]
    with pytest.raises(UserError, match=rf"was made by another run, .* \({re.escape(command)}\); give another --out"):
        eval_segswap.main(words)
    assert finished.read_bytes() == before
    run(other, data_path, finished.parent, "ego-exo", "--overwrite")
    assert finished.read_bytes() != before


def test_results_are_never_vouched_for_as_those_of_another_checkpoint(
    checkpoint, other, data_path, finished, tmp_path, monkeypatch
):
    before, words = finished.read_bytes(), arguments(other, data_path, finished.parent)

    def stop_before_the_results(path, to, replace=Path.replace):
        if to == finished and to.parent != path.parent:
            raise KeyboardInterrupt
        replace(path, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stop_before_the_results)
        eval_segswap.main([*words, "--overwrite"])
    assert finished.read_bytes() == before  # the first one's, beside the record of the second
    with pytest.raises(UserError, match="made by another run"):
        run(checkpoint, data_path, finished.parent)
    run(other, data_path, finished.parent)
    assert finished.read_bytes() != before
    fresh = run(other, data_path, tmp_path / "fresh")
    assert finished.read_bytes() == fresh.read_bytes()


def test_the_record_names_the_network_that_predicted_though_its_file_was_replaced(
    checkpoint, other, data_path, whole, tmp_path, monkeypatch
):
    path, list_pairs = Path(shutil.copy(checkpoint, tmp_path / "net.pth")), eval_segswap.open_pairs

    def replace_the_file(*given, **how):
        shutil.copy(other, path)
        return list_pairs(*given, **how)

    monkeypatch.setattr(eval_segswap, "open_pairs", replace_the_file)
    results = run(path, data_path, tmp_path / "out")
    made = json.loads(results.with_name("ego-exo_val_run.json").read_text())["provenance"]
    assert made["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert results.read_bytes() == whole.read_bytes()


def test_a_checkpoint_of_the_other_setting_is_used_with_a_warning(checkpoint, tmp_path, capsys):
    data_path = make_data_set(tmp_path, {"val": ["a"]}, {"cup_0": {EGO: [0], "cam01": [0]}})
    trained = {"ego-exo": {"reverse": False}, "both": {"both": True, "reverse": False}}
    for setting, flags in trained.items():
        path = tmp_path / f"{setting}.pth"
        torch.save(torch.load(checkpoint, weights_only=True) | {"arguments": flags}, path)
        run(path, data_path, tmp_path / setting, "exo-ego")
        printed = capsys.readouterr()
        assert f"{path}: tiny network of 96 pixels on efficientnet_lite0 features, in fp32, on 1 x cpu" in printed.out
        assert ("was trained for ego-exo, not for exo-ego" in printed.err) == (setting == "ego-exo")


def test_results_of_another_value_of_any_option_are_another_runs(strong_checkpoint, tmp_path, monkeypatch):
    data_path = make_data_set(tmp_path, {"val": ["a"]}, {"cup_0": {EGO: [0], "cam01": [0]}})
    how = strong_checkpoint, data_path, tmp_path, "ego-exo", "--looks"
    for _ in range(2):
        run(*how, "1")  # the second time it is complete already
    with pytest.raises(UserError, match="was made by another run"):
        run(*how, "2")
    monkeypatch.setattr(search, "SEARCH_VERSION", 100)
    with pytest.raises(UserError, match="was made by another run"):
        run(*how, "1")
    monkeypatch.undo()
    options = property(lambda recipe: {"depth": 3}, lambda recipe, value: None)
    monkeypatch.setattr(Strong, "options", options, raising=False)
    with pytest.raises(UserError, match="was made by another run"):
        run(*how, "1")


def test_a_take_with_other_pictures_under_the_same_masks_is_predicted_anew(checkpoint, own_data, tmp_path, capsys):
    before = entries(run(checkpoint, own_data, tmp_path))
    for path in (own_data / "take-b").glob("*/*.jpg"):
        shutil.copy(own_data / "take-a" / path.parent.name / path.name, path)
    after = entries(run(checkpoint, own_data, tmp_path))
    assert "complete already" not in capsys.readouterr().out
    changed = {key[0] for key in before if before[key] != after[key]}
    assert changed == {"take-b"}


@pytest.mark.parametrize("where", ["the GPU", "this machine"])
def test_too_little_memory_is_one_line_that_names_the_batch_size(checkpoint, data_path, tmp_path, monkeypatch, where):
    def encode(*_):
        if where == "the GPU":
            raise torch.cuda.OutOfMemoryError
        torch.empty(1 << 60)

    monkeypatch.setattr(Encoder, "images", encode)
    done = run_main(eval_segswap.main, *arguments(checkpoint, data_path, tmp_path))
    remedy = "give another --device, or in eval_segswap.py a smaller --batch_size"
    assert (done.returncode, done.stderr) == (1, f"error: the memory of {where} is full; {remedy}\n")


def test_an_unreadable_take_is_named_and_predicted_once_it_is_processed_again(checkpoint, own_data, tmp_path, capsys):
    words, path = arguments(checkpoint, own_data, tmp_path / "out"), own_data / "take-b" / "annotation.json"
    results, content = tmp_path / "out" / "ego-exo_val_results.json", json.loads(path.read_text())
    path.write_bytes(b"no JSON")
    assert [eval_segswap.main(words) for _ in range(2)] == [eval_segswap.INCOMPLETE_STATUS] * 2
    assert "skipped take take-b: " in capsys.readouterr().err
    assert list(read_results(results)) == ["take-a", "take-c"]
    path.write_text(json.dumps(content))
    assert eval_segswap.main(words) == 0
    assert list(read_results(results)) == TAKES["val"]
    del content["masks"]["Milk carton "]
    path.write_text(json.dumps(content))
    assert eval_segswap.main(words) == 0
    assert ["Milk carton " in take["masks"] for take in read_results(results).values()] == [True, False, True]


def test_a_broken_image_costs_its_own_pairs_until_it_is_repaired(checkpoint, own_data, whole, tmp_path, capsys):
    words = arguments(checkpoint, own_data, tmp_path / "out", "ego-exo", "--num_workers", "2", "--batch_size", "2")
    expected, results = sure(whole), tmp_path / "out" / whole.name
    broken = [own_data / "take-b" / camera / "30.jpg" for camera in ("cam01", "cam02")]
    contents = [path.read_bytes() for path in broken]
    broken[0].write_bytes(contents[0][:-20])
    broken[1].unlink()
    lost = [("cup_0", "cam01"), ("cup_0", "cam02"), ("Milk carton ", "cam02")]
    lost = {("take-b", name, f"{EGO}_{camera}", "30") for name, camera in lost}
    for _ in range(2):
        assert eval_segswap.main(words) == eval_segswap.INCOMPLETE_STATUS
        printed = capsys.readouterr()
        assert "take take-b: 3 pairs left out for 2 reasons (all are" in printed.err and "3 takes in " in printed.out
        assert sure(results) == {key: value for key, value in expected.items() if key not in lost}
    left_out = json.loads(results.with_name("ego-exo_val_run.json").read_text())["left_out"]
    reasons = f"frame {broken[0]} is cut off or damaged; delete it, then", f"frame {broken[1]} is missing;"
    remedy = "process its take again with data/process_data.py"
    assert left_out == {"take-b": {f"{reason} {remedy}": n for reason, n in zip(reasons, (1, 2), strict=True)}}
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    assert eval_segswap.main(words) == 0
    assert sure(results) == expected


def test_listed_pairs_and_packed_takes_give_the_same_bytes_and_a_frame_that_was_replaced_since_is_named(
    checkpoint, own_data, whole, tmp_path, capsys
):
    path = listing_path(own_data, "val")
    path.touch()
    assert run(checkpoint, own_data, tmp_path / "unlisted").read_bytes() == whole.read_bytes()
    alone = "; the pairs of val are listed for this run alone"
    assert f"{path} cannot be used (EOFError: " in (said := capsys.readouterr().err) and said.count(alone) == 1
    assert not path.stat().st_size
    open_pairs([own_data], "val", "ego-exo")
    assert path.stat().st_size and "; the pairs of val are listed now\n" in capsys.readouterr().err
    assert run(checkpoint, own_data, tmp_path / "listed").read_bytes() == whole.read_bytes()
    assert "listed" not in capsys.readouterr().err
    pack_frames(own_data / "take-a")
    loaders = "ego-exo", "--num_workers", "2"
    assert run(checkpoint, own_data, tmp_path / "packed", *loaders).read_bytes() == whole.read_bytes()
    run(checkpoint, own_data, tmp_path / "listed")
    assert "is complete already" in capsys.readouterr().out
    replaced = own_data / "take-b" / "cam02" / "30.jpg"
    replaced.write_bytes(replaced.read_bytes() + bytes(1))
    done = run_main(eval_segswap.main, *arguments(checkpoint, own_data, tmp_path / "listed"))
    assert done.returncode == 1 and f"error: frame {replaced} was replaced after its pairs were listed" in done.stderr
    assert eval_segswap.main(arguments(checkpoint, own_data, tmp_path / "out")) == eval_segswap.INCOMPLETE_STATUS
    record = json.loads((tmp_path / "out" / "ego-exo_val_run.json").read_text())
    [(reason, count)] = record["left_out"]["take-b"].items()
    assert str(replaced) in reason and count == 2


def sure(path: Path) -> dict[tuple, float]:
    return {key: round(entry["confidence"], 4) for key, entry in entries(path).items()}


BAD_INPUT = {
    "--ckpt_path nowhere.pth": "no file nowhere.pth; give a checkpoint of train.py",
    "--data_path {tmp}/nowhere": "nowhere; name the folder of processed takes",
    "--out_path {data}/split.json/out": "val0/split.json (Not a directory); permit it",
    "--looks 2": "--looks 2: this network looks at whole targets, once; leave --looks out",
    "--data_path {tmp}/nowhere --splits_path {data}/split.json": "nowhere; name the folder of processed takes, or run",
}


@pytest.mark.parametrize("flags", BAD_INPUT)
def test_bad_input_ends_in_one_line_and_a_status(checkpoint, data_path, tmp_path, flags):
    words = arguments(checkpoint, data_path, tmp_path / "out")
    done = run_main(eval_segswap.main, *words, *flags.format(tmp=tmp_path, data=data_path.parent).split())
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and BAD_INPUT[flags] in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_never_replace_what_is_read_for_them(checkpoint, data_path, tmp_path):
    (takes := tmp_path / "ego-exo_val_takes").mkdir()
    splits = shutil.copy(data_path.parent / "split.json", tmp_path / "ego-exo_val_run.json")
    words = arguments(shutil.copy(checkpoint, takes), data_path, tmp_path)
    for name, more in (("run.json", ["--ckpt_path", checkpoint, "--splits_path", splits]), ("takes", [])):
        done = run_main(eval_segswap.main, *words, "--overwrite", *more)
        assert done.stderr.startswith(f"error: cannot write {tmp_path}/ego-exo_val_{name}: this command reads ")
    assert {path.name for path in tmp_path.rglob("*.*")} == {"ego-exo_val_run.json", checkpoint.name}


def test_what_a_run_of_another_version_has_finished_is_named_and_predicted_anew(
    checkpoint, data_path, whole, tmp_path, capsys
):
    part = tmp_path / "ego-exo_val_takes" / "0123456789ab" / "take-a.0123456789ab.json"
    part.parent.mkdir(parents=True)
    part.write_text("{}")
    (left := part.with_name(f".{part.name}.0123abcd.tmp")).touch()  # by a run that was killed
    own = [part.parents[1] / "notes.json", part.parents[1] / "figures" / "a.json", part.with_name("notes.txt")]
    for path in own:  # of the user
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert run(checkpoint, data_path, tmp_path).read_bytes() == whole.read_bytes()
    assert f"1 take of {part.parents[1]}: finished by another run or version, or " in capsys.readouterr().out
    assert not part.exists() and not left.exists() and all(path.exists() for path in own)


def test_without_a_checkpoint_named_a_settings_own_is_taken_else_that_of_both(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_segswap, "CHECKPOINTS", tmp_path)
    with pytest.raises(UserError, match="run_exo.sh.*xsegtx_tiny.pth, the network of this repository"):
        eval_segswap.default_checkpoint("exo-ego")
    with pytest.raises(UserError, match="give --ckpt_path$"):  # ours is of another recipe
        eval_segswap.default_checkpoint("exo-ego", "mine.py:OwnRecipe")
    folders = [tmp_path / name for name in ("egoexo_v2_480x480_both", "egoexo_v2_480x480")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "netLast.pth").touch()
    chosen = [eval_segswap.default_checkpoint(setting).parent for setting in ("exo-ego", "ego-exo")]
    assert chosen == folders
    (folders[0] / "netBest.pth").touch()
    assert eval_segswap.default_checkpoint("exo-ego").name == "netBest.pth"
