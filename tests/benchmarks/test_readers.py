"""Every benchmark's files, in every form that they come in, become the same questions."""

import dataclasses
import shutil

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.benchmarks import catalog, hrbench, mmvp, options, pope
from dig_jax.benchmarks.question import KINDS
from dig_jax.benchmarks.questions import (
    data_digest,
    read_questions,
    rows_of,
)
from scripts.make import benchmark_rows
from scripts.make.benchmark_files import lines, parquet, picture, put, tsv
from tests import ROOT

FIXTURES = ROOT / "tests" / "benchmarks" / "fixtures"
HUB, TSV, FILES = (FIXTURES / form for form in ("hub", "tsv", "files"))
# name -> questions of the fixtures in hub/ and tsv/
COUNTS = {
    "hallusionbench": 8, "hrbench8k": 8, "hrbench4k": 8, "pope": 8, "vstar": 4, "cvbench": 6,
    "mmvp": 4, "mmbench": 9, "mmbench_v11": 3, "mmstar": 4, "scienceqa": 3, "mme": 16, "ai2d": 3,
}  # fmt: skip
OTHER_IDS = ("pope", "vstar", "mme")  # whose files number their rows differently
REFCOCO = [name for name in catalog.NAMES if name.startswith("refcoco")]
TEXT = "string"


def asked(root, name, **how):
    """A benchmark's questions, without what is said of their number."""
    return read_questions(root, name, **how)[0]


def said(root, name):
    """What is said of a fixture beside that it is small."""
    return [text for text in read_questions(root, name)[1] if "where the standard has" not in text]


def content(questions, *without):
    """Questions without their pictures, and fields of them, for a comparison."""
    return [
        {k: v for k, v in dataclasses.asdict(dataclasses.replace(q, pictures=())).items()
         if k not in without}
        for q in questions
    ]  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_parquet_and_tsv_hold_the_same_questions(name):
    left, right = asked(HUB, name), asked(TSV, name)
    if name in ("mmbench", "mmbench_v11", "pope"):  # whose rows stand in other orders
        left, right = (sorted(some, key=lambda q: (q.pictures[0].key, q.prompt))
                       for some in (left, right))  # fmt: skip
    assert len(left) == len(right) == COUNTS[name]
    without = ("id",) if name in OTHER_IDS else ()
    assert content(left, *without) == content(right, *without)
    assert [p.read() for q in left for p in q.pictures] == [
        p.read() for q in right for p in q.pictures
    ]
    if name not in (*OTHER_IDS, "mmbench_v11"):
        assert data_digest(left) == data_digest(right)


@pytest.mark.parametrize("name", REFCOCO)
def test_all_forms_of_refcoco_hold_the_same_expressions_and_boxes(name):
    """Six expressions of four things: exploded, a row each, in pixels and in shares."""
    hub, kit, other = (asked(root, name) for root in (HUB, TSV, FILES))
    assert len(hub) == len(kit) == len(other) == 6
    assert [q.prompt for q in hub] == [q.prompt for q in kit] == [q.prompt for q in other]
    assert "describes" not in hub[0].prompt
    assert "<ref>" not in hub[0].prompt
    near = 0.6 if name.endswith("testb") else 1e-4  # float32; Perception-R1 has whole thousandths
    for one, two, three in zip(hub, kit, other, strict=True):
        assert one.target == pytest.approx(two.target, abs=1e-4)
        assert three.target == pytest.approx(two.target, abs=near)
        assert one.pictures[0].read() == two.pictures[0].read() == three.pictures[0].read()
    assert len({q.groups["object"] for q in hub}) == 4
    assert len({q.groups["picture"] for q in hub}) == 2


@pytest.mark.parametrize("root", [HUB, TSV, FILES], ids=lambda path: path.name)
@pytest.mark.parametrize("name", catalog.NAMES)
def test_questions_are_whole(name, root):
    """Of what is there: ids, kinds, targets among the options, groups as the catalog says."""
    entry = catalog.entry_of(name)
    try:
        questions = asked(root, name)
    except FileNotFoundError:
        assert (root.name, name) in ABSENT
        return
    assert len({q.id for q in questions}) == len(questions)
    for q in questions:
        assert q.kind == entry.kind
        assert q.kind in KINDS
        assert set(q.groups) == {"picture", *entry.groups}
        assert all(isinstance(key, str) for key in q.groups.values())
        assert q.pictures[0].read()
        if q.kind == "yes_no":
            assert q.target in ("yes", "no")
        elif q.kind == "letter":
            assert q.target in "ABCD"[: len(q.options)]
            assert all(q.options)
        else:
            assert 0 <= q.target[0] < q.target[2] <= 1000
            assert 0 <= q.target[1] < q.target[3] <= 1000


