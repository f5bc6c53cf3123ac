"""Small data for tests, one module for each kind."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the repository
EGO = "aria01_214-1"  # the head-worn camera of all made takes
