"""What a model is asked is, to the letter, what the benchmarks' toolkits ask."""

import pytest

from dig_jax.benchmarks import catalog, prompts
from dig_jax.benchmarks.options import within
from dig_jax.benchmarks.questions import read_questions
from tests.benchmarks.test_readers import FILES, HUB, TSV


def first(root, name, **how):
    return read_questions(root, name, **how)[0][0]


def test_a_choice_is_asked_as_qwens_evaluation_and_vlmevalkit_ask_it():
    asked = prompts.choice("Which one?", ("red", "blue"), "Look closely.")
    assert asked == (
        "Hint: Look closely.\nQuestion: Which one?\nOptions:\nA. red\nB. blue\n"
        "Please select the correct answer from the options above. \n"
    )
    assert prompts.choice("Which one?", ("red", "blue")) == asked.partition("\n")[2]


@pytest.mark.parametrize(
    "name", ["vstar", "mmstar", "mmvp", "mmbench", "hrbench8k", "scienceqa", "ai2d"]
)
def test_options_are_asked_by_the_template_wherever_the_file_has_them(name):
    for question in read_questions(HUB, name)[0]:
        *_, stem_on = question.prompt.partition("Question: ")
        stem = stem_on.partition("\n")[0]
        hint = question.prompt.partition("Question: ")[0].removeprefix("Hint: ").removesuffix("\n")
        assert question.prompt == prompts.choice(stem, question.options, hint)
        assert "directly" not in question.prompt
        assert "Choices:" not in question.prompt


def test_hints_are_asked_and_lectures_not():
    questions = read_questions(HUB, "scienceqa")[0]
    assert ["Hint: A sample lies in a bowl.\n" in q.prompt for q in questions] == [
        False,
        True,
        True,
    ]
    assert not any("Not asked." in q.prompt for q in questions)


@pytest.mark.parametrize(
    ("question", "added"),
    [
        ("Is there a cat?", True),
        ("Is it? Please answer yes or no.", False),
        ("Is it? Please answer Yes or No", False),
        ("Is it?\nAnswer the question with Yes or No.", False),
        ("Is a yes or no written there?", True),
    ],
)
def test_a_yes_or_no_is_asked_for_once(question, added):
    asked = prompts.yes_no(question)
    assert asked == (f"{question} Please answer yes or no." if added else question)
    assert prompts.yes_no(asked) == asked


def test_vsrs_captions_are_asked_as_statements():
    wanted = (
        'Is the following statement about the image true? "The cube is left of the cone." Please '
        "answer yes or no."
    )
    assert first(FILES, "vsr").prompt == wanted


def test_cvbench_is_asked_by_its_own_prompt():
    question = first(HUB, "cvbench")
    assert question.prompt == (
        "Count of thing 0? Select from the following choices.\n(A) 1 (B) 2 (C) 3 (D) 4"
    )
    assert question.options == ("1", "2", "3", "4")


@pytest.mark.parametrize("root", [HUB, TSV, FILES], ids=lambda path: path.name)
def test_expressions_are_asked_for_as_qwen_does_or_as_vlmevalkit_does(root):
    qwen = first(root, "refcoco_val")
    kit = first(root, "refcoco_val", prompt="vlmevalkit")
    assert qwen.prompt == (
        'Locate every object that matches the description "the left thing of scene 130" in the '
        "image. Report bbox coordinates in JSON format."
    )
    assert kit.prompt == (
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>the left thing of scene 130</ref>"
    )
    assert (qwen.id, qwen.target) == (kit.id, kit.target)
    assert prompts.prompt_version("qwen") != prompts.prompt_version("vlmevalkit")


@pytest.mark.parametrize(
    ("text", "stem", "options"),
    [
        ("What is it?\n(A) red\n(B) blue\nAnswer with the option's letter from the given choices "
         "directly.", "What is it?", ("red", "blue")),
        ("Which?\nOptions: A: on it., B: below, beside., C: no", "Which?",
         ("on it.", "below, beside.", "no")),
        ("Hint: Please answer the question and provide the correct option letter, e.g., A, B.\n"
         "Question: How wide is A?\nChoices:\nA:30°\nB:35°", "How wide is A?", ("30°", "35°")),
        ("(a) Open (b) Closed", "", ("Open", "Closed")),
        ("What?\nOptions: A: Vitamin B: yes, B: no", "What?", ("Vitamin B: yes", "no")),
        ("Is A. or B. right?", "Is A. or B. right?", ()),
        ("Choose one of (A) only.", "Choose one of (A) only.", ()),
        ("What are the options: red?\n(A) x\n(B) y", "What are the options: red?", ("x", "y")),
    ],
)  # fmt: skip
def test_options_within_texts(text, stem, options):
    assert within(text) == (stem, options)


def test_suites_are_those_of_the_paper():
    paper = catalog.named("paper")
    assert len(paper) == len(set(paper)) == 20
    suites = [catalog.named(suite) for suite in ("perception", "general", "refcoco")]
    assert list(map(len, suites)) == [7, 5, 8]
    assert set().union(*suites) == set(paper)
    assert set(catalog.NAMES) - set(paper) == {"hrbench4k", "mmbench_v11"}
    assert catalog.named("pope, general,pope") == ("pope", *catalog.named("general"))
    with pytest.raises(ValueError, match="unknown benchmark or suite 'papre'; nearest: paper"):
        catalog.named("pope,papre")
    rows = sum(catalog.entry_of(name).rows[0] for name in catalog.named("refcoco"))
    assert rows == 57457
