"""Checkpoints cross the border exactly or not at all: every key counted, every bit kept."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dig_jax.hf.weights import load_params, read_model_config, save_hf
from dig_jax.model.specs import model_specs, named_specs
from tests import HF_OUTPUTS

CASES = ("tied", "untied")
EMBED = "model.language_model.embed_tokens.weight"
PATCH = "model.visual.patch_embed.proj.weight"


@pytest.fixture
def folder(tmp_path):
    """A writable copy of the tied checkpoint."""
    return Path(shutil.copytree(HF_OUTPUTS / "tied", tmp_path / "tied"))


def rewrite(folder: Path, change) -> None:
    """Replace the tensors of a single-file checkpoint by change(tensors)."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def edit_config(folder: Path, change) -> None:
    path = folder / "config.json"
    top = json.loads(path.read_text())
    change(top)
    path.write_text(json.dumps(top))


def load(folder: Path):
    return load_params(folder, read_model_config(folder))


def split(folder: Path, first: dict, second: dict) -> None:
    """The checkpoint as two shards with an index."""
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {}
    for name, tensors in zip(names, (first, second), strict=True):
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("name", CASES)
def test_import_export_import_keeps_every_bit(name, tmp_path):
    """HF tensor -> ours -> HF tensor, and ours -> HF -> ours."""
    config = read_model_config(HF_OUTPUTS / name)
    params = load_params(HF_OUTPUTS / name, config)
    save_hf(tmp_path / "out", params, config, source_folder=HF_OUTPUTS / name)
    before = load_file(HF_OUTPUTS / name / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert after[key].dtype == np.float32
        np.testing.assert_array_equal(after[key], tensor.astype(np.float32), err_msg=key)
    assert read_model_config(tmp_path / "out") == config
    again = load_params(tmp_path / "out", config)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_layout_of_a_known_weight(folder):
    """q_proj rows are (head, h) and the patch kernel flattens as channel, time, y, x."""
    tensors, params = load_file(folder / "model.safetensors"), load(folder)
    c = read_model_config(folder)
    q = tensors["model.language_model.layers.2.self_attn.q_proj.weight"]
    assert params["blocks"]["wq"][2, 5, 3, 7] == q[3 * c.text.head_dim + 7, 5]
    kernel = tensors[PATCH]
    p = c.vision.patch
    assert params["vision"]["patch"][((1 * 2 + 1) * p + 2) * p + 3, 9] == kernel[9, 1, 1, 2, 3]
    qkv = tensors["model.visual.blocks.1.attn.qkv.weight"]
    assert params["vision"]["blocks"]["wqkv"][1, 4, 2, 1, 6] == qkv[2 * 32 + 16 + 6, 4]


def test_progress_sees_every_tensor_once():
    config = read_model_config(HF_OUTPUTS / "untied")
    seen = []

    def progress(items, label):
        for item in items:
            yield item
            seen.append((label, item[-1]))

    load_params(HF_OUTPUTS / "untied", config, progress=progress)
    keys = load_file(HF_OUTPUTS / "untied" / "model.safetensors")
    assert sorted(seen) == sorted(("weights", key) for key in keys)


@pytest.mark.parametrize("name", CASES)
def test_a_sharded_export_reads_back_the_same(name, tmp_path):
    """Files of bounded size, an index that names each key once."""
    config = read_model_config(HF_OUTPUTS / name)
    params = load_params(HF_OUTPUTS / name, config)
    out = tmp_path / "out"
    save_hf(out, params, config, source_folder=None, shard_bytes=300_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(out.glob("model-*-of-*.safetensors"))
    assert len(files) > 2
    assert set(index["weight_map"].values()) == {file.name for file in files}
    arrays = [tensor for file in files for tensor in load_file(file).values()]
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays)
    assert all(file.stat().st_size < 310_000 for file in files)
    jax.tree.map(np.testing.assert_array_equal, params, load_params(out, config))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_export_is_the_rounded_weight(dtype, tmp_path):
    config = read_model_config(HF_OUTPUTS / "tied")
    params = jax.tree.map(lambda a: a * 1.001, load_params(HF_OUTPUTS / "tied", config))
    save_hf(tmp_path / "out", params, config, source_folder=None, dtype=dtype)
    narrow = np.dtype(getattr(ml_dtypes, dtype, dtype))
    assert load_file(tmp_path / "out" / "model.safetensors")[EMBED].dtype == narrow
    for ours, theirs in zip(
        jax.tree.leaves(params), jax.tree.leaves(load(tmp_path / "out")), strict=True
    ):
        rounded = np.asarray(ours).astype(narrow).astype(np.float32)
        np.testing.assert_array_equal(rounded, theirs)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize("name", CASES)
def test_an_export_speaks_both_spellings(name, tmp_path):
    """4.57 reads rope_theta, rope_scaling and the text's tie flag; 5.x the others."""
    config = read_model_config(HF_OUTPUTS / name)
    params = load_params(HF_OUTPUTS / name, config)
    edit = Path(shutil.copytree(HF_OUTPUTS / name, tmp_path / "source"))
    edit_config(edit, lambda top: top.update(torch_dtype="bfloat16", left_alone=[1]))
    (edit / "generation_config.json").write_text('{"eos_token_id": [245, 244], "mine": 1}')
    (edit / "tokenizer.json").write_text("any bytes")
    (edit / "old.bin").write_text("weights")
    save_hf(tmp_path / "out", params, config, source_folder=edit)
    top = json.loads((tmp_path / "out" / "config.json").read_text())
    text, c = top["text_config"], config.text
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == c.rope_theta
    for rope in (text["rope_scaling"], text["rope_parameters"]):
        assert tuple(rope["mrope_section"]) == c.mrope_section
        assert rope["mrope_interleaved"] is True
    assert top["tie_word_embeddings"] is text["tie_word_embeddings"] is c.tied
    assert top["vision_config"]["model_type"] == "qwen3_vl"
    assert top["left_alone"] == [1]
    assert "torch_dtype" not in top
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        *("golden.npz", "checksums.json"),
    }
    for file in ("generation_config.json", "tokenizer.json"):
        assert (tmp_path / "out" / file).read_bytes() == (edit / file).read_bytes()


