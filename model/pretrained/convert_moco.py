"""Keep what the backbone needs of MoCo's own checkpoint, under torchvision's names.

python model/pretrained/convert_moco.py moco_v2_800ep_pretrain.pth.tar moco_v2_800ep_pretrain_torchvision.pth.tar
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # repository root

from common.errors import run_script  # isort: split

from model.backbone import read_moco
from model.weights import write_torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint as MoCo publishes it")
    parser.add_argument("destination", type=Path, help="file to write")
    args = parser.parse_args()
    write_torch(args.destination, {"model": read_moco(args.source)})


if __name__ == "__main__":
    run_script(main)
