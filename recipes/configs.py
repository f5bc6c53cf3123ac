"""The configuration of each recipe's network. Nothing here imports torch, so that train.py's help need not wait."""

from model.config import XSegTxConfig
from recipes.strong.config import StrongConfig

CONFIGS: dict[str, type] = {"paper": XSegTxConfig, "strong": StrongConfig}
