"""Write tests/hf_outputs/prompts.json: what Hugging Face's own Qwen3VLProcessor makes of prompts.

    python -m scripts.make.prompt_goldens --out tests/hf_outputs/prompts.json

Needs transformers with torch and torchvision (its processor class does not import without);
dig_jax is not needed. The default tests compare `prompt.make_prompt` with the file.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import AutoConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from dig_jax.common.commandline import path_of

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "assets" / "tiny_qwen3vl"
THINKING = ROOT / "tests" / "templates" / "thinking.jinja"
FIND = "Find every difference between the two images."

# template, add_vision_id, (height, width) of each image, question
CASES = (
    ("instruct", False, (), "What is 2 + 20?"),
    ("instruct", True, (), "Grüße, 東京?\nA second line."),
    ("instruct", False, ((64, 96),), "What is shown?"),
    ("instruct", False, ((64, 96), (64, 96)), FIND),
    ("instruct", True, ((64, 96), (64, 96)), FIND),
    ("instruct", False, ((33, 200), (150, 70)), FIND),
    ("instruct", True, ((1, 100), (5, 3), (120, 80)), "Which is smallest?"),
    ("legacy", False, ((100, 70), (64, 96)), FIND),
    ("thinking", False, (), "Why?"),
    ("thinking", False, ((72, 88), (72, 88)), FIND),
    ("thinking", True, ((33, 200), (150, 70)), FIND),
    ("thinking", True, ((64, 64), (48, 160), (300, 20)), "Which is tallest?"),
)


def make_folder(folder: Path, template: str) -> Path:
    """The tiny base without weights, with the Instruct or Thinking template or a 4.57-era file."""
    for file in BASE.iterdir():
        if file.suffix in (".json", ".txt", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    jinja = folder / "chat_template.jinja"
    if template == "thinking":
        shutil.copyfile(THINKING, jinja)
    if template == "legacy":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": jinja.read_text()}))
        jinja.unlink()
    return folder


def run_case(processor: Qwen3VLProcessor, model, case: tuple) -> dict:
    template, add_vision_id, sizes, question = case
    content = [{"type": "image"} for _ in sizes] + [{"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        add_vision_id=add_vision_id,
    )
    pictures = [Image.new("RGB", size[::-1]) for size in sizes] or None
    made = processor(text=[text], images=pictures, return_tensors="pt")
    grid = made.get("image_grid_thw")
    positions, _ = model.get_rope_index(
        made["input_ids"], made["mm_token_type_ids"], image_grid_thw=grid
    )
    return {
        "template": template,
        "add_vision_id": add_vision_id,
        "sizes": sizes,
        "question": question,
        "input_ids": made["input_ids"][0].tolist(),
        "mm_token_type_ids": made["mm_token_type_ids"][0].tolist(),
        "image_grid_thw": [] if grid is None else grid.tolist(),
        "position_ids": positions[:, 0].tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path_of, required=True)
    out = parser.parse_args().out
    with torch.device("meta"):  # positions need no weights
        model = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(BASE)).model
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            processor = Qwen3VLProcessor.from_pretrained(make_folder(Path(folder), case[0]))
        rows.append(run_case(processor, model, case))
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    made_by = json.dumps(f"transformers {transformers.__version__}, torch {torch.__version__}")
    out.write_text(f'{{"made_by": {made_by}, "cases": [\n{body}\n]}}\n')
    print(f"{out}: {len(rows)} prompts, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
