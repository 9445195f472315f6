"""Rules and bounds that several sections share."""

import re

from dig_jax.common.fields import require

# Far beyond what is run, and within what the code can count and keep: i32 numbers of draws.
STEPS = 10**6  # of a run
DRAWS = 10**8  # pairs of a run, steps x pairs_per_step: a table has eight bytes for each
PAIRS = 10**7  # of a split
GROUP = 1024  # answers to one pair
TOKENS = 2**20  # of a prompt or an answer
BOXES = 1024  # of one answer or one pair
SIDE = 2**14  # px


def check_local(where: str, folder: str) -> None:
    """A path takes gs://BUCKET for a folder named "gs:" and would be made here."""
    remedy = "name a folder of this machine; checkpoint.root and data.root may be in a bucket"
    require("://" not in folder, where, folder, "is an address", remedy)


def check_place(where: str, folder: str) -> None:
    """A folder of this machine, or one below a bucket's name."""
    ok = "://" not in folder or re.fullmatch(r"gs://[^/]+/+[^/].*", folder)
    rule = "is neither a path nor gs://BUCKET/FOLDER"
    require(bool(ok), where, folder, rule, "name a folder, in a bucket one below its root")