ABSENT = {("hub", "vsr")} | {  # cambridgeltl's VSR is a list, in files/
    ("files", name)
    for name in catalog.NAMES
    if name not in ("pope", "vstar", "vsr", "mmvp", "hrbench8k", "hrbench4k")
}


def test_lists_and_folders_hold_what_parquet_and_tsv_hold():
    also = (("hrbench8k", HUB), ("hrbench4k", HUB))  # the configuration hrbench_version_split
    for name, other in (("vstar", HUB), ("mmvp", HUB), ("pope", HUB), ("vsr", TSV), *also):
        left, right = asked(FILES, name), asked(other, name)
        without = ("id", "groups") if name == "vsr" else ("groups",)
        assert content(left, *without) == content(right, *without)
        assert [q.pictures[0].read() for q in left] == [q.pictures[0].read() for q in right]
    assert [q.groups["category"] for q in asked(FILES, "vsr")] == ["left of", "behind", "left of"]


def test_the_committed_rows_are_those_that_the_script_makes(tmp_path):
    benchmark_rows.main(["--out", str(tmp_path)])
    names = [sorted(p.relative_to(at) for p in at.rglob("*.*")) for at in (tmp_path, FIXTURES)]
    assert names[0] == names[1]
    for name in ("pope", "mmbench", "refcoco_val"):
        assert content(asked(tmp_path / "hub", name)) == content(asked(HUB, name))


def test_the_hubs_library_decodes_the_fixtures_pictures():
    datasets = pytest.importorskip("datasets")
    schema = pq.read_schema(HUB / "cvbench" / "test_2d.parquet")
    features = datasets.Features.from_arrow_schema(schema)
    assert isinstance(features["image"], datasets.Image)


# What a column may look like


def test_popes_tracks_share_a_question_and_count_it_as_often_as_they_ask(tmp_path):
    questions = asked(HUB, "pope")
    tracks = [q.groups["track"] for q in questions]
    assert sorted(tracks.count(t) for t in pope.TRACKS) == [2, 2, 2]
    assert tracks.count("adversarial,popular,random") == 2
    assert rows_of(questions) == 12
    rows = pq.read_table(HUB / "pope/data/test-00000-of-00001.parquet").to_pylist()
    kinds = dict.fromkeys([c for c in rows[0] if c != "image"], TEXT)
    twice = tmp_path / "pope/test-00000-of-00001.parquet"
    parquet(twice, [*rows, rows[0] | {"question_id": "77"}], image="image", **kinds)
    again = asked(tmp_path, "pope")
    assert len(again) == len(questions)
    assert again[0].groups["track"].split(",").count("adversarial") == 2
    assert rows_of(again) == 13


def test_popes_full_configuration_tells_its_track_by_its_file_name(tmp_path):
    rows = pq.read_table(FILES / "pope/Full/popular-00000-of-00001.parquet").to_pylist()
    path = tmp_path / "pope/Full/popular-00000-of-00001.parquet"
    parquet(path, rows, image="image", question=TEXT, answer=TEXT, question_id=TEXT)
    assert {q.groups["track"] for q in asked(tmp_path, "pope")} == {"popular"}


def test_tracks_that_contradict_one_another_are_refused(tmp_path):
    row = {"question": "Is there a cat?", "answer": "yes", "category": "random", "image": b"x"}
    rows = [row, row | {"category": "popular", "answer": "no"}]
    kinds = {"question": TEXT, "answer": TEXT, "category": TEXT}
    parquet(tmp_path / "pope/test-00000-of-00001.parquet", rows, image="image", **kinds)
    with pytest.raises(ValueError, match=r"row 2: answer='no' but .* row 1 answers"):
        asked(tmp_path, "pope")


