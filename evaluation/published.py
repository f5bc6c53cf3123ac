"""What others publish on the v2 test split: the leaderboard of docs/results.md and of the report, in one place.

Figures are their authors', not re-scored. `protocol` names the scorer behind a figure, where it is known; `caveat` says
what is known to be wrong with the figure or unknown about it.
"""

from typing import Any, NamedTuple

from evaluation.metrics import OFFICIAL

SPLIT = "test"
TAKES = 295  # of the published test split
XSEGTX = "XSegTx, trained, as published"

OWN_SCORER = "own ground truth and frames, annotated_frames unused; visible means a mask of over 0.1 % of the image"
RETRAINED = f"retrained and scored by LM-EEC: {OWN_SCORER}"
ZERO_SHOT = "zero-shot baseline that later papers repeat; who scored it and how is not stated"

Values = tuple[float | None, ...]  # of OFFICIAL, in its order, as fractions; None: not published or not known here


class Published(NamedTuple):
    """A method's row."""

    method: str
    venue: str
    backbone: str
    protocol: str
    caveat: str
    source: str  # an address without https://
    ego_exo: Values
    exo_ego: Values

    def values(self, setting: str) -> dict[str, float | None]:
        """The values of the official metrics, by name."""
        values = {"ego-exo": self.ego_exo, "exo-ego": self.exo_ego}[setting]
        return dict(zip(OFFICIAL, values, strict=True))


def _iou(percent: float, balanced_accuracy: float | None = None) -> Values:
    """A row of which only the IoU, and perhaps the balanced accuracy, is known, both in percent."""
    return (round(percent / 100, 6), None, None, balanced_accuracy and round(balanced_accuracy / 100, 6))


def _in_lm_eec(method: str, backbone: str, ego_exo: float, exo_ego: float, caveat: str = RETRAINED) -> Published:
    """A row of LM-EEC's table; IoU in percent."""
    source = "arxiv.org/abs/2510.11417"
    return Published(method, "in LM-EEC", backbone, "lmeec_visibility", caveat, source, _iou(ego_exo), _iou(exo_ego))


def _copied(of: str) -> str:
    return f"ego-exo is the same as {of}'s in three metrics, probably copied by mistake; {RETRAINED}"


