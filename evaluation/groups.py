"""Breakdowns by columns of your own, from a CSV file (--groups), as for tables by category:

    object_name,category
    saucepan_0,kitchenware
    violin_0,instrument

The column `object_name`, `take_uid` or both say what a line is about, as in cases.csv; a take may also be given by its
name. Each other column is a breakdown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from common.csv_table import read_csv
from common.errors import UserError, counted
from formats.pairs import Pairs

KEYS = "take_uid", "object_name"
LONG_BREAKDOWNS = "take", "object"  # which all evaluations have, and only the page of one file shows
NO_GROUP = "no group"  # of objects that no line names, and of empty cells


class Groups(NamedTuple):
    path: Path | None = None
    keys: tuple[str, ...] = ()  # those of KEYS that the file has
    columns: Mapping[str, Mapping[tuple[str, ...], str]] = {}  # name of a column -> values of the keys -> label

    def labels_of(self, pairs: Pairs, take_names: list[str]) -> dict[str, list[str]]:
        """For each column, the label of each pair. `take_names` are those of the takes of the pairs' store."""
        objects, calls = self._calls(pairs, take_names)
        found = {}
        for column, labels in self.columns.items():
            of_object = {x: next(filter(None, map(labels.get, keys)), NO_GROUP) for x, keys in calls.items()}
            found[column] = [of_object[x] for x in objects]
        return found

    def warnings(self, pairs: Pairs, take_names: list[str]) -> list[str]:
        """Lines on what the file names and no pair has, and on objects of the pairs that it lacks."""
        named = {key for labels in self.columns.values() for key in labels}
        calls, lines = self._calls(pairs, take_names)[1].values(), []
        if unknown := sorted(named.difference(*calls)):
            example = " / ".join(unknown[0])
            lines.append(f"{self.path}: {len(unknown):,} of {counted(len(named), 'name')} unknown, such as {example}")
        if lacking := sum(named.isdisjoint(keys) for keys in calls) if self.columns else 0:
            lines.append(f"{self.path} lacks {lacking:,} of {counted(len(calls), 'object')}, listed as {NO_GROUP!r}")
        return lines

    def _calls(
        self, pairs: Pairs, take_names: list[str]
    ) -> tuple[list[tuple[int, int]], dict[tuple[int, int], list[tuple[str, ...]]]]:
        """The take and the object of each pair by their numbers, and how the file can call each of these objects."""
        objects, store = list(zip(pairs.take.tolist(), pairs.object.tolist(), strict=True)), pairs.store
        calls = {}
        for take, number in dict.fromkeys(objects):
            of_uid, of_name = (
                {"take_uid": uid, "object_name": store.objects[number]} for uid in (store.takes[take], take_names[take])
            )
            # An object's name in Ego-Exo4D may end with a space; cells of the file are read without.
            calls[take, number] = [tuple(names[key].strip() for key in self.keys) for names in (of_uid, of_name)]
        return objects, calls


def read_groups(path: Path) -> Groups:
    """Read a file of groups. Raises UserError if it is none, or if two lines contradict each other."""
    header, lines = read_csv(path, "--groups")
    keys = tuple(key for key in KEYS if key in header)
    columns = {name: {} for name in header if name not in KEYS}
    if not keys or not columns or {*columns} & {"", *LONG_BREAKDOWNS}:
        remedy = "give object_name, take_uid or both, and a column with another name for each breakdown"
        raise UserError(f"--groups {path} has the columns {', '.join(header)!r}; {remedy}")
    if not lines:
        raise UserError(f"--groups {path} has no line below its header; give one for each object or take")
    for line in lines:
        if len(line) != len(header):
            fault = f"{line[0]!r} has {counted(len(line), 'cell')}, not {len(header)}; quote cells with commas"
            raise UserError(f"--groups {path}: the line of {fault}")
        cells = dict(zip(header, line, strict=True))
        key = tuple(cells[name] for name in keys)
        for column, labels in columns.items():
            if labels.setdefault(key, cells[column]) != cells[column]:
                fault = f"{' / '.join(key)} is {labels[key]!r} and {cells[column]!r}; drop one of the lines"
                raise UserError(f"--groups {path}: {fault}")
    return Groups(path, keys, columns)
