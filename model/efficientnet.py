"""EfficientNet-Lite up to its layers of stride 16 (Tan and Le, 1905.11946), with timm's names.

The network of this repository reads its features. timm would give the same ones, but takes a second to be imported.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import Levels

# The repetitions and the channels of the stages, whose first blocks have these kernels and strides.
LITES = {
    "efficientnet_lite0": ((1, 2, 2, 3, 3), (16, 24, 40, 80, 112)),
    "efficientnet_lite1": ((1, 3, 3, 4, 4), (16, 24, 40, 80, 112)),
    "efficientnet_lite2": ((1, 3, 3, 4, 4), (16, 24, 48, 88, 120)),
}
KERNELS, STRIDES = (3, 3, 5, 3, 5), (1, 2, 2, 2, 1)
STEM, EXPANSION, EPS = 32, 6, 1e-3
EARLY = 2  # the last stage of stride 8


class HalvingConv(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's padding, for even sides: one pixel less before the input than behind
    it. To pad a copy of the input takes longer than to pad by two pixels more and to drop the first cell.
    """

    def forward(self, input: Tensor) -> Tensor:
        padding = (self.kernel_size[0] - 2) // 2 + 2
        cells = F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return cells[..., 1:, 1:]


def depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    if stride == 2:
        return HalvingConv(channels, channels, kernel, stride=2, groups=channels, bias=False)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)


class FirstBlock(nn.Module):
    """A separable convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        self.conv_dw, self.bn1 = depthwise(inputs, kernel, stride), nn.BatchNorm2d(inputs, EPS)
        self.conv_pw, self.bn2 = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)), inplace=True)))


class InvertedResidual(nn.Module):
    """Expands the channels, convolves each by itself, and reduces them."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        wide, self.has_skip = EXPANSION * inputs, inputs == outputs and stride == 1
        self.conv_pw, self.bn1 = nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide, EPS)
        self.conv_dw, self.bn2 = depthwise(wide, kernel, stride), nn.BatchNorm2d(wide, EPS)
        self.conv_pwl, self.bn3 = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs, EPS)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        wide = F.relu6(self.bn2(self.conv_dw(wide)), inplace=True)
        narrow = self.bn3(self.conv_pwl(wide))
        return narrow + x if self.has_skip else narrow


class EfficientNetLite(nn.Module):
    """Images (N, 3, H, W), whose sides are multiples of 16 -> features (N, C, H / 16, W / 16)."""

    def __init__(self, name: str):
        super().__init__()
        repeats, self.channels = LITES[name]
        self.conv_stem, self.bn1 = nn.Conv2d(3, STEM, 3, stride=2, bias=False), nn.BatchNorm2d(STEM, EPS)
        inputs, stages = STEM, []
        for count, outputs, kernel, stride in zip(repeats, self.channels, KERNELS, STRIDES, strict=True):
            block = InvertedResidual if stages else FirstBlock
            rest = [block(outputs, outputs, kernel, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(block(inputs, outputs, kernel, stride), *rest))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        return self.levels(images).feat

    def levels(self, images: Tensor) -> Levels:
        """The last layer of stride 16, and the last one of stride 8."""
        x = F.relu6(self.bn1(self.conv_stem(F.pad(images, (0, 1, 0, 1)))), inplace=True)
        early = self.blocks[: EARLY + 1](x)
        return Levels(self.blocks[EARLY + 1 :](early), early)
