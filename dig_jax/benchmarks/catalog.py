"""The benchmarks: where they come from, what their files are called, how many rows they have.

One table. A name's family is the module that reads it. Patterns of files are relative to the root,
compared without regard to case; of several forms of one benchmark the first that is there is read.
"""

from __future__ import annotations

import difflib

from dig_jax.benchmarks.entry import Benchmark

SUITES = ("perception", "general", "refcoco", "paper")
_JSON = ("json", "jsonl")
_REFCOCO = {  # base -> title, Kangheng's name and other names of its lists, lmms-lab's name
    "refcoco": ("RefCOCO", ("refcoco",), "RefCOCO"),
    "refcocoplus": ("RefCOCO+", ("refcocop", "refcocoplus", "refcoco+"), "RefCOCOplus"),
    "refcocog": ("RefCOCOg", ("refcocog",), "RefCOCOg"),
}
_SAMPLE = "VLM-R1 evaluates a sample of 2,000 of a split"
_GOOGLE = {  # Google's val beside UNC's or UMD's in lmms-lab's: objects there, standard objects
    "refcoco_val": "lmms-lab's val has 8,811 objects, the standard (UNC) val 3,811",
    "refcocog_val": "lmms-lab's val has 7,573 objects, the standard (UMD) val 2,573",
}


def _refcoco(base: str, split: str, rows: int) -> Benchmark:
    """One of RefCOCO's splits: a folder each, or a family's, or all in refcoco/."""
    title, spellings, theirs = _REFCOCO[base]
    name = f"{base}_{split.lower()}"
    folders = dict.fromkeys((base, name, "refcoco"))
    lists = [f"{f}/*{s}_{split}.{kind}" for f in folders for s in spellings for kind in _JSON]
    files = (
        (f"{base}/*{split}-*.parquet",),
        (f"{name}/*.parquet",),
        *((pattern,) for pattern in lists),
        *((f"{folder}/refcoco*.tsv",) for folder in folders),
    )
    return Benchmark(
        name,
        f"{title} {split}",
        "refcoco",
        () if split == "train" else ("refcoco", "paper"),
        "box",
        files,
        (rows,),
        ("object",),
        (
            f"Kangheng/{spellings[0]}",
            f"lmms-lab/{theirs}",
            "omlab/VLM-R1: rec_jsons_processed.zip, train2014.zip",
            "Kangheng/PR1-Datasets-Grounding",
            "mjuicem/RefCOCO-VLMEvalKit: RefCOCO.tsv (all eight splits)",
        ),
        "Apache-2.0, pictures COCO's",
        (f"*{split}*",),
        f"{_GOOGLE[name]}; {_SAMPLE}" if name in _GOOGLE else _SAMPLE,
        split=f"{title} {split}",
    )


def _hrbench(name: str, size: str) -> Benchmark:
    folders = (name, "hrbench")
    files = [(f"{folder}/*hr_bench_{size}.parquet",) for folder in folders]
    files += [(f"{folder}/*hrbench_{size}-*.parquet",) for folder in folders]
    files += [(f"{name}/*.parquet",), *((f"{folder}/*{size}*.tsv",) for folder in folders)]
    return Benchmark(
        name,
        f"HR-Bench {size.upper()}",
        "hrbench",
        ("perception", "paper") if size == "8k" else (),
        "letter",
        tuple(files),
        (800,),
        ("category", "cycle", "question"),
        ("DreamMr/HR-Bench", f"VLMEvalKit: HRBench{size.upper()}.tsv"),
        "see the card",
        (f"hr_bench_{size}.parquet",),
        "every one of 200 questions is asked in 4 cycles",
    )


