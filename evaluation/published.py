"""The paper's results on the v2 test split, as fractions: IoU, location error, contour accuracy, balanced accuracy."""

from evaluation.metrics import OFFICIAL

SPLIT = "test"
XSEGTX = "XSegTx, trained, as published"
_ROWS = {
    "ego-exo": {
        "XSegTx, random weights": (0.0048, 0.118, 0.014, 0.5),
        XSEGTX: (0.1899, 0.070, 0.386, 0.6631),
        "XMem": (0.1928, 0.151, 0.262, 0.6439),
        "XView-XMem": (0.1484, 0.115, 0.242, 0.6124),
    },
    "exo-ego": {
        "XSegTx, random weights": (0.0108, 0.203, 0.024, 0.5),
        XSEGTX: (0.2714, 0.104, 0.358, 0.8201),
        "XMem": (0.1656, 0.160, 0.204, 0.6035),
        "XView-XMem": (0.2137, 0.139, 0.269, 0.6172),
    },
}
PUBLISHED = {
    setting: {name: dict(zip(OFFICIAL, values, strict=True)) for name, values in rows.items()}
    for setting, rows in _ROWS.items()
}