def older(top: dict) -> None:
    """Rewrite a 5.x config.json as 4.57 would have written it."""
    text = top["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope
    text["tie_word_embeddings"] = top.pop("tie_word_embeddings")
    top["vision_config"].pop("rope_parameters")


@pytest.mark.parametrize("name", CASES)
def test_the_older_spelling_reads_the_same(name, tmp_path):
    copy = Path(shutil.copytree(HF_OUTPUTS / name, tmp_path / "copy"))
    edit_config(copy, older)
    assert read_model_config(copy) == read_model_config(HF_OUTPUTS / name)


@pytest.mark.parametrize("name", CASES)
def test_tie_flags_that_disagree_are_settled_by_the_weights(name, tmp_path):
    """4.57 leaves a stale flag at the top of a tied checkpoint."""
    copy = Path(shutil.copytree(HF_OUTPUTS / name, tmp_path / "copy"))
    edit_config(copy, lambda top: top.update(tie_word_embeddings=False))
    edit_config(copy, lambda top: top["text_config"].update(tie_word_embeddings=True))
    assert read_model_config(copy) == read_model_config(HF_OUTPUTS / name)


def drop_theta(top):
    del top["text_config"]["rope_parameters"]["rope_theta"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_theta, "text_config has no rope_theta"),
        (lambda top: top["text_config"].update(rope_theta=1e6), "two values of rope_theta"),
        (lambda top: top.update(model_type="qwen3_vl_moe"), "model_type='qwen3_vl_moe'"),
        (lambda top: top.update(quantization_config={"bits": 4}), "quantization_config"),
        (lambda top: top["text_config"].update(attention_bias=True), "attention_bias=True"),
        (lambda top: top["vision_config"].update(hidden_act="gelu"), "hidden_act='gelu'"),
        (lambda top: top["text_config"].pop("head_dim"), "text_config has no head_dim"),
        (lambda top: top.pop("vision_config"), "has no vision_config"),
        (lambda top: top.pop("image_token_id"), "has no image_token_id"),
        (lambda top: top["text_config"].pop("eos_token_id"), "names no eos_token_id"),
    ],
)
def test_a_configuration_we_do_not_compute_is_refused(change, message, folder):
    """Silent defaults are how a checkpoint comes to speak nonsense."""
    edit_config(folder, change)
    with pytest.raises(ValueError, match=message):
        read_model_config(folder)


