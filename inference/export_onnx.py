"""Write a network of the strong recipe as ONNX graphs, for programs that have no PyTorch.

    python inference/export_onnx.py --ckpt_path netBest.pth --out graphs
    python inference/export_onnx.py    # the network of this repository

`locate.onnx` says where in a whole target the object may be, `look.onnx` segments it in crops of the target; the frozen
backbone is in both. Their inputs and outputs are those of `Locate` and `Look` in this file; images are uint8 RGB, masks
uint8 of 0 and 1. `frame_size` in the metadata of locate.onnx is the long side of whole targets in pixels.
examples/onnx_pair.py segments a pair with them. It needs pip install -r requirements-onnx.txt.
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import torch
from torch import Tensor, nn

from common.arguments import Parser, add_backbone_weights
from common.errors import UserError
from common.files import atomic_write
from inference.crop_matcher import LOOKS, CropMatcher
from inference.predictor import CKPT_HELP, SHIPPED, Predictor
from model.backbone import STRIDE, Backbone, mask_to_image
from model.features import Levels
from model.strong import StrongXSegTx
from model.weights import in_a_line

OPSET = 18
REMEDY = "pip install -r requirements-onnx.txt"


class Graph(nn.Module):
    def __init__(self, backbone: Backbone, network: StrongXSegTx):
        super().__init__()
        self.backbone, self.network = backbone, network

    def levels(self, images: Tensor) -> Levels:
        return Levels(*self.backbone.levels(self.backbone.normalize(images)))


class Locate(Graph):
    def forward(self, wide: Tensor, wide_mask: Tensor, frame: Tensor) -> Tensor:
        """A query crop (1, N, N, 3) that shows the object as large as it should be in the frame, the mask in it
        (1, N, N), a whole target (1, H, W, 3), H and W multiples of 16 -> heat (H / 8, W / 8) float32.
        """
        return self.network.heat(self.levels(wide), wide_mask, [self.levels(frame)])[0]


class Look(Graph):
    def forward(
        self, query: Tensor, query_mask: Tensor, target: Tensor, heat: Tensor, highest: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The crop around the object (1, S, S, 3), the mask in it (1, S, S), K crops of a target (K, S, S, 3), the heat
        at their middles (K,) and the highest heat of the target (1,), float32 -> mask probabilities (K, S, S), scores
        (K,), of which the largest is the look to choose, and existences (K,), float32.
        """
        mask_feat = self.backbone(mask_to_image(query_mask))
        one = self.network.encode(self.levels(query), query_mask, mask_feat)
        same = torch.zeros(target.shape[0], dtype=torch.long)
        look = self.network.look(one.rows(same), self.levels(target))
        return look.target_mask_prob, self.network.score(look.logit, heat), self.network.existence(look.logit, highest)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add_backbone_weights(parser)
    parser.add_argument("--out", type=Path, default=Path("graphs"), help="folder for the two files")
    args = parser.parse_args(argv)
    try:
        import onnxscript  # noqa: F401  # torch.onnx needs it, and says so in many lines
    except ModuleNotFoundError as error:
        raise UserError(f"no module {error.name}; {REMEDY}") from None

    matcher = Predictor.load(args.ckpt_path, "cpu", backbone_weights=args.backbone_weights).matcher
    if not isinstance(matcher, CropMatcher):
        raise UserError(f"{args.ckpt_path} holds the paper's network; only those of the strong recipe are exported")
    parts, config = (matcher.encoder.backbone, matcher.network), matcher.config
    wide, side, long = config.wide_size, config.input_size, config.frame_size
    frame = torch.zeros(1, round(0.75 * long / STRIDE) * STRIDE, long // STRIDE * STRIDE, 3, dtype=torch.uint8)
    inputs = {"wide": picture(wide), "wide_mask": picture(wide)[..., 0], "frame": frame}
    height, width = (STRIDE * torch.export.Dim(name, min=2, max=(1 << 13) // STRIDE) for name in ("height", "width"))
    metadata = {"frame_size": str(long)}
    export(args.out / "locate.onnx", Locate(*parts), inputs, {"frame": {1: height, 2: width}}, ["heat"], metadata)

    looks = {0: torch.export.Dim("looks", min=1)}
    inputs = {"query": picture(side), "query_mask": picture(side)[..., 0], "target": picture(side, LOOKS)}
    inputs |= {"heat": torch.ones(LOOKS), "highest": torch.ones(1)}
    outputs = ["mask_prob", "score", "existence"]
    export(args.out / "look.onnx", Look(*parts), inputs, {"target": looks, "heat": looks}, outputs, {})


def picture(side: int, number: int = 1) -> Tensor:
    """Zeros (N, S, S, 3), in the place of pictures: a graph does not depend on what they show."""
    return torch.zeros(number, side, side, 3, dtype=torch.uint8)


@torch.no_grad()
def export(
    path: Path,
    graph: Graph,
    inputs: dict[str, Tensor],
    free: dict[str, dict],
    outputs: list[str],
    metadata: dict[str, str],
) -> None:
    """Write one graph. `free`: of inputs, the dimensions that are not fixed."""
    graph(*inputs.values())  # tensors that the backbone keeps from its first call are not to be the exporter's
    names = {"input_names": list(inputs), "output_names": outputs}
    shapes = tuple(free.get(name, {}) for name in inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            how = {"dynamic_shapes": shapes, "dynamo": True, "opset_version": OPSET, "verbose": False}
            program = torch.onnx.export(graph.eval(), tuple(inputs.values()), **names, **how)
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"backbone {graph.backbone.name} cannot be exported ({in_a_line(error)})") from None
    for node in program.model.graph.all_nodes():  # where each is from, with the paths of this machine
        node.metadata_props.clear()
    program.model.metadata_props.update(metadata)
    with atomic_write(path, "wb") as file:
        file.write(program.model_proto.SerializeToString())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_script(main)
