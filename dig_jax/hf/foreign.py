"""What a folder holds instead of a checkpoint, or beside it: said by name, with the way on."""

from collections.abc import Collection

from etils import epath

from dig_jax.common.json_files import read_json, shown

ADAPTER = "adapter_config.json"
_ADAPTERS = (ADAPTER, "adapter_model.safetensors", "adapter_model.bin")
OTHERS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ckpt")
_SAVE = "rename them and save the tensors again"
_TEXT, _OLD_TEXT = "model.language_model.", "model."  # Qwen2-VL's spelling has no middle


def refuse_adapter(folder: epath.Path) -> None:
    """Raises ValueError where a folder is, or has beside its weights, a LoRA adapter of peft's.

    transformers, where peft is installed, applies such an adapter on opening; nothing here does.
    """
    there = [name for name in _ADAPTERS if (folder / name).exists()]
    if not there:
        return
    settings = read_json(folder / ADAPTER, missing={})
    base = shown(settings.get("base_model_name_or_path") or "another checkpoint")
    merge = "merge it (peft's merge_and_unload, then save_pretrained) and name the merged folder"
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} is a LoRA adapter of {base}, not a checkpoint; {merge}")
    raise ValueError(
        f"{folder} has {' and '.join(there)}, a LoRA adapter of {base} that would not be applied; "
        f"{merge}, or move it out of the folder to use the weights beside it as they are"
    )


def no_weights(folder: epath.Path, wanted: str) -> FileNotFoundError:
    """The error for a folder without the weights of one file or an index, by what it has."""
    names = sorted(file.name for file in folder.iterdir())
    tensors = [name for name in names if name.endswith(".safetensors")]
    others = [name for name in names if name.endswith(OTHERS) and "model" in name]
    if tensors:
        have = f"but {_few(tensors)}: fetch {wanted}.index.json too, or name a single file {wanted}"
    elif others:
        have = (
            f"but {_few(others)}, which is not read here; write it as safetensors by transformers' "
            f"from_pretrained and save_pretrained"
        )
    else:
        have = "nor other weights; is the checkpoint complete?"
    return FileNotFoundError(f"{folder} has no {wanted}, {have}")


def spelling_hint(wanted: Collection[str], found: Collection[str]) -> str:
    """How the keys of a folder are spelled instead, if one way explains them all; else ""."""
    if not found:
        return "the folder has no tensors at all"
    key = next(iter(wanted))
    ends = [name.removesuffix(key) for name in found if name.endswith("." + key)]
    for prefix in sorted(set(ends), key=len):
        if all(prefix + name in found for name in wanted):
            return f"all keys are there behind the prefix {prefix!r}: {_SAVE}"
    if all(name.replace(_TEXT, _OLD_TEXT) in found for name in wanted):
        return f"all keys are there with {_OLD_TEXT!r} for {_TEXT!r}, as Qwen2-VL spells: {_SAVE}"
    return ""


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