@pytest.mark.parametrize("index", [1_000_241, "1000241", "1000241.0"])
def test_mmbenchs_index_may_be_a_text_and_groups_its_orders(tmp_path, index):
    row = {"index": index, "question": "Where?", "A": "here", "B": "there", "C": "nan", "D": None,
           "hint": "nan", "answer": "B", "category": "place", "image": picture(1)}  # fmt: skip
    kinds = {name: TEXT for name in row if name not in ("index", "image")}
    kinds["index"] = "int64" if isinstance(index, int) else TEXT
    parquet(tmp_path / "mmbench/en/dev-00000-of-00001.parquet", [row], image="image", **kinds)
    (question,) = asked(tmp_path, "mmbench")
    assert (question.id, question.groups["question"]) == ("1000241", "241")
    assert question.options == ("here", "there")
    assert "Hint" not in question.prompt


def test_mmbench_v11s_orders_are_one_question_whose_picture_another_row_has():
    for root in (HUB, TSV):
        questions = asked(root, "mmbench_v11")
        assert {q.groups["question"] for q in questions} == {"0"}
        assert {q.options[0] for q in questions} == {"north", "south", "east"}
        assert {q.options["ABC".index(q.target)] for q in questions} == {"north"}
        assert len({q.pictures[0].key for q in questions}) == 1


def test_an_option_between_two_others_may_not_be_missing(tmp_path):
    row = {"index": 1, "question": "Where?", "A": "here", "C": "there", "answer": "C",
           "category": "place", "image": picture(1)}  # fmt: skip
    tsv(
        tmp_path / "mmbench/MMBench_DEV_EN.tsv", [row], "index question A B C answer category image"
    )
    with pytest.raises(ValueError, match="options='A, C' leave a letter out"):
        asked(tmp_path, "mmbench")


@pytest.mark.parametrize("votes", [[1, 2], "[1, 2]", "", None])
def test_vsrs_validators_may_be_lists_or_texts(tmp_path, votes):
    put(tmp_path / "vsr/train2017/7.jpg", picture(7))
    row = {"image": "7.jpg", "caption": "The cat is left of the dog.", "label": "0",
           "relation": "left of", "vote_true_validator_id": votes}  # fmt: skip
    lines(tmp_path / "vsr/data/test.jsonl", [row])
    (question,) = asked(tmp_path, "vsr")
    assert (question.target, question.id) == ("no", "0")
    assert question.pictures[0].read() == picture(7)


@pytest.mark.parametrize(("answer", "target"), [("0", "A"), (1, "B"), ("2.0", "C"), ("B", "B")])
def test_ai2ds_answer_counts_from_zero(tmp_path, answer, target):
    kind = "int64" if isinstance(answer, int) else TEXT
    row = {"question": "Which?", "options": ["x", "y", "z"], "answer": answer, "image": picture(1)}
    parquet(tmp_path / "ai2d/data/test-00000-of-00001.parquet", [row], question=TEXT, answer=kind,
            options=[TEXT], image="image")  # fmt: skip
    assert asked(tmp_path, "ai2d")[0].target == target


def test_the_variant_of_ai2d_without_masks_is_named(tmp_path):
    shutil.copytree(TSV / "ai2d", tmp_path / "ai2d")
    (tmp_path / "ai2d/AI2D_TEST.tsv").unlink()
    assert "AI2D_TEST_NO_MASK.tsv is the variant without masks" in said(tmp_path, "ai2d")[0]


def test_hallusionbenchs_rows_without_a_picture_do_not_count():
    assert pq.read_metadata(HUB / "hallusionbench/data/non_image-00000-of-00001.parquet").num_rows
    assert not any("_9_" in q.id for q in asked(HUB, "hallusionbench"))
    assert not any("_9_" in q.id for q in asked(TSV, "hallusionbench"))
    figures = {q.groups["figure"] for q in asked(TSV, "hallusionbench")}
    both = {q.groups["question"] for q in asked(TSV, "hallusionbench")}
    assert (len(figures), len(both)) == (4, 4)


def test_mmes_pairs_are_known_by_question_id_or_path():
    for root in (HUB, TSV):
        pairs = [q.groups["pair"] for q in asked(root, "mme")]
        assert len(set(pairs)) == 8
        assert all(pairs.count(pair) == 2 for pair in pairs)
    assert said(HUB, "mme") == []


def test_a_picture_with_one_question_of_two_is_told(tmp_path):
    rows = pq.read_table(HUB / "mme/data/test-00000-of-00001.parquet").to_pylist()[1:]
    parquet(tmp_path / "mme/data/test-00000-of-00001.parquet", rows, question_id=TEXT,
            image="image", question=TEXT, answer=TEXT, category=TEXT)  # fmt: skip
    assert said(tmp_path, "mme")[0].startswith("1 pictures have not two questions, existence/0000")


