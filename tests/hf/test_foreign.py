"""A folder that is no checkpoint of ours, or more than one, is told what it is and what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dig_jax.convert.__main__ import main
from dig_jax.hf.files import companions
from dig_jax.hf.weights import load_params, read_model_config, save_hf
from tests import HF_OUTPUTS
from tests.tiny_model import ASSETS

BASE = "Qwen/Qwen3-VL-2B-Instruct"
PREFIX = "model.language_model."
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(HF_OUTPUTS / "untied", tmp_path / "untied"))


def load(folder):
    return load_params(folder, read_model_config(folder))


def write_adapter(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "base_model_name_or_path": BASE, "r": 8}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a.lora_A.weight": np.zeros((8, 4))}, folder / "adapter_model.safetensors")


def renamed(folder: Path, rename) -> None:
    file = folder / "model.safetensors"
    save_file({rename(k): v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})


def test_a_lora_folder_is_named_with_its_base(tmp_path):
    write_adapter(tmp_path / "lora")
    with pytest.raises(ValueError, match=rf"is a LoRA adapter of '{BASE}', .*merge_and_unload"):
        read_model_config(tmp_path / "lora")


@pytest.mark.parametrize("kept", [("adapter_config.json",), ("adapter_model.safetensors",)])
def test_an_adapter_beside_full_weights_is_not_ignored_in_silence(kept, folder):
    """transformers applies it where peft is installed: the same folder is two models."""
    write_adapter(folder)
    for file in folder.glob("adapter_*"):
        if file.name not in kept:
            file.unlink()
    with pytest.raises(ValueError, match=rf"has {kept[0]}, a LoRA adapter .*or move it out of the"):
        read_model_config(folder)
    (folder / kept[0]).rename(folder.parent / kept[0])
    load(folder)


def test_an_adapters_settings_are_never_copied(tmp_path, capsys):
    """An export with adapter_config.json but without its weights does not open in transformers."""
    source = Path(shutil.copytree(HF_OUTPUTS / "untied", tmp_path / "source"))
    config, params = read_model_config(source), load(source)
    write_adapter(source)
    (source / "trainer_state.json").write_text("{}")
    (source / "tf_model.h5").write_text("weights of another framework")
    left_out = {"adapter_config.json", "trainer_state.json", "tf_model.h5"}
    assert not left_out & {file.name for file in companions(source)}
    save_hf(tmp_path / "out", params, config, source_folder=source)
    assert not left_out & {file.name for file in (tmp_path / "out").iterdir()}
    assert main(["import", "--source", str(source), "--out", str(tmp_path / "in")]) == 1
    assert "has adapter_config.json and adapter_model.safetensors" in capsys.readouterr().err


def test_shards_without_an_index_are_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    with pytest.raises(
        FileNotFoundError,
        match=r"has no model.safetensors, but model-00001-of-00001.safetensors: fetch "
        r"model.safetensors.index.json",
    ):
        load(folder)


def test_pytorch_files_alone_are_named(folder):
    (folder / "model.safetensors").unlink()
    for n in (1, 2, 3):
        (folder / f"pytorch_model-0000{n}-of-00003.bin").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError,
        match=r"but pytorch_model-00001-of-00003.bin, pytorch_model-00002-of-00003.bin and 1 more, "
        r"which is not read here; write it as safetensors",
    ):
        load(folder)
    shutil.copy(HF_OUTPUTS / "untied" / "model.safetensors", folder)
    load(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"metadata": {}}, f"{INDEX} has no weight_map"),
        ({"weight_map": {}}, "weight_map is empty"),
        ({"weight_map": []}, r"weight_map=\[\] is not an object"),
        ({"weight_map": {"a": 3}}, "weight_map gives 3 as a file name"),
        ({"weight_map": {"a": "../b.safetensors"}}, "gives '../b.safetensors' as a file name"),
        ([], r"holds \[\], not an object"),
    ],
)
def test_an_index_that_names_no_files_is_named(index, message, folder):
    names = dict.fromkeys(
        load_file(folder / "model.safetensors"), "model-00001-of-00001.safetensors"
    )
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        load(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))  # fetched again
    load(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "policy.model."])
def test_keys_behind_a_prefix_are_named_with_it(prefix, folder):
    renamed(folder, lambda key: prefix + key)
    with pytest.raises(
        ValueError,
        match=rf"missing key .*, which has {prefix}\S+ instead; all keys .* prefix '{prefix}'",
    ):
        load(folder)


def test_keys_as_qwen2_spells_them_are_named(folder):
    renamed(folder, lambda key: key.replace(PREFIX, "model."))
    with pytest.raises(ValueError, match=r"all keys are there with 'model.' for 'model.lang"):
        load(folder)


def test_a_stray_name_is_shown_beside_the_missing_one(folder):
    wanted = f"{PREFIX}norm.weight"
    renamed(folder, lambda key: "model.final.weight" if key == wanted else key)
    with pytest.raises(ValueError, match=rf"missing key {wanted} .* has model.final.weight"):
        load(folder)


def test_a_missing_head_is_said_to_be_a_question_of_the_tie_flag(folder):
    file = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "lm_head.weight"}, file)
    with pytest.raises(ValueError, match=r"missing key lm_head\.weight .*word_embeddings=false"):
        load(folder)
    top = json.loads((folder / "config.json").read_text())
    for place in (top, top["text_config"]):
        place["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(top))
    load(folder)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 11422654\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_a_git_lfs_pointer_is_named_with_the_way_on(name, folder):
    (folder / name).write_text(POINTER)
    with pytest.raises(ValueError, match=rf"{name} is a git-LFS pointer, .*`git lfs pull`"):
        load(folder)
    if (HF_OUTPUTS / "untied" / name).is_file():  # as `git lfs pull` leaves it
        shutil.copy(HF_OUTPUTS / "untied" / name, folder)
        load(folder)


def test_a_text_of_another_encoding_is_fetched_again(folder):
    whole = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(whole.decode().encode("utf-16"))
    with pytest.raises(ValueError, match=r"config.json is not a text in UTF-8: .*; fetch it again"):
        load(folder)
    (folder / "config.json").write_bytes(whole)
    load(folder)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "3", "null", '"config"', "{", "", "\ufeff{}", "[" * 9999]
)
def test_a_config_that_is_no_object_is_named(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json (holds .*not an object|is not valid JSON)"):
        read_model_config(folder)
    shutil.copy(HF_OUTPUTS / "untied" / "config.json", folder)  # "fetch it again"
    read_model_config(folder)


@pytest.mark.parametrize("place", ["top", "text_config"])
def test_a_quantised_folder_is_refused_in_one_line(place, folder):
    """Their config lists hundreds of layers that were left out."""
    top = json.loads((folder / "config.json").read_text())
    settings = {"quant_method": "fp8", "modules_to_not_convert": [f"a.{n}" for n in range(300)]}
    (top if place == "top" else top[place])["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(top))
    with pytest.raises(ValueError, match=r"quant_method='fp8'; use the unquantised") as error:
        read_model_config(folder)
    assert len(str(error.value)) < 300


def test_the_shipped_base_needs_no_remedy():
    assert read_model_config(ASSETS).text.vocab == 768