def test_stop_tokens_come_from_the_generation_config_first(folder):
    assert read_model_config(folder).eos_tokens == (245,)
    path = folder / "generation_config.json"
    path.write_text('{"eos_token_id": [7, 9], "pad_token_id": 3}')
    config = read_model_config(folder)
    assert (config.eos_tokens, config.pad_token) == ((7, 9), 3)


def test_what_is_no_checkpoint_folder_is_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_model_config(tmp_path / "nowhere")
    shutil.copytree(HF_OUTPUTS / "tied", tmp_path / "nowhere")
    read_model_config(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        read_model_config(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        read_model_config(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"model.visual.extra": t[EMBED]}, r"unknown key model\.visual\.extra"),
        (lambda t: {k: v for k, v in t.items() if k != PATCH}, f"missing key {PATCH}"),
        (lambda t: t | {EMBED: t[EMBED][:-1]}, rf"key {EMBED} .* has shape \[250, 48\]"),
        (lambda t: t | {PATCH.removeprefix("model."): t[PATCH]}, f"duplicate key {PATCH}"),
        (lambda t: t | {"lm_head.weight": t[EMBED] + 1}, r"tied, but its lm_head\.weight differs"),
    ],
)
def test_a_wrong_key_is_named(change, message, folder):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        load(folder)
    shutil.copy(HF_OUTPUTS / "tied" / "model.safetensors", folder)  # those of config.json's own
    load(folder)


