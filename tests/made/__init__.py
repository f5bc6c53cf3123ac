"""Small data for tests, with one module for each kind of data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the repository
EGO = "aria01_214-1"  # the head-worn camera of all takes that tests make
