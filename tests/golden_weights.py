from tests.made.golden_network import *  # noqa: F403
