"""What opening a run refuses, and what it takes from the checkpoint: sizes, stops, thoughts."""

import dataclasses
import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from dig_jax.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelSource,
    PromptConfig,
    RewardConfig,
    RolloutConfig,
)
from dig_jax.evaluate import decode_text
from dig_jax.hf import settings, weights
from dig_jax.inputs.decoding import Decoding, read_decoding
from dig_jax.inputs.prompt import encode_answer
from dig_jax.mesh import sharding
from dig_jax.run import session
from tests import THINKING
from tests.tiny_model import ASSETS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The tiny base without its weights; what is wrong must be found before they are read."""
    monkeypatch.setattr(session, "check_data", lambda cfg, size: None)
    one_device = partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(session.sharding, "make_mesh", one_device)
    for file in ASSETS.iterdir():
        if file.suffix in (".json", ".txt", ".jinja"):
            shutil.copyfile(file, tmp_path / file.name)
    return tmp_path


def change(folder, name: str, **fields) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def opened(folder, **parts) -> session.Session:
    return session.open_session(Config(model=ModelSource(str(folder)), **parts))


def test_the_default_records_reach_the_model_as_they_are(folder, capsys):
    found = opened(folder)
    assert found.image_size == (64, 96)
    assert found.prompt.grids.tolist() == [[[8, 12], [8, 12]]]
    assert capsys.readouterr().out == ""


def test_records_of_another_size_are_resized_as_the_checkpoint_wants_and_it_is_said(folder, capsys):
    """100x50 px lie within the limits but are no whole cells of 16; then a limit of the config."""
    data = DataConfig(image_width=100, image_height=50)
    assert opened(folder, data=data).image_size == (48, 96)
    assert "images: resized to 96x48 px" in capsys.readouterr().out
    larger = dataclasses.replace(data, min_pixels=20000)
    found = opened(folder, data=larger)
    assert found.image_size == (112, 208)
    assert found.prompt.grids.tolist() == [[[14, 26], [14, 26]]]


def test_a_thought_opened_by_the_template_needs_the_rewards_consent(folder):
    shutil.copyfile(THINKING, folder / "chat_template.jinja")
    for think in ("none", "full"):
        with pytest.raises(ValueError, match=rf"reward.think='{think}', .*reward.think=prefilled"):
            opened(folder, reward=RewardConfig(think=think))
    assert opened(folder, reward=RewardConfig(think="prefilled")).prompt.length[0] > 0


def test_a_prefilled_thought_needs_a_template_that_opens_it(folder):
    with pytest.raises(ValueError, match=r"reward.think='prefilled', .* opens no <think>.*=full"):
        opened(folder, reward=RewardConfig(think="prefilled"))
    for think in ("full", "none"):
        assert opened(folder, reward=RewardConfig(think=think)).prompt.length[0] > 0


def test_sampler_and_texts_stop_at_the_tokens_of_generation_config(folder):
    """One source: after another id is added there, both stop at it."""
    change(folder, "generation_config.json", eos_token_id=[744, 742, 70])
    found = opened(folder)
    assert found.model.eos_tokens == (744, 742, 70)
    [word] = found.processor.tokenizer("a")["input_ids"]
    [other] = found.processor.tokenizer.convert_tokens_to_ids(["b"])
    assert found.texts(np.array([word, 70, other]), np.array(3)) == "a"
    change(folder, "generation_config.json", eos_token_id=[744, 742])
    assert len(opened(folder).texts(np.array([word, 70, other]), np.array(3))) > 1


def test_an_end_token_that_sampling_does_not_know_is_refused(folder):
    change(folder, "generation_config.json", eos_token_id=[742])
    with pytest.raises(ValueError, match=r"eos_token is 744, .* at \[742\] .*; add it there"):
        opened(folder)
    change(folder, "generation_config.json", eos_token_id=[742, 744])
    assert opened(folder).model.eos_tokens == (742, 744)


def add_token(folder, text: str) -> None:
    """A token of the next free id, as `tokenizer.add_tokens` writes it."""
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    found["added_tokens"].append({"id": 768, "content": text, **flags})
    path.write_text(json.dumps(found))


def test_a_token_without_a_row_of_the_embedding_is_refused_where_it_is_used(folder):
    """768 rows, ids 0 to 767: a longer tokenizer alone is normal, but not id 768 in a prompt."""
    add_token(folder, "<differs>")
    found = opened(folder)
    assert len(found.processor.tokenizer) == 769
    with pytest.raises(
        ValueError,
        match=r"prompt of every pair of data/tiny has token '<differs>' with id 768, but .* 768 "
        r"rows \(vocab_size\); .*resize_token_embeddings",
    ):
        opened(folder, prompt=PromptConfig("What <differs> here?"))
    opened(folder, prompt=PromptConfig("What differs here?"))  # without that token


def test_a_lesson_with_a_token_without_a_row_is_refused(folder):
    add_token(folder, "[77, 88")
    processor = opened(folder).processor
    assert encode_answer(processor, "[]")[-1] == processor.eos_token
    with pytest.raises(ValueError, match=r"answer has token '\[77, 88' with id 768, .* 768 rows"):
        encode_answer(processor, '[{"bbox_2d": [77, 88, 99, 100]}]')


def test_ids_of_image_tokens_are_those_of_the_tokenizer(folder):
    """Both occur once per image, so the count of placeholders alone would not tell them apart."""
    change(folder, "config.json", image_token_id=495)
    with pytest.raises(
        ValueError, match=r"config.json says image_token_id=495, but the tokenizer's <\|image_pad"
    ):
        opened(folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):  # as it advises
        shutil.copyfile(ASSETS / name, folder / name)
    opened(folder)


def test_prompt_and_answer_must_fit_the_models_context(folder):
    """The tiny base's context shrunk to the prompt and 95 of the 96 answer tokens."""
    length = int(opened(folder).prompt.length[0])
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = length + 95
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=rf"every pair of data/tiny has {length} tokens.*\(max_pos"
    ):
        opened(folder)
    assert opened(folder, rollout=RolloutConfig(max_tokens=95)).model.text.context == length + 95
    short = RolloutConfig(max_tokens=1)
    with pytest.raises(ValueError, match=r"more than prompt.max_tokens=21; shorten .*raise"):
        opened(folder, prompt=PromptConfig(max_tokens=21))
    opened(folder, rollout=short, prompt=PromptConfig(max_tokens=length))
    small = {"data": DataConfig(min_pixels=256, max_pixels=300), "rollout": short}
    opened(folder, prompt=PromptConfig("?", max_tokens=21), **small)


