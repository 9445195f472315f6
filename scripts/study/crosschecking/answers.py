"""Answers as models phrase them: right, wrong and unclear ones, each with what its writer meant.

Seeded, and made from nothing but this file: questions without pictures, whose targets are drawn.
"""

import random
from collections.abc import Iterator

TASKS = {  # as `benchmarks.catalog` calls them -> kind of their answers
    "pope": "yes_no", "mme": "yes_no", "vstar": "letter", "mmvp": "letter", "cvbench": "letter",
    "scienceqa": "letter", "mmstar": "letter", "mmbench": "letter", "hrbench8k": "letter",
    "ai2d": "letter", "refcoco_val": "box",
}  # fmt: skip
NOUNS = (
    "A dog", "A man riding a horse", "red", "blue", "two", "3", "the left side", "a wooden chair",
    "behind the car", "Evaporation", "An umbrella", "left", "a bus stop", "green", "five", "12",
)  # fmt: skip
# form -> template; {y} what is meant, {n} the other word
WORDS = {
    "plain": "{Y}", "full stop": "{Y}.", "lower case": "{y}", "upper case": "{YY}",
    "bold": "**{Y}**", "sentence": "{Y}, that is what the picture shows.",
    "answer:": "Answer: {y}", "answer is": "The answer is {y}.", "at the end": "I looked: {y}!",
    "tag": "<answer>{Y}</answer>", "boxed": "\\boxed{{{Y}}}", "full width": "{WIDE}。",
    "new lines": "{Y}\r\n\r\n", "quoted": '"{Y}"',
}  # fmt: skip
UNCLEAR_WORDS = {
    "not sure": "Not sure.", "both": "Yes and no.", "none": "It cannot be told.", "empty": "",
    "inside words": "I know nothing of it; eyes differ.",
}  # fmt: skip
# {L} what is meant, {M} another letter, {T} its option's text
LETTERS = {
    "plain": "{L}", "full stop": "{L}.", "brackets": "({L})", "bold": "**{L}**",
    "letter and text": "{L}. {T}", "lower case": "({l})", "answer:": "Answer: {L}",
    "answer is": "The answer is {L}.", "bold at the end": "The correct answer is **{L}**.",
    "based on": "Based on the image, the answer is {L}",
    "article, answer is": "A cat is visible, so the answer is {L}",
    "article, so": "A dog is facing left, so {L}",
    "text": "{T}", "text in a sentence": "It is {T}.",
    "tag": "<answer>{L}</answer>", "boxed": "\\boxed{{{L}}}", "full width": "{WIDE}",
    "options discussed": "Option {M} does not fit.\n\nThe correct answer is **{L}. {T}**",
    "other refused": "The answer is {L} because {M} is wrong.",
    "first, reasons": "{L}. This is what one sees at the left of the picture, near the door.",
    "new lines": "{L}\r\n", "choose": "I would choose {L}",
}  # fmt: skip
UNCLEAR_LETTERS = {
    "two letters": "{L} or {M}", "both": "Both {L} and {M} fit.", "none": "I cannot tell.",
    "empty": "", "another text": "Purple", "inside words": "CABBAGE, BAD CAB",
    "no option": "The answer is a zebra",
}  # fmt: skip
# {B} the box meant, {O} another one, {SWAP} its corners swapped; {NEAR} a right box, {PX} it in
# pixels, {UNIT} in parts of 1
BOXES = {
    "plain": '```json\n[{{"bbox_2d": {B}, "label": "it"}}]\n```',
    "without a fence": '[{{"bbox_2d": {B}}}]', "object": '{{"bbox_2d": {B}, "label": "it"}}',
    "list alone": "{B}", "prose": "It stands at {B} in the picture.",
    "single quotes": "[{{'bbox_2d': {B}}}]", "key bbox": '[{{"bbox": {B}}}]',
    "first of two": '[{{"bbox_2d": {B}}}, {{"bbox_2d": {O}}}]',
    "cut off": '[{{"bbox_2d": {B}}}, {{"bbox_2d": [1', "strings": '[{{"bbox_2d": {STRINGS}}}]',
    "swapped corners": "{SWAP}", "number before": 'I see [2] things: [{{"bbox_2d": {B}}}]',
}  # fmt: skip
UNCLEAR_BOXES = {  # none of these says a right box in thousandths first
    "pixels": '[{{"bbox_2d": {PX}}}]', "parts of 1": '[{{"bbox_2d": {UNIT}}}]',
    "bare numbers": "{BARE}", "counts": "2 dogs, 1 cat, 3 birds, 4 groups", "empty list": "[]",
    "right one second": '[{{"bbox_2d": [0, 0, 40, 40]}}, {{"bbox_2d": {NEAR}}}]',
    "none": "There is no such thing.", "point": '[{{"point_2d": {B}}}]',
}  # fmt: skip
THOUGHT = "Is it A, B or C? Yes. No. It may be [10, 10, 900, 900].\n"