BENCHMARKS = (
    Benchmark(
        "hallusionbench",
        "HallusionBench",
        "hallusionbench",
        ("perception", "paper"),
        "yes_no",
        (
            ("hallusionbench/*/image-*.parquet", "hallusionbench/image-*.parquet"),
            ("hallusionbench/*.tsv",),
            ("hallusionbench/*.parquet",),
        ),
        (951,),
        ("category", "subcategory", "set", "figure", "question"),
        (
            "lmms-lab/HallusionBench",
            "lmms-lab-encoder/HallusionBench",
            "VLMEvalKit: HallusionBench.tsv",
        ),
        "BSD-3-Clause",
        (),
        "only rows with a picture count; 178 more have none",
    ),
    _hrbench("hrbench8k", "8k"),
    _hrbench("hrbench4k", "4k"),
    Benchmark(
        "pope",
        "POPE",
        "pope",
        ("perception", "paper"),
        "yes_no",
        (
            ("pope/*test-*.parquet",),
            ("pope/*adversarial-*.parquet", "pope/*popular-*.parquet", "pope/*random-*.parquet"),
            ("pope/*.tsv",),
            ("pope/*.parquet",),
        ),
        (9000, 8910),
        ("track",),
        ("lmms-lab/POPE", "lmms-lab-encoder/POPE", "VLMEvalKit: POPE.tsv"),
        "MIT, pictures COCO's",
        (),
        "three tracks of 3,000 rows as lmms-lab has them; 8,910 where the random track is that of "
        "before October 2023, with 2,910, as of older results; rows of tracks are counted, not the "
        "questions that they share",
    ),
    Benchmark(
        "vstar",
        "V* Bench",
        "vstar",
        ("perception", "paper"),
        "letter",
        (
            ("vstar/*test-*.parquet",),
            ("vstar/*.tsv",),
            ("vstar/*test_questions.jsonl",),
            ("vstar/*.parquet",),
        ),
        (191,),
        ("category",),
        (
            "lmms-lab/vstar-bench",
            "lmms-lab-encoder/vstar-bench",
            "craigwu/vstar_bench",
            "VLMEvalKit: VStarBench.tsv",
        ),
        "see the card",
        (),
        "115 direct_attributes and 76 relative_position",
    ),
    Benchmark(
        "vsr",
        "VSR zero-shot",
        "vsr",
        ("perception", "paper"),
        "yes_no",
        (("vsr/*test*.jsonl",), ("vsr/*.tsv",), ("vsr/*test*.parquet",), ("vsr/*test*.json",)),
        (1222,),
        ("category",),
        ("cambridgeltl/vsr_zeroshot", "VLMEvalKit: VSR-zeroshot (ignoreandfly/vsr_zeroshot_tsv)"),
        "Apache-2.0, pictures COCO's",
        (),
        "the zero-shot test split has 1,222 rows, the random one 2,195",
        "the pictures of COCO's train2017 and val2017",
    ),
    Benchmark(
        "cvbench",
        "CV-Bench",
        "cvbench",
        ("perception", "paper"),
        "letter",
        (
            ("cvbench/*test_2d*.parquet", "cvbench/*test_3d*.parquet"),
            ("cvbench/*2d*.tsv", "cvbench/*3d*.tsv"),
            ("cvbench/*test-*.parquet",),
            ("cvbench/*.parquet",),
        ),
        (2638,),
        ("type", "category", "source"),
        ("nyu-visionx/CV-Bench", "VLMEvalKit: CV-Bench-2D.tsv and CV-Bench-3D.tsv"),
        "Apache-2.0",
        ("*.parquet",),
        "1,438 rows are 2D and 1,200 are 3D: is one of the two files missing?",
    ),
    Benchmark(
        "mmvp",
        "MMVP",
        "mmvp",
        ("perception", "paper"),
        "letter",
        (
            ("mmvp/*train-*.parquet",),
            ("mmvp/*.tsv",),
            ("mmvp/*questions*.csv",),
            ("mmvp/*.parquet",),
        ),
        (300,),
        ("pair",),
        ("lmms-lab-eval/MMVP", "MMVP/MMVP: Questions.csv and MMVP Images", "VLMEvalKit: MMVP.tsv"),
        "MIT",
        (),
        "150 pairs",
    ),
    Benchmark(
        "mmbench",
        "MMBench dev (English)",
        "mmbench",
        ("general", "paper"),
        "letter",
        (
            ("mmbench/*en/dev-*.parquet",),
            ("mmbench/*mmbench_dev_en.tsv",),
            ("mmbench/data/dev-*.parquet", "mmbench/dev-*.parquet"),
            ("mmbench/*.parquet",),
        ),
        (4329, 4377),
        ("category", "l2", "question"),
        ("lmms-lab/MMBench", "lmms-lab-encoder/MMBench", "VLMEvalKit: MMBench_DEV_EN.tsv"),
        "Apache-2.0",
        ("en/dev-*",),
        "lmms-lab/MMBench has 4,329, the older lmms-lab/MMBench_EN 4,377",
    ),
    Benchmark(
        "mmbench_v11",
        "MMBench v1.1 dev (English)",
        "mmbench",
        (),
        "letter",
        (
            ("mmbench_v11/*.tsv",),
            ("mmbench/*mmbench_dev_en_v11.tsv",),
            ("mmbench_v11/*dev-*.parquet",),
            ("mmbench_v11/*.parquet",),
        ),
        (),
        ("category", "l2", "question"),
        ("VLMEvalKit: MMBench_DEV_EN_V11.tsv",),
        "Apache-2.0",
    ),
    Benchmark(
        "mmstar",
        "MMStar",
        "mmstar",
        ("general", "paper"),
        "letter",
        (
            ("mmstar/*mmstar.parquet",),
            ("mmstar/*val-*.parquet",),
            ("mmstar/*.tsv",),
            ("mmstar/*.parquet",),
        ),
        (1500,),
        ("category", "subcategory"),
        ("Lin-Chen/MMStar", "VLMEvalKit: MMStar.tsv"),
        "see the card",
        (),
        "6 categories of 250 rows",
    ),
    Benchmark(
        "scienceqa",
        "ScienceQA with pictures",
        "scienceqa",
        ("general", "paper"),
        "letter",
        (
            ("scienceqa/*scienceqa-img/test-*.parquet",),
            ("scienceqa/*scienceqa_test.tsv",),
            ("scienceqa/*test-*.parquet",),
            ("scienceqa/*.parquet",),
        ),
        (2017,),
        ("category",),
        ("lmms-lab/ScienceQA", "lmms-lab-encoder/ScienceQA", "VLMEvalKit: ScienceQA_TEST.tsv"),
        "CC BY-NC-SA 4.0",
        ("*ScienceQA-IMG/test-*",),
        "only rows with a picture count",
    ),
    Benchmark(
        "mme",
        "MME",
        "mme",
        ("general", "paper"),
        "yes_no",
        (("mme/*test-*.parquet",), ("mme/*.tsv",), ("mme/*.parquet",)),
        (2374,),
        ("category", "pair"),
        ("lmms-lab/MME", "lmms-lab-encoder/MME", "VLMEvalKit: MME.tsv"),
        "for research, see the card",
        (),
        "two questions for every picture of 14 categories",
    ),
    Benchmark(
        "ai2d",
        "AI2D",
        "ai2d",
        ("general", "paper"),
        "letter",
        (
            ("ai2d/*test-*.parquet",),
            ("ai2d/*ai2d_test.tsv",),
            ("ai2d/*.tsv",),
            ("ai2d/*.parquet",),
        ),
        (3088,),
        (),
        ("lmms-lab/ai2d", "lmms-lab-encoder/ai2d", "VLMEvalKit: AI2D_TEST.tsv"),
        "see the card",
        (),
        "both variants, with masks and without, have 3,088 rows",
    ),
    _refcoco("refcoco", "val", 10834),
    _refcoco("refcoco", "testA", 5657),
    _refcoco("refcoco", "testB", 5095),
    _refcoco("refcocoplus", "val", 10758),
    _refcoco("refcocoplus", "testA", 5726),
    _refcoco("refcocoplus", "testB", 4889),
    _refcoco("refcocog", "val", 4896),
    _refcoco("refcocog", "test", 9602),
)
NAMES = tuple(entry.name for entry in BENCHMARKS)
# What a supervised run learns from, in the same files: scored by no suite.
_TRAINED = {"refcoco": 120624, "refcocoplus": 120191, "refcocog": 80512}
TRAINING = tuple(_refcoco(base, "train", rows) for base, rows in _TRAINED.items())
_ALL = {entry.name: entry for entry in (*BENCHMARKS, *TRAINING)}


def entry_of(name: str) -> Benchmark:
    """The line of a name; raises ValueError telling the nearest ones where there is none."""
    return _ALL[_known(name, tuple(_ALL))]


def named(request: str) -> tuple[str, ...]:
    """The names that suites, or names, with commas mean; ValueError tells the nearest of others."""
    found: list[str] = []
    for word in (part.strip() for part in request.split(",")):
        if not word:
            raise ValueError(f"{request!r} has an empty name; remove the comma beside it")
        mine = [entry.name for entry in BENCHMARKS if word in entry.suites]
        found += mine or [_known(word, (*SUITES, *_ALL))]
    return tuple(dict.fromkeys(found))


def _known(word: str, known: tuple[str, ...]) -> str:
    if word in known:
        return word
    near = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.4) or known
    kinds = "benchmark or suite" if SUITES[0] in known else "benchmark"
    raise ValueError(f"unknown {kinds} {word!r}; nearest: {', '.join(near)}")