def test_hrbenchs_cycles_are_known_by_question_and_picture():
    questions = asked(HUB, "hrbench8k")
    groups = [q.groups["question"] for q in questions]
    assert {groups.count(name) for name in groups} == {hrbench.CYCLES}
    assert {q.groups["cycle"] for q in questions} == set("0123")
    right = {q.options["ABCD".index(q.target)] for q in questions}
    assert right == {"red"}  # whatever the order


def test_mmvps_pairs_follow_its_index_and_wrong_labels_are_told(tmp_path):
    assert [q.groups["pair"] for q in asked(HUB, "mmvp")] == ["1", "1", "2", "2"]
    wrong = {n: {"A": "(b)", "B": "(a)"}[right] for n, right in mmvp.MENDED.items()}
    assert set(wrong) == {99, 100, 279, 280}
    for rows, told in ((wrong, True), (wrong | {99: "(b)"}, False)):  # by chance some may differ
        lines = [
            {
                "Index": n,
                "Question": "Short?",
                "Options": "(a) Yes (b) No",
                "Correct Answer": answer,
                "image": picture(n),
            }
            for n, answer in rows.items()
        ]
        parquet(tmp_path / "mmvp/train-00000-of-00001.parquet", lines, Index="int64",
                Question=TEXT, Options=TEXT, **{"Correct Answer": TEXT}, image="image")  # fmt: skip
        start = "the answers of 99, 100, 279, 280 are the original's, which are wrong"
        assert any(each.startswith(start) for each in said(tmp_path, "mmvp")) == told


def test_mmvps_index_may_begin_at_zero(tmp_path):
    rows = [{"index": n, "question": "Open?", "A": "Yes", "B": "No", "answer": "A",
             "image": picture(n)} for n in range(4)]  # fmt: skip
    tsv(tmp_path / "mmvp/MMVP.tsv", rows, "index question A B answer image")
    assert [q.groups["pair"] for q in asked(tmp_path, "mmvp")] == ["1", "1", "2", "2"]
    assert [q.id for q in asked(tmp_path, "mmvp")] == ["1", "2", "3", "4"]


def test_mmstars_texts_without_options_are_asked_as_they_stand(tmp_path):
    row = {"index": 0, "question": "Which of the shown, A or B?", "answer": "B", "category": "x",
           "l2_category": "y", "image": picture(0)}  # fmt: skip
    kinds = {name: TEXT for name in ("question", "answer", "category", "l2_category")}
    parquet(tmp_path / "mmstar/mmstar.parquet", [row], index="int64", image="image", **kinds)
    (question,) = asked(tmp_path, "mmstar")
    assert (question.options, question.target) == ((), "B")
    assert "Question: Which of the shown, A or B?\n" in question.prompt
    assert said(tmp_path, "mmstar")[0].startswith("1 of 1 texts hold no options")


WORDS = st.text("abcdefg hijk", min_size=1, max_size=12).map(lambda t: f"x{t}y".strip())


STYLES = ("({})\n", "({}) ", "{}: ,", "{}. \n", "{}) \n", "({low}) ")  # a mark, what is between


@given(WORDS, st.lists(WORDS, min_size=2, max_size=5), st.sampled_from(STYLES))
def test_options_within_a_text_are_found_whatever_they_are_written_like(stem, texts, style):
    mark, between = style[:-1], {"\n": "\n", " ": " ", ",": ", "}[style[-1]]
    pieces = [
        mark.format("ABCDE"[n], low="abcde"[n]).strip() + " " + text for n, text in enumerate(texts)
    ]
    heading = "\nOptions: " if between == ", " else "\n"
    found = options.within(stem + heading + between.join(pieces))
    assert (found.stem, found.options) == (stem, tuple(texts))


def test_the_digest_changes_with_what_is_asked_and_what_is_right():
    questions = asked(HUB, "vstar")
    other = dataclasses.replace(questions[0], target="B")
    reworded = dataclasses.replace(questions[0], prompt="?")
    digests = [data_digest(q) for q in (questions, [other, *questions[1:]],
                                        [reworded, *questions[1:]], questions[1:])]  # fmt: skip
    assert len(set(digests)) == 4
    assert digests[0] == data_digest(asked(TSV.parent / "hub", "vstar"))