_AUTHORS = ("CVPR 2024", "ResNet-50 (MoCo v2)", "official", "", "github.com/EGO4D/ego-exo4d-relation")
_MEMORY = ("CVPR 2024", "ResNet-50", "official", "", "github.com/EGO4D/ego-exo4d-relation")
_PSALM = ("not stated", ZERO_SHOT, "github.com/zamling/PSALM")
_OMAMA = (
    "omama",
    "its public scorer resizes the truth to the prediction's size: +0.4 and +0.7 IoU on four takes; no existence",
    "github.com/Maria-SanVil/O-MaMa",
)
PUBLISHED = (
    Published("XSegTx, random weights", *_AUTHORS, (0.0048, 0.118, 0.014, 0.5), (0.0108, 0.203, 0.024, 0.5)),
    Published(XSEGTX, *_AUTHORS, (0.1899, 0.070, 0.386, 0.6631), (0.2714, 0.104, 0.358, 0.8201)),
    Published("XMem", *_MEMORY, (0.1928, 0.151, 0.262, 0.6439), (0.1656, 0.160, 0.204, 0.6035)),
    Published("XView-XMem", *_MEMORY, (0.1484, 0.115, 0.242, 0.6124), (0.2137, 0.139, 0.269, 0.6172)),
    Published("XView-XMem + XSegTx", *_MEMORY, _iou(34.90), _iou(25.00)),
    _in_lm_eec("STCN", "ResNet-50", 27.39, 27.61),
    _in_lm_eec("QDMN", "ResNet-50", 27.03, 17.56, _copied("Cutie")),
    _in_lm_eec("GSFM", "ResNet-50", 3.98, 13.78),
    _in_lm_eec("SimVOS", "ViT", 38.26, 40.67),
    _in_lm_eec("Cutie", "ResNet-50", 27.03, 47.52, _copied("QDMN")),
    Published("SEEM, zero-shot", "-", "-", *_PSALM, _iou(1.53), _iou(4.34)),
    Published("CMX, zero-shot", "-", "-", *_PSALM, _iou(6.80), _iou(12.00)),
    Published("PSALM, zero-shot", "-", "Swin-B + Phi-1.5", *_PSALM, _iou(7.40), _iou(2.10)),
    Published(
        "ObjectRelator",
        "ICCV 2025",
        "Swin-B + Phi-1.5",
        "official, challenge server",
        "the paper's validation figures are pooled per take and not comparable; these are the server's",
        "github.com/lovelyqian/ObjectRelator",
        _iou(35.27),
        _iou(40.31),
    ),
    Published("O-MaMa", "ICCV 2025", "DINOv2 ViT-B/14 + FastSAM", *_OMAMA, _iou(42.57, 50.0), _iou(44.08, 50.0)),
    Published(
        "O-MaMa's candidates, no training", "ICCV 2025", "DINOv2 ViT-B/14 + FastSAM", *_OMAMA, _iou(31.9), _iou(30.9)
    ),
    Published(
        "V2-SAM, selected experts",
        "CVPR 2026",
        "SAM2 Hiera-L + DINOv3 ViT-L/16",
        "its own, cut off",
        "only the first 40 to 44 % of the split is scored; a third party's re-scoring of exo-ego: 48.70",
        "arxiv.org/abs/2511.20886",
        _iou(46.3),
        _iou(49.6),
    ),
    Published(
        "V2-SAM, one expert",
        "CVPR 2026",
        "SAM2 Hiera-L + DINOv3 ViT-L/16",
        "its own, cut off",
        "only the first 40 to 44 % of the split is scored; a third party's re-scoring: 40.24 and 46.38",
        "arxiv.org/abs/2511.20886",
        _iou(44.5),
        _iou(47.3),
    ),
    Published(
        "CCMP",
        "CVPR 2026",
        "DINOv3 ConvNeXt-L and ViT-L/16",
        "official",
        "its data set may lack takes, as its authors say; trains on each test pair before it predicts it",
        "github.com/shannany0606/CCMP",
        _iou(41.95, 98.9),
        _iou(47.18, 99.9),
    ),
    Published(
        "CCMP, no test-time training",
        "CVPR 2026",
        "DINOv3 ConvNeXt-L and ViT-L/16",
        "official",
        "its data set may lack takes, as its authors say",
        "github.com/shannany0606/CCMP",
        _iou(41.79),
        _iou(44.18),
    ),
    Published(
        "LM-EEC",
        "NeurIPS 2025",
        "SAM2.1 Hiera-B+",
        "lmeec_visibility",
        OWN_SCORER,
        "arxiv.org/abs/2510.11417",
        _iou(54.98, 64.2),
        _iou(65.77, 58.1),
    ),
    _in_lm_eec("SAM2.1 with two memories", "SAM2.1 Hiera-B+", 52.13, 57.27, OWN_SCORER),
    Published(
        "Language as bridge",
        "thesis, 2026",
        "Qwen3.5 + Grounding DINO + SAM3",
        "not stated",
        "not peer-reviewed; the first version had 37.7 and 40.6",
        "github.com/marcolomele",
        _iou(43.7),
        _iou(48.1),
    ),
)


def leaderboard(setting: str) -> list[Published]:
    """All rows, the highest IoU first."""
    return sorted(PUBLISHED, key=lambda row: -row.values(setting)["iou"])


def paper_values(setting: str) -> dict[str, float | None]:
    """What the benchmark's authors publish of this system, by metric."""
    return next(row for row in PUBLISHED if row.method == XSEGTX).values(setting)


def published_rank(summary: dict[str, Any], official: bool) -> dict[str, int] | None:
    """Where the IoU of `summary`, as metrics.json has it, would stand among the published ones: `rank` and `of`.

    None unless it can be compared: the test split, scored by the official protocol (`official`) with all of its takes
    and frames. `of` counts this result too.
    """
    whole = summary["takes"] == TAKES and summary["frames_scored"] == summary["frames_wanted"]
    if summary["split"] != SPLIT or not official or not whole:
        return None
    iou = summary["official"]["iou"]
    others = [row.values(summary["setting"])["iou"] for row in PUBLISHED]
    return {"rank": 1 + sum(other > iou for other in others), "of": len(others) + 1}
