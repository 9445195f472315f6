"""What one release of transformers makes of a checkpoint folder; run in a process of its own.

    PYTHONPATH=<release> python tests/hf/hf_logits.py logits FOLDER INPUTS.npz OUT.npz
    PYTHONPATH=<release> python tests/hf/hf_logits.py resave FOLDER OUT

`logits` writes f32 logits[B, P, V] and the release's version; `resave` lets the release write the
checkpoint anew, config.json in its own spelling.
"""

import inspect
import sys

import numpy as np
import torch
import transformers


def open_model(folder: str) -> torch.nn.Module:
    return transformers.Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@torch.no_grad()
def write_logits(folder: str, inputs: str, out: str) -> None:
    model = open_model(folder)
    given = {name: torch.from_numpy(array) for name, array in np.load(inputs).items()}
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # 5.x; 4.57 has none
        given["mm_token_type_ids"] = (given["input_ids"] == model.config.image_token_id).long()
    np.savez(out, logits=model(**given).logits.numpy(), version=transformers.__version__)


def resave(folder: str, out: str) -> None:
    open_model(folder).save_pretrained(out)


if __name__ == "__main__":
    {"logits": write_logits, "resave": resave}[sys.argv[1]](*sys.argv[2:])
