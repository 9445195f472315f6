"""What the tasks' YAML names: lmms-eval's own functions but for the question's words.

lmms-eval reads this file in its own environment. What is asked is what `benchmark run` asks, so
that answers can be compared too; pictures, reading and sums are lmms-eval's.
"""

import json
from pathlib import Path

from lmms_eval.tasks.pope.utils import *  # noqa: F403
from lmms_eval.tasks.vstar_bench.utils import *  # noqa: F403

_WORDS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))


def question(doc):
    return _WORDS[doc.get("question") or doc["text"]]
