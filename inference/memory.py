"""What other frames of a take say about an object: `--memory`."""

from collections.abc import Mapping
from typing import Any

from model.crops import Spot
from model.locator import Description

CHOICES = ("none", "past")
HELP = (
    "what else a strong network knows of an object than its mask in the frame: nothing (none), or its masks in earlier "
    "frames of the query camera and where it was last found (past, the default)"
)


class Memory:
    """Of one take, frame after frame: what the query frames show of each object, which adds up, and where it was last
    found.
    """

    def __init__(self) -> None:
        self.descriptions: dict[Any, Description] = {}
        self.spots: dict[Any, Spot] = {}

    def remember(self, shown: Mapping[Any, Description]) -> None:
        """What a frame shows of objects."""
        for key, description in shown.items():
            known = self.descriptions.get(key)
            self.descriptions[key] = known.plus(description) if known else description

    def recall(self, key: Any, shown: Description) -> Description:
        """What a frame shows, with all that is known from others."""
        known = self.descriptions.get(key)
        return shown.plus(known) if known else shown
