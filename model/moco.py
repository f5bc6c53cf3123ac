"""The paper's backbone: ResNet-50 up to layer3, with MoCo v2 weights (model/pretrained/download_model.sh)."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from common.errors import UserError
from model.backbone import Backbone
from model.mask_features import MaskFeatures
from model.weights import load_state, named_tensors, read_torch

MODEL_DIR = Path(__file__).resolve().parent
CONVERTED_NAME = "moco_v2_800ep_pretrain_torchvision.pth.tar"  # with torchvision's names, from the original repository
RAW_NAME = "moco_v2_800ep_pretrain.pth.tar"  # as MoCo's authors publish it
REMEDY = (
    "give --backbone efficientnet_lite0, which needs no download, or get MoCo's weights: "
    "cd model/pretrained && bash download_model.sh"
)
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}  # in torchvision's ResNet


class ResNet50(nn.Sequential):
    """ResNet-50 up to layer3, with the names of the published checkpoints: `0.weight`, `4.0.conv1.weight`, ..."""

    def __init__(self):
        from torchvision.models import resnet50  # imported here, because the import takes as long as torch's

        super().__init__(*list(resnet50().children())[:7])

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        *earlier, last = self
        for layer in earlier:
            images = layer(images)
        return images, last(images)


class Moco(Backbone):
    def mask_encoder(self) -> Callable[[Tensor], Tensor]:
        # The windows of MaskFeatures depend on the masks, so on a GPU they would cost synchronization and new kernels.
        on_cpu = next(self.parameters()).device.type == "cpu"
        return MaskFeatures(self) if on_cpu else super().mask_encoder()


def resnet50_backbone() -> Backbone:
    """The published backbone with the random initial weights of torchvision."""
    return Moco("moco", ResNet50(), channels=1024, detail_channels=512)


def moco_backbone(path: Path | None = None) -> Backbone:
    """ResNet-50 with MoCo v2 weights from `path`, by default from model/pretrained (download_model.sh) or model/.

    The file has MoCo's form, `{"state_dict": {"module.encoder_q.conv1.weight": ...}}`, or the converted form,
    `{"model": {"conv1.weight": ...}}`. Raises UserError if the file is missing, damaged or another file.
    """
    if path is None:
        folders, names = (MODEL_DIR / "pretrained", MODEL_DIR), (CONVERTED_NAME, RAW_NAME)
        candidate_paths = [folder / name for folder in folders for name in names]
        path = next((path for path in candidate_paths if path.exists()), folders[0] / RAW_NAME)
    content = read_torch(path, REMEDY)
    forms = [form for form in ("model", "state_dict") if isinstance(content, Mapping) and form in content]
    if not forms:
        raise UserError(f"{path} holds no MoCo ResNet-50; {REMEDY}")
    state = {}
    for name, tensor in named_tensors(content[forms[0]], str(path)).items():
        child, _, rest = name.removeprefix("encoder_q.").partition(".")
        if child in CHILDREN:
            state[f"{CHILDREN[child]}.{rest}"] = tensor
    backbone = resnet50_backbone()
    load_state(backbone.network, state, str(path))
    return backbone
