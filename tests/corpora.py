"""Small corpora for tests: painted pairs by the fake worker, and pairs that know only boxes."""

import numpy as np

from dig_jax.common.files import write_json
from dig_jax.data import records
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from tests import FAKE_WORKER

LOOK = SceneConfig(width=64, height=48)
FAKE = FAKE_WORKER


def paint_split(root, split, pairs, seed=0, shard_pairs=4, **draw):
    """A split of plans painted without Blender."""
    spec = SplitSpec(Draw(split, seed, **draw), pairs, shard_pairs)
    return render_split(root, spec, LOOK, 2, lambda done, total, note: None, FAKE)


def plain_pair(*boxes, size=(48, 64), seed=0, **fields):
    """A pair as an import gives it: noise, and B brighter in every box."""
    a = np.random.default_rng(seed).integers(0, 20, (*size, 3), np.uint8)
    b = a.copy()
    for x0, y0, x1, y1 in boxes:
        b[y0:y1, x0:x1] += 200
    differences = [{"box": list(box), "type": "add", **fields} for box in boxes]
    meta = {"differences": differences, "width": size[1], "height": size[0]}
    return records.Pair(a, b, None, None, meta)


def write_split(root, split, pairs):
    """Pairs as a split whose manifest tells nothing but its shards."""
    folder = root / split
    folder.mkdir(parents=True)
    path = folder / records.shard_name(0, 1)
    stored = [pair if isinstance(pair, bytes) else records.encode(pair) for pair in pairs]
    entry = records.write_shard(path, stored, {})
    facts = {"complete": True, "pairs": len(pairs), "shard_count": 1, "shards": [entry]}
    write_json(folder / records.MANIFEST, facts)


def stored_records(root, split):
    """The bytes of every record of a split, in order."""
    shards = sorted((root / split).glob("*.arrayrecord"))
    return [record for shard in shards for record in records.read_shard(shard)]
