"""The submission of both settings is checked and complete, or it is not written."""

import json
import re

import pytest

from common.errors import UserError
from evaluation import make_submission
from formats.processed import ANNOTATION, FAILED
from tests.made import EGO
from tests.made.processed import make_data_set
from tests.made.results import UIDS


def submit(scored_data, out, *more):
    """The original's command, with its flags."""
    files = [scored_data / "a" / f"{setting}_val_results.json" for setting in ("ego-exo", "exo-ego")]
    files = ["--ego_exo_preds", files[0], "--exo_ego_preds", files[1]]
    where = ["--data_path", scored_data / "processed", "--split", "val", "--output_path", out]
    make_submission.main([*map(str, [*files, *where, *more])])


def test_a_submission_holds_both_results_files_in_the_official_form(scored_data, tmp_path, capsys):
    (tmp_path / ".submission.json.0123abcd.tmp").touch()  # as a killed run leaves it
    submit(scored_data, tmp_path / "submission.json")
    assert {path.name for path in tmp_path.iterdir()} == {"submission.json"}
    submission = json.loads((tmp_path / "submission.json").read_text())
    assert list(submission) == ["ego-exo", "exo-ego"]
    for setting, part in submission.items():
        results = json.loads((scored_data / "a" / f"{setting}_val_results.json").read_text())[setting]["results"]
        assert part == {"version": "xx", "challenge": "xx", "results": results}
    printed = capsys.readouterr().out
    assert "ego-exo: 16 usable predictions for 2 takes" in printed
    assert re.search("submission.json: [0-9,]+ bytes", printed)


def test_results_of_others_get_what_the_server_asks_for_and_lose_what_it_refuses(scored_data, tmp_path):
    submit(scored_data, tmp_path / "expected.json")
    bare = json.loads((scored_data / "a" / "ego-exo_val_results.json").read_text())
    for take in bare["ego-exo"]["results"].values():
        del take["subsample_idx"]
        del take["masks"]["nothing_0"]  # an object without a pair
        take["masks"]["ghost_0"] = {}  # of another version of the annotations
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    submit(scored_data, tmp_path / "submission.json", "--ego_exo", tmp_path / "bare.json")
    expected, submission = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("expected", "submission"))
    assert submission == expected and "nothing_0" in submission["ego-exo"]["results"]["take-a"]["masks"]


def test_a_submission_needs_no_target_masks_and_leaves_out_takes_of_another_split(scored_data, tmp_path, capsys):
    data_dir = make_data_set(tmp_path, {"val": UIDS[:1], "test": UIDS[1:]})
    for uid in UIDS:
        path = data_dir / uid / ANNOTATION
        raw = json.loads(path.read_text())
        for cameras in raw["masks"].values():
            for camera in cameras:
                if camera != EGO:
                    cameras[camera] = {}
        path.write_text(json.dumps(raw))
    (data_dir / UIDS[0] / FAILED).write_text("{}")  # as process_data.py leaves it where a video is missing
    submit(scored_data, tmp_path / "submission.json", "--data_path", data_dir)
    printed = capsys.readouterr()
    assert "warning: 1 take processed in part" in printed.err
    results = json.loads((tmp_path / "submission.json").read_text())
    assert list(results["ego-exo"]["results"]) == UIDS[:1]
    assert "left out, as the ground truth does not have them: take-b" in printed.out


def test_a_take_without_videos_can_be_left_out_of_a_submission(scored_data, tmp_path, capsys):
    splits = tmp_path / "split.json"
    splits.write_text(json.dumps({"val": [*UIDS, "take-c"]}))
    with pytest.raises(UserError, match="1 problem in the ground truth, nothing written; --allow_missing"):
        submit(scored_data, tmp_path / "submission.json", "--splits_path", splits)
    submit(scored_data, tmp_path / "submission.json", "--splits_path", splits, "--allow_missing")
    assert "warning: takes of split 'val' that are left out: take-c" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "submission.json").read_text())["ego-exo"]["results"]) == UIDS


def test_a_submission_lists_everything_that_is_missing_and_is_not_written(scored_data, tmp_path, capsys):
    for setting in ("ego-exo", "exo-ego"):
        results = json.loads((scored_data / "a" / f"{setting}_val_results.json").read_text())
        del results[setting]["results"]["take-a"]["masks"]["cup_0"]
        del results[setting]["results"]["take-b"]
        (tmp_path / f"{setting}.json").write_text(json.dumps(results))
    files = ["--ego_exo", tmp_path / "ego-exo.json", "--exo_ego", tmp_path / "exo-ego.json"]
    with pytest.raises(UserError, match="4 problems in the results, nothing written"):
        submit(scored_data, tmp_path / "out" / "submission.json", *files)
    errors = capsys.readouterr().err
    assert all(f"{setting}: take take-a, object 'cup_0': missing" in errors for setting in ("ego-exo", "exo-ego"))
    assert errors.count("take take-b: missing in ") == 2
    assert not (tmp_path / "out").exists()


def test_a_submission_replaces_another_file_only_if_asked_for(scored_data, tmp_path):
    (out := tmp_path / "out.json").touch()
    with pytest.raises(UserError, match="out.json exists; name another file to write, or give --overwrite"):
        submit(scored_data, out)
    assert not out.read_bytes()
    submit(scored_data, out, "--overwrite")
    made = out.read_bytes()
    submit(scored_data, out)  # as after a kill at its end
    assert made and out.read_bytes() == made
    results = scored_data / "a" / "ego-exo_val_results.json"
    with pytest.raises(UserError, match=f"cannot write {results}: this command reads"):
        submit(scored_data, results, "--overwrite")
    annotations = scored_data / "annotations" / "relations_val.json"
    with pytest.raises(UserError, match=f"cannot write {annotations}: it is a file of the data set; name another file"):
        submit(scored_data, annotations, "--overwrite")
    with pytest.raises(UserError, match=rf"cannot write into {out} \(Not a directory\)"):
        submit(scored_data, out / "new.json", "--ego_exo", tmp_path / "none.json")
