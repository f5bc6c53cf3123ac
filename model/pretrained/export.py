"""Keep what prediction needs of a trained network, in half precision: a tenth of its checkpoint's size.

python model/pretrained/export.py train/checkpoints/egoexo_v2_480x480_both/netBest.pth small.pth
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

from common.errors import UserError
from common.files import claimed
from model.checkpoint import load_checkpoint, save_checkpoint

KEPT = ("both", "reverse", "closer_look")  # arguments of training that prediction asks for


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of train/train.py")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--backbone_weights", type=Path, help="file of the backbone (default: as in training)")
    args = parser.parse_args(argv)
    with claimed(args.out.parent, args.out.name, f"writes {args.out}"):
        if args.out.exists():
            raise UserError(f"{args.out} exists; give another name, or delete it first")
        checkpoint = load_checkpoint(args.checkpoint, args.backbone_weights)
        kept = {name: checkpoint.arguments[name] for name in KEPT if name in checkpoint.arguments}
        checkpoint.backbone.weights = None  # a place on this machine
        save_checkpoint(args.out, checkpoint.backbone, checkpoint.model.half(), arguments=kept)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_script(main)
