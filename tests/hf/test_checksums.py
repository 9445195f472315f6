"""A folder that we wrote is not used after one of its files has changed."""

import json

import jax
import numpy as np
import pytest

from dig_jax.hf import weights
from dig_jax.hf.checksums import CHECKSUMS
from tests.tiny_model import ASSETS, make_tiny, small_base


@pytest.fixture
def folder(tmp_path):
    params = make_tiny(jax.random.key(0), small_base())
    weights.save_hf(tmp_path / "hf", params, small_base(), source_folder=ASSETS, shard_bytes=20_000)
    return tmp_path / "hf"


def opened(folder):
    return weights.load_params(folder, weights.read_model_config(folder))


def faults(data: bytes, rng) -> dict[str, bytes | None]:
    """Fault -> what the file holds then; None: it is gone."""
    turned = bytearray(data)
    turned[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return {"flip": bytes(turned), "cut": data[: len(data) // 2], "empty": b"", "gone": None}


def test_every_planted_fault_is_found_before_the_folder_is_used(folder):
    opened(folder)
    rng, planted = np.random.default_rng(0), 0
    names = [path.name for path in folder.iterdir() if path.name != CHECKSUMS]
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} <= set(names)
    assert any(name.startswith("model-0") for name in names)
    for name in names:
        path, good = folder / name, (folder / name).read_bytes()
        for bad in faults(good, rng).values():
            path.write_bytes(bad) if bad is not None else path.unlink()
            with pytest.raises((ValueError, FileNotFoundError), match=name.replace(".", r"\.")):
                opened(folder)
            planted += 1
        path.write_bytes(good)
    opened(folder)
    assert planted == 4 * len(names)


def test_a_change_of_ones_own_is_used_once_the_checksums_are_deleted(folder):
    """The remedy that the message names."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 512
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"delete its checksums\.json"):
        opened(folder)
    (folder / CHECKSUMS).unlink()
    opened(folder)
    assert weights.read_model_config(folder).text.context == 512


@pytest.mark.parametrize("text", ["", "[]", "{", '{"config.json": 1}', "\0"])
def test_damaged_checksums_are_named(folder, text):
    (folder / CHECKSUMS).write_text(text)
    with pytest.raises(ValueError, match=r"checksums\.json is damaged"):
        opened(folder)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors.index.json", CHECKSUMS])
def test_a_damaged_folder_is_written_again_as_advised(folder, lost):
    """Without config.json it passed for a folder of something else, which is not replaced."""
    path = folder / lost
    path.write_text("") if lost == CHECKSUMS else path.unlink()
    with pytest.raises((ValueError, FileNotFoundError)):
        opened(folder)
    params = make_tiny(jax.random.key(0), small_base())
    weights.save_hf(folder, params, small_base(), source_folder=ASSETS, shard_bytes=20_000)
    opened(folder)


def test_checksums_do_not_travel_as_a_companion(folder, tmp_path):
    weights.save_hf(
        tmp_path / "again", opened(folder), small_base(), source_folder=folder, dtype="bfloat16"
    )
    again = opened(tmp_path / "again")
    assert jax.tree.structure(again) == jax.tree.structure(opened(folder))
