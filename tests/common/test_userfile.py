"""A mistake in a file that a user wrote is told by file, line, exception and message."""

import pytest

from dig_jax.common.typed import run_file
from dig_jax.config import Config, commandline, load_config

HEAD = "import os\nfrom dig_jax.config import Config, RolloutConfig\n"
MISTAKES = [  # the file below HEAD, its line that fails, what is said of it
    ('X = os.environ["NOT_SET_ANYWHERE"]', 3, "KeyError: NOT_SET_ANYWHERE"),
    ('X = float("")', 3, "ValueError: could not convert string to float: ''"),
    (
        "def get_config():\n    x = None\n    return x[0]",
        5,
        "TypeError: 'NoneType' object is not",
    ),
    ("def get_config():\n    return RolloutConfig(group=1)", 4, "ValueError: rollout.group=1 is b"),
    ("def get_config():\n    return RolloutConfig(grup=1)", 4, "TypeError: .*argument 'grup'"),
    ("def get_config(:", 3, "SyntaxError: "),
    ("import not_a_package_at_all", 3, "ModuleNotFoundError: No module named 'not_a_pack"),
    ("raise RuntimeError", 3, "RuntimeError: "),
    ("1 / 0", 3, "ZeroDivisionError: division by zero"),
]


@pytest.mark.parametrize(("text", "line", "told"), MISTAKES)
def test_a_mistake_in_a_config_file_is_told_by_line_and_type(tmp_path, capsys, text, line, told):
    path = tmp_path / "mine.py"
    path.write_text(HEAD + text)
    with pytest.raises(ValueError, match=rf"mine\.py, line {line}: {told}"):
        load_config(path)
    with pytest.raises(SystemExit) as caught:
        commandline.parse_config(["--config", str(path)])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert f"mine.py, line {line}: " in printed
    assert "Traceback" not in printed


def test_a_mistake_in_a_file_that_the_config_calls_names_both_lines(tmp_path, monkeypatch):
    (tmp_path / "helper_of_mine.py").write_text("def rate():\n    return int('x')\n")
    path = tmp_path / "mine.py"
    path.write_text("import helper_of_mine\n\n\nhelper_of_mine.rate()\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = r"mine\.py, line 4 \(in .*helper_of_mine\.py, line 2\): ValueError: invalid literal"
    with pytest.raises(ValueError, match=told):
        load_config(path)


def test_a_line_of_pythons_own_library_is_not_the_users(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import json\njson.loads('{')\n")
    with pytest.raises(ValueError, match=r"mine\.py, line 2: JSONDecodeError: Expecting prop"):
        load_config(path)


def test_a_config_that_is_no_function_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("get_config = 3")
    with pytest.raises(TypeError, match=r"mine\.py has no get_config"):
        run_file(path, Config)