def rows(count: int, seed: int, *, plain: bool) -> Iterator[dict]:
    """`count` answers for each task.

    plain   one phrasing that everybody reads alike, for comparing the sums alone

    A row has id, task, kind, target, options, groups, thinking, answer, form and `meant`, the value
    that its writer meant (None: none); of a box also `size` in pixels and `box_px` x y w h.
    """
    for task, kind in TASKS.items():
        rng = random.Random(f"{seed} {task}")
        for number in range(count):
            row = _MAKERS[kind](rng, task, plain)
            row |= {"id": f"{task} {number}", "task": task, "kind": kind, "thinking": False}
            row["groups"] = _groups(task, number)
            yield row if plain else _with_thought(rng, row)


def _with_thought(rng: random.Random, row: dict) -> dict:
    """A fifth of the answers behind a thought; a twentieth is a thought alone, cut off."""
    drawn = rng.random()
    if drawn < 0.05:
        return row | {"thinking": True, "answer": THOUGHT, "form": "thought cut off", "meant": None}
    if drawn < 0.2:
        answer = f"{THOUGHT}</think>\n\n{row['answer']}"
        return row | {"thinking": True, "answer": answer, "form": f"{row['form']}, thought"}
    return row


def _drawn(rng: random.Random, plain: bool, forms: dict, unclear: dict) -> tuple[str, str, bool]:
    """(form, template, whether something is meant)."""
    if plain:
        return "plain", forms["plain"], True
    clear = rng.random() < 0.8
    form = rng.choice([*(forms if clear else unclear)])
    return form, (forms if clear else unclear)[form], clear


def _wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) for c in text)


def _yes_no(rng: random.Random, task: str, plain: bool) -> dict:
    target, said = rng.choice(["yes", "no"]), rng.choice(["yes", "no"])
    said = target if rng.random() < 0.4 else said
    form, template, clear = _drawn(rng, plain, WORDS, UNCLEAR_WORDS)
    names = {"y": said, "Y": said.title(), "YY": said.upper(), "WIDE": _wide(said.title())}
    answer = template.format(**names)
    return {"target": target, "options": [], "answer": answer, "form": form,
            "meant": said if clear else None}  # fmt: skip


def _letter(rng: random.Random, task: str, plain: bool) -> dict:
    count = 2 if task == "mmvp" else 4
    options, letters = rng.sample(NOUNS, count), "ABCD"[:count]
    target = rng.choice(letters)
    said = target if rng.random() < 0.6 else rng.choice(letters)
    other = rng.choice([each for each in letters if each != said])
    form, template, clear = _drawn(rng, plain, LETTERS, UNCLEAR_LETTERS)
    text = options[letters.index(said)]
    wide = _wide(f"({said})")
    answer = template.format(L=said, M=other, l=said.lower(), T=text, WIDE=wide)
    return {"target": target, "options": options, "answer": answer, "form": form,
            "meant": said if clear else None}  # fmt: skip


def _box(rng: random.Random, task: str, plain: bool) -> dict:
    width, height = rng.choice([(640, 480), (480, 640), (500, 375), (333, 500)])
    target, other = _corners(rng), _corners(rng)
    near = [min(max(v + rng.randint(-25, 25), 0), 1000) for v in target]
    said = near if rng.random() < 0.6 else _corners(rng)
    form, template, clear = _drawn(rng, plain, BOXES, UNCLEAR_BOXES)
    sides = [width, height, width, height]
    x0, y0, x1, y1 = said
    px = [round(v * side / 1000) for v, side in zip(near, sides, strict=True)]
    unit = [round(v / 1000, 3) for v in near]
    bare = ", ".join(map(str, near))
    names = {"B": said, "O": other, "PX": px, "UNIT": unit, "SWAP": [x1, y1, x0, y0],
             "STRINGS": str([str(v) for v in said]).replace("'", '"'), "BARE": bare,
             "NEAR": near}  # fmt: skip
    left, top, right, bottom = (v * side / 1000 for v, side in zip(target, sides, strict=True))
    return {"target": target, "options": [], "answer": template.format(**names), "form": form,
            "meant": said if clear else None, "size": [width, height],
            "box_px": [left, top, right - left, bottom - top]}  # fmt: skip


def _corners(rng: random.Random) -> list[int]:
    x0, y0 = rng.randrange(0, 901, 10), rng.randrange(0, 901, 10)
    return [x0, y0, rng.randrange(x0 + 100, 1001, 10), rng.randrange(y0 + 100, 1001, 10)]


_MAKERS = {"yes_no": _yes_no, "letter": _letter, "box": _box}


def _groups(task: str, number: int) -> dict[str, str]:
    """What the tasks' rules ask for; groups of two or four follow one another."""
    mme = ("existence", "count", "color", "OCR")[number // 2 % 4]
    return {
        "picture": str(number),
        "track": ("adversarial", "popular", "random")[number % 3],
        "category": {
            "mme": mme,
            "vstar": ("direct_attributes", "relative_position")[number % 2],
            "hrbench8k": ("single", "cross")[number // 4 % 2],
        }.get(task, f"category {number % 3}"),
        "subcategory": f"category {number % 3}, part {number % 2}",
        "pair": str(number // 2),
        "question": str(number // 4),
        "cycle": str(number % 4),
        "source": ("ADE20K", "COCO", "Omni3D")[number % 3],
        "l2": "one",
    }
