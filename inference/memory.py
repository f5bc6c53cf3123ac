"""What other frames of a take say about an object: `--memory`."""

from collections.abc import Mapping
from typing import Any

from model.crops import Spot
from model.locator import Description

CHOICES = ("none", "past", "all")
HELP = (
    "what else a strong network knows of an object than its mask in the frame: nothing (none), its masks in earlier "
    "frames of the query camera (past), or in all others (all), and where it was last found (default: past)"
)


class Memory:
    """Of one take, frame after frame: what the query frames show of each object, which adds up, and where it was last
    found. "past" adds frames up as they come; with "all", each is remembered before the first is asked for.
    """

    def __init__(self, choice: str):
        self.choice = choice
        self.descriptions: dict[Any, Description] = {}
        self.spots: dict[Any, Spot] = {}

    def remember(self, shown: Mapping[Any, Description]) -> None:
        """What a frame shows of objects."""
        for key, description in shown.items():
            known = self.descriptions.get(key)
            self.descriptions[key] = known.plus(description) if known else description

    def recall(self, key: Any, shown: Description) -> Description:
        """What a frame shows, with all that is known from others. With "all", the frame itself has been remembered."""
        known = self.descriptions.get(key)
        if known is None:
            return shown
        if self.choice == "all":
            return shown._replace(area=known.area, total=known.total)
        return shown.plus(known)
