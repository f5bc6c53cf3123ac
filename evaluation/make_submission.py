"""Write the results of both settings into one file for the challenge's server:

    python evaluation/make_submission.py
    python evaluation/make_submission.py --ego_exo a.json --exo_ego b.json --out submission.json

The script first checks that every take, camera pair and query frame of the split has a usable prediction. This check
needs no target masks, which a test split may keep secret. The file has this form:

    {"ego-exo": {"version": "xx", "challenge": "xx", "results": {take_uid: ..}}, "exo-ego": {..}}
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
from collections.abc import Iterator

from common.arguments import Parser
from common.constants import SETTINGS
from common.errors import counted, printable, run_script, warn_once
from common.files import check_output, file_digest, temporary_folder, write_json
from common.progress import progress
from evaluation.truth import GroundTruth, add_split_options, open_truth, refuse
from formats.pairs import BOTH
from formats.results import RESULTS_DIR, iter_results, read_predictions, results_path

FILE_NAME = "submission.json"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_split_options(parser, "test")
    add = parser.add_argument
    for setting in SETTINGS:
        name = f"--{setting.replace('-', '_')}"
        add(name, f"{name}_preds", type=Path, help=f"results (default: results/{setting}_{{split}}_results.json)")
    add("--gt_file", type=Path, help="check against this ground-truth JSON instead of the processed takes")
    parser.set_defaults(all_frames=True, annotation_path=None, groups=None)  # a test split's annotations are secret
    text = "leave out takes without a readable annotation.json, such as those of withdrawn videos, and name them"
    add("--allow_missing", action="store_true", help=text)
    text = f".json file, or folder for {FILE_NAME} (default: results)"
    add("--out", "--output_path", type=Path, default=RESULTS_DIR, help=text)
    add("--overwrite", action="store_true", help="replace a submission that exists")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    split = args.split or "test"
    truth = open_truth(args, BOTH, split)
    if truth.left_out:
        warn_once(f"takes of split {split!r} that are left out: {', '.join(truth.left_out)}")
    if truth.incomplete_line:
        warn_once(truth.incomplete_line)
    files = {
        setting: path or results_path(RESULTS_DIR, setting, split)
        for setting, path in zip(SETTINGS, (args.ego_exo, args.exo_ego), strict=True)
    }
    out = args.out if args.out.suffix == ".json" and not args.out.is_dir() else args.out / FILE_NAME
    check_output(out, True)
    truth.check_outputs([out], files.values())
    problems = [problem for setting, path in files.items() for problem in find_problems(truth, setting, path)]
    if problems:
        refuse(problems, "the results")
    results = {setting: complete_results(truth, path, setting) for setting, path in files.items()}
    submission = {setting: {"version": "xx", "challenge": "xx", "results": takes} for setting, takes in results.items()}
    with temporary_folder(out.parent, out.name, f"writes {out}") as folder:
        made = folder / out.name
        write_json(made, submission)
        # The same file may be there already, of a process that was killed just before its end.
        check_output(out, args.overwrite or (out.is_file() and file_digest(made) == file_digest(out)))
        made.replace(out)
    print(f"{out}: {out.stat().st_size:,} bytes")


def complete_results(truth: GroundTruth, path: Path, setting: str) -> Iterator[tuple[str, dict]]:
    """The results in the server's form: a key for each object of a take, no other keys, and subsample_idx."""
    contents = dict(zip(truth.pairs.store.takes, truth.pairs.store.contents, strict=True))
    for uid, raw in iter_results(path, setting):
        if uid in truth.infos:
            names, subsample_idx = contents[uid]
            masks = {name: raw.get("masks", {}).get(name, {}) for name in names}
            yield uid, {"subsample_idx": subsample_idx, **raw, "masks": masks}


def find_problems(truth: GroundTruth, setting: str, results: Path) -> list[str]:
    """Check a results file, print how many usable predictions it has, and return a line for each problem.

    Every query frame of every camera pair must have a usable prediction, even if the target's masks are unknown.
    """
    others, problems, predictions = [], [], 0
    pairs = truth.pairs.of_setting(setting)
    takes = truth.with_results(iter_results(results, setting, truth.split), others)
    for take, uid, raw in progress(takes, setting, len(truth.infos), "take"):
        if raw is None:
            problems.append(f"take {uid}: missing in {results}")
            continue
        found = []
        predictions += sum(1 for _ in read_predictions(pairs.of_take(take), raw, (), found))
        problems += [f"{setting}: {problem.text}" for problem in found]
    print(f"{setting}: {counted(predictions, 'usable prediction')} for {counted(len(truth.infos), 'take')}")
    if others:
        print(printable(f"  left out, as the ground truth does not have them: {', '.join(others)}"))
    return problems


if __name__ == "__main__":
    run_script(main)
