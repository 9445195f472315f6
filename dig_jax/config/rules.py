"""Rules that several sections share."""

import re

from dig_jax.common.typed import require


def check_local(where: str, folder: str) -> None:
    """A path takes gs://BUCKET for a folder named "gs:" and would be made here."""
    remedy = "name a folder of this machine; checkpoint.root and data.root may be in a bucket"
    require("://" not in folder, where, folder, "is an address", remedy)


def check_place(where: str, folder: str) -> None:
    """A folder of this machine, or one below a bucket's name."""
    ok = "://" not in folder or re.fullmatch(r"gs://[^/]+/+[^/].*", folder)
    rule = "is neither a path nor gs://BUCKET/FOLDER"
    require(bool(ok), where, folder, rule, "name a folder, in a bucket one below its root")