def test_the_context_survives_an_export():
    """Written from the model, not copied from the base config.json."""
    text = dataclasses.replace(weights.read_model_config(ASSETS).text, context=777)
    model = dataclasses.replace(weights.read_model_config(ASSETS), text=text)
    written = settings.to_json(model, "float32", base={})
    assert written["text_config"]["max_position_embeddings"] == 777
    again = settings.from_json(written, {"eos_token_id": [1]}, has_head=bool, where="here")
    assert again.text == text


def test_an_image_setting_of_another_model_is_refused(folder):
    change(folder, "preprocessor_config.json", patch_size=16)
    with pytest.raises(ValueError, match=r"cuts images by patch=16, config.json by 8; copy both"):
        opened(folder)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(ASSETS / name, folder / name)
    opened(folder)


SAMPLING = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


def test_the_checkpoints_sampling_is_evaluations_choice_and_never_trainings(folder):
    change(folder, "generation_config.json", **SAMPLING)
    assert opened(folder).decoding == Decoding(0.0)
    assert opened(folder, eval=EvalConfig(samples=2)).decoding == Decoding(1.0)
    found = opened(folder, eval=EvalConfig(decoding="checkpoint"))
    assert found.decoding == Decoding(0.6, 20, 0.95)
    assert found.cfg.rollout.temperature == 1.0
    assert decode_text(found) == "1 samples at temperature 0.6, top_k 20, top_p 0.95"


def test_a_greedy_checkpoint_is_not_asked_for_several_samples(folder):
    assert opened(folder, eval=EvalConfig(decoding="checkpoint")).decoding == Decoding(0.0)
    with pytest.raises(ValueError, match=r"eval.samples=4 greedy answers are all the same"):
        opened(folder, eval=EvalConfig(decoding="checkpoint", samples=4))
    opened(folder, eval=EvalConfig(decoding="checkpoint", samples=0))
    opened(folder, eval=EvalConfig(decoding="policy", samples=4))


def test_a_validation_samples_as_its_decoding_says_or_is_refused(folder):
    """Greedy stays greedy; a checkpoint that decodes greedily has no samples of its own."""
    assert opened(folder).modes == {}  # no validation
    validated = EvalConfig(every=5)
    assert opened(folder, eval=validated).modes == {
        "sampled": Decoding(1.0),
        "greedy": Decoding(0.0),
    }
    own = dataclasses.replace(validated, decoding="checkpoint")
    with pytest.raises(
        ValueError, match=r"eval.modes has 'sampled', .*eval.modes=greedy or .*=pol"
    ):
        opened(folder, eval=own)
    assert opened(folder, eval=dataclasses.replace(own, decoding="policy")).modes
    assert list(opened(folder, eval=dataclasses.replace(own, modes=("greedy",))).modes) == [
        "greedy"
    ]
    change(folder, "generation_config.json", **SAMPLING)
    assert opened(folder, eval=own).modes["sampled"] == Decoding(0.6, 20, 0.95)


def test_decoding_settings_that_are_not_computed_are_refused(folder):
    change(folder, "generation_config.json", **SAMPLING, repetition_penalty=1.0)
    assert str(read_decoding(folder)) == "temperature 0.6, top_k 20, top_p 0.95"
    change(folder, "generation_config.json", repetition_penalty=1.05)
    with pytest.raises(ValueError, match=r"repetition_penalty=1.05 is not implemented; .*policy"):
        read_decoding(folder)
    own = EvalConfig(decoding="checkpoint")
    opened(folder, eval=dataclasses.replace(own, decoding="policy"))
    change(folder, "generation_config.json", repetition_penalty=1.0)
    opened(folder, eval=own)
    change(folder, "generation_config.json", repetition_penalty=1.0, top_p=0.0)
    with pytest.raises(ValueError, match=r"top_p=0.0 is not a number above 0 and up to 1"):
        read_decoding(folder)
    change(folder, "generation_config.json", temperature=0, top_p=1.0)
    with pytest.raises(ValueError, match=r"temperature=0 with do_sample true; say do_sample false"):
        read_decoding(folder)
    change(folder, "generation_config.json", do_sample=False)
    assert read_decoding(folder) == Decoding(0.0)
    (folder / "generation_config.json").write_text('{"do_sample": true}')
    assert read_decoding(folder) == Decoding(1.0)
    (folder / "generation_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"eval.decoding=policy"):
        read_decoding(folder)
    change(folder, "config.json", eos_token_id=[744, 742])  # else no answer ends
    opened(folder, eval=dataclasses.replace(own, decoding="policy"))
    shutil.copy(ASSETS / "generation_config.json", folder)
    opened(folder, eval=own)