@pytest.mark.parametrize("untie", [True, False])
def test_an_unequal_head_is_read_or_dropped_as_advised(untie, folder):
    rewrite(folder, lambda t: t | {"lm_head.weight": t[EMBED] + 1})
    advice = r"set tie_word_embeddings to false in config.json, or drop the head"
    with pytest.raises(ValueError, match=advice):
        load(folder)
    if untie:
        edit_config(folder, lambda top: top.update(tie_word_embeddings=False))
    else:
        rewrite(folder, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    assert load(folder)


def test_a_tied_head_that_equals_the_embedding_is_read(folder):
    before = load(folder)
    rewrite(folder, lambda t: t | {"lm_head.weight": t[EMBED].copy()})
    jax.tree.map(np.testing.assert_array_equal, before, load(folder))


def test_an_untied_checkpoint_needs_its_head(tmp_path):
    copy = Path(shutil.copytree(HF_OUTPUTS / "untied", tmp_path / "copy"))
    rewrite(copy, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    with pytest.raises(ValueError, match=r"missing key lm_head\.weight"):
        load(copy)


def test_keys_without_the_leading_model_are_read(folder):
    before = load(folder)
    rewrite(folder, lambda t: {k.removeprefix("model."): v for k, v in t.items()})
    jax.tree.map(np.testing.assert_array_equal, before, load(folder))


def test_shards_may_not_share_a_key_nor_be_missing(folder):
    """An index hides a duplicate: it names one file per key."""
    tensors = load_file(folder / "model.safetensors")
    first = dict(list(tensors.items())[:9])
    rest = {key: value for key, value in tensors.items() if key not in first}
    before = load(folder)
    split(folder, first, rest)
    jax.tree.map(np.testing.assert_array_equal, before, load(folder))
    key = next(iter(first))
    shutil.copy(HF_OUTPUTS / "tied" / "model.safetensors", folder / "model.safetensors")
    for stale in (["model.safetensors"], ["model.safetensors.index.json"]):
        copy = Path(shutil.copytree(folder, folder.parent / stale[0]))
        with pytest.raises(ValueError, match="remove the stale one"):
            load(copy)
        (copy / stale[0]).unlink()
        load(copy)
    split(folder, first, rest | {key: first[key]})
    with pytest.raises(ValueError, match=f"duplicate key {key} .*00001-of-00002.*00002-of-00002"):
        load(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no model-00002.*; is the checkpoint complete"
    ):
        load(folder)
    save_file(rest, folder / "model-00002-of-00002.safetensors")  # completed
    load(folder)


def test_an_export_never_leaves_half_a_folder(tmp_path):
    """A failed export leaves the earlier one; other people's folders are not replaced."""
    config = read_model_config(HF_OUTPUTS / "tied")
    params = load_params(HF_OUTPUTS / "tied", config)
    out = tmp_path / "out"
    save_hf(out, params, config, source_folder=None)
    first = (out / "model.safetensors").read_bytes()
    broken = params | {"norm": params["norm"][:-1]}
    with pytest.raises(ValueError, match=r"params norm has shape \(47,\)"):
        save_hf(out, broken, config, source_folder=None)
    assert (out / "model.safetensors").read_bytes() == first
    doubled = params | {"norm": 2 * params["norm"]}
    save_hf(out, doubled, config, source_folder=None)
    np.testing.assert_array_equal(load(out)["norm"], doubled["norm"])
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something other than a checkpoint; name another"):
        save_hf(tmp_path / "notes", params, config, source_folder=None)
    with pytest.raises(FileNotFoundError, match=r"source folder .*gone does not exist"):
        save_hf(tmp_path / "other", params, config, source_folder=tmp_path / "gone")
    save_hf(tmp_path / "other", params, config, source_folder=HF_OUTPUTS / "tied")
    untied = dataclasses.replace(config, text=dataclasses.replace(config.text, tied=False))
    with pytest.raises(ValueError, match="differ in structure"):
        save_hf(out, params, untied, source_folder=None)
    with pytest.raises(ValueError, match="dtype='int8'"):
        save_hf(out, params, config, source_folder=None, dtype="int8")
    for dtype in ("float32", "bfloat16", "float16"):  # those that the message names
        save_hf(out, params, config, source_folder=None, dtype=dtype)


def test_an_export_is_readable_by_others_and_counts_its_parameters(tmp_path):
    config = read_model_config(HF_OUTPUTS / "tied")
    params = load_params(HF_OUTPUTS / "tied", config)
    out = tmp_path / "out"
    save_hf(out, params, config, source_folder=None, shard_bytes=300_000, files={"README.md": "x"})
    metadata = json.loads((out / "model.safetensors.index.json").read_text())["metadata"]
    assert metadata["total_parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    modes = {file.stat().st_mode for file in out.iterdir()}
    assert len(modes) == 1
    assert (out / "README.md").read_text() == "x"


def test_an_export_reads_one_parameter_at_a_time(tmp_path):
    """From a function: in the table's order, each once, and the same bytes as from a tree."""
    config = read_model_config(HF_OUTPUTS / "untied")
    params = load_params(HF_OUTPUTS / "untied", config)
    names = [name for name, _ in named_specs(model_specs(config))]
    leaves = dict(zip(names, map(np.asarray, jax.tree.leaves(params)), strict=True))
    asked = []

    def read(name):
        asked.append(name)
        return leaves[name]

    save_hf(tmp_path / "one", read, config, source_folder=None, shard_bytes=300_000)
    save_hf(tmp_path / "tree", params, config, source_folder=None, shard_bytes=300_000)
    assert asked == names
    for file in (tmp_path / "tree").iterdir():
        assert (tmp_path / "one" / file.name).read_bytes() == file.read_bytes()
