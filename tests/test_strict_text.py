"""Numbers, JSON, YAML and profiles that others wrote: read in one way, or refused by name, within seconds."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bad_inputs import outcome, work_of
from conftest import vitmech
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmech_utils.arguments import exit_status
from vitmech_utils.cli import main
from vitmech_utils.pipeline import execute, warm
from vitmech_utils.profiles import (
    Profile,
    ProfileError,
    dotted_keys,
    load_profile,
    parse_override,
    parse_overrides,
    repository_root,
)
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.strict_text import (
    LARGEST_YAML,
    number,
    parse_json,
    parse_yaml,
    read_json,
    whole_number,
)

QUICK = (repository_root() / "profiles" / "quick.yaml").read_text()
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**9), st.floats(), st.text(max_size=12),
    st.sampled_from(["1_000", "010", "1:30", "yes", "0x1F", "\u0661\u0662", "2024-01-01", "3", "", "~", "x" * 500]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-2.5", -2.5),
        (" 3. ", 3.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1E-2", 0.01),
        ("+7", 7.0),
        ("1e999", math.inf),
        ("-inf", -math.inf),
    ],
)
def test_decimal_numbers_are_read(text: str, value: float) -> None:
    assert number(text) == value
    assert math.isnan(number("NaN"))


@pytest.mark.parametrize(
    "text", ["1_000", "\u0661", "\uff11", "1,5", "0x10", "", " ", "1 000", "one", "1e", ".", "\u22121"]
)
def test_what_only_python_takes_for_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        number(text)
    with pytest.raises(ValueError, match="is not a whole number"):
        whole_number(text)


@pytest.mark.parametrize("text", ["\u00b9", "-1", "1.0", "9" * 19])
def test_whole_numbers_are_ascii_digits(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        whole_number(text)
    assert whole_number(" 07 ") == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "a": 2}', "'a' stands there more than once"),
        ('{"a": {"b": 1, "b": 1}}', "'b' stands there more than once"),
        ("[NaN]", "it holds NaN"),
        ("-Infinity", "it holds -Infinity"),
        ("1e999", "it holds 1e999"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "digits"),
        ("{", "Expecting"),
    ],
)
def test_json_that_says_two_things_or_nothing_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        parse_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_json(tmp_path / "a.json")


def test_json_files_are_of_a_size_that_is_known_before(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": [1, 2.5, None, True, "x"]}))
    assert read_json(path) == {"a": [1, 2.5, None, True, "x"]}
    with pytest.raises(ValueError, match="expected at most 10"):
        read_json(path, 10)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 3", 3),
        ("a: -0.5", -0.5),
        ("a: 1e-4", 1e-4),
        ("a: 1.0e-4", 1e-4),
        ("a: true", True),
        ("a: null", None),
        ("a:", None),
        ("a: yes", "yes"),
        ("a: 010", "010"),
        ("a: 1_000", "1_000"),
        ("a: 1:30", "1:30"),
        ("a: 0x1F", "0x1F"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: '3'", "3"),
        ("a: <<", "<<"),
        ("a: [1, {b: x}]", [1, {"b": "x"}]),
    ],
)
def test_yaml_says_what_it_looks_like(text: str, value: object) -> None:
    found = parse_yaml(text)["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands there more than once[\\s\\S]*line 3"),
        ("a: {b: 1, b: 2}", "'b' stands there more than once"),
        ("a: &x [1]\nb: *x", "aliases are not read[\\s\\S]*line 1"),
        ("a: !!python/object:os.system x", "tag .* is not read"),
        ("a: !!int 3", "tag .* is not read"),
        ("1: 2", "the key 1 is no text"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("a: 1\n---\nb: 2", "single document"),
        ("x" * (LARGEST_YAML + 1), "expected at most"),
        ("\x07", "unacceptable character"),
        ("a: [1", "expected"),
    ],
)
def test_yaml_that_multiplies_repeats_or_never_ends_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_yaml(text)


def test_all_of_the_book_s_profiles_are_read_alike_by_the_strict_reader() -> None:
    for path in (repository_root() / "profiles").glob("*.yaml"):
        assert parse_yaml(path.read_text()) == yaml.safe_load(path.read_text())


def test_a_key_that_stands_twice_is_refused_in_files_and_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(QUICK.replace("gallery:\n  images: 6", "gallery:\n  images: 6\n  images: 9"))
    with pytest.raises(ProfileError, match=r"mine\.yaml[\s\S]*'images' stands there more than once"):
        load_profile(path)
    assert parse_overrides(["train.steps=3", "audit.images=4"]) == {"train.steps": 3, "audit.images": 4}
    with pytest.raises(ProfileError, match=r"train\.steps is given more than once"):
        parse_overrides(["train.steps=3", "train.steps=4"])
    assert main(["run", "01", "-p", "train.steps=3", "-p", "train.steps=4"]) == 1
    assert "more than once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.steps", "1_000"),
        ("train.steps", "010"),
        ("train.steps", "1:30"),
        ("train.steps", "'3'"),
        ("train.steps", "3.0"),
        ("train.learning_rate", "'1e-3'"),
        ("train.learning_rate", ".inf"),
        ("train.learning_rate", "1e999"),
        ("seeds", "[0, true]"),
        ("seeds", "{a: 1}"),
        ("backbone", "3"),
        ("backbone", "/" + "x" * 5000),
        ("backbone", "~nobody-of-this-name/x"),
        ("device", "null"),
    ],
)
def test_values_of_another_kind_are_refused_by_key(key: str, text: str) -> None:
    with pytest.raises(ProfileError, match=key) as error:
        load_profile("quick", dict([parse_override(f"{key}={text}")]))
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "name", [None, 3, b"quick", ["quick"], "", "x" * 5000, "a\0b", "~nobody-of-this-name/x.yaml", "/" * 5000]
)
def test_what_is_no_profile_s_name_is_refused(name: object) -> None:
    code = (
        "import sys\nfrom vitmech_utils.profiles import ProfileError, load_profile\n"
        "try: load_profile(eval(sys.stdin.read()))\nexcept ProfileError as error: print('refused', len(str(error)))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=repr(name), capture_output=True, text=True)
    assert done.stdout.startswith("refused"), done.stderr
    assert int(done.stdout.split()[1]) < 2000


@pytest.mark.parametrize("overrides", ["train.steps=3", [("train.steps", 3)], 3, {3: 3}, {None: 1}])
def test_what_are_no_overrides_is_refused(overrides: object) -> None:
    code = (
        "import sys\nfrom vitmech_utils.profiles import ProfileError, load_profile\n"
        "try: load_profile('quick', eval(sys.stdin.read()))\nexcept ProfileError as error: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], input=repr(overrides), capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(dotted_keys()), VALUES)
def test_any_override_is_taken_as_it_is_or_refused_by_its_key(key: str, value: object) -> None:
    found, told = outcome(lambda: load_profile("quick", {key: value}), ProfileError)
    if told is not None:
        assert key in told or key.partition(".")[0] in told
        assert "quick.yaml" in told
        assert len(told) < 10_000
        return
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_profile_is_a_profile_or_refused_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Lines of a good profile repeated, dropped, exchanged, or replaced by others of YAML's signs."""
    lines = QUICK.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(8, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "repeat", "swap", "text", "value"]))
        if kind == "drop":
            del lines[at]
        elif kind == "repeat":
            lines.insert(data.draw(st.integers(8, len(lines))), lines[at])
        elif kind == "swap":
            other = data.draw(st.integers(8, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "text":
            lines[at] = data.draw(st.text("ab:-[]{}&*!|>'\"#% \t01._", max_size=20))
        else:
            lines[at] = f"{lines[at].partition(':')[0]}: {data.draw(st.text(max_size=12))}"
    path = tmp_path_factory.mktemp("profile") / "mine.yaml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    found, told = outcome(lambda: load_profile(path), ProfileError)
    assert isinstance(found, Profile) if told is None else "mine.yaml" in told


def test_billions_of_laughs_end_within_megabytes_read_and_a_gigabyte(tmp_path: Path) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 9)}]\n"
        for level in range(9)
    )
    texts = [
        bomb + QUICK.replace("dinov2-small", "*j"),
        "[" * 60_000,
        "a: [" + "[],".join([""] * 20_000) + "]",
        "seeds: [" + "0," * 30_000 + "0]",
        "".join(f"k{number}: 1\n" for number in range(7000)),
    ]
    code = (
        "from vitmech_utils.profiles import load_profile, ProfileError\n# begin\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_profile(path)\n"
        "    except ProfileError as error: print('refused', len(str(error)) < 10_000)"
    )
    paths = []
    for number_of_text, text in enumerate(texts):
        paths.append(tmp_path / f"{number_of_text}.yaml")
        paths[-1].write_text(text)
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(2**34)  # 16 GiB of nothing
    work = work_of(code, [*paths, tmp_path / "large.yaml"], 2**31)
    assert work.told == ["refused True"] * 6
    assert work.read < 2**23  # bytes
    assert work.memory < 2**20  # KiB


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "01", "--run-dir", "{file}"),
        ("run", "01", "--run-dir", "{file}/deeper"),
        ("book", "--run-dir", "{file}"),
        ("stage", "--run-dir", "{file}/deeper"),
        ("run", "01", "--profile", "{file}"),
        ("run", "01", "--profile", "{file}/x.yaml"),
        ("run", "01", "--run-dir", "{long}"),
        ("run", "01", "--run-dir", "~nobody-of-this-name/run"),
        ("book", "--out", "~nobody-of-this-name/site"),
        ("book", "--out", "{file}"),
        ("publish", "--run-dir", "{file}/deeper"),
        ("publish", "--leave-out", "\u00b9"),
        ("check-in", "01", "--run-dir", "{file}"),
        ("redraw", "01", "--run-dir", "{file}"),
        ("run", "\u00b9"),
        ("run", "{digits}"),
        ("run", ""),
        ("run", "../01_first"),
        ("run", "[0-9]*"),
        ("redraw", "{long}"),
        ("run", "01", "-p", "train.steps={digits}"),
        ("run", "01", "-p", "backbone={long}"),
        ("run", "01", "-p", "\ud800=1"),
        ("doctor", "-p", "="),
        ("doctor", "--profile", "{file}/"),
    ],
)
def test_wrong_paths_on_the_command_line_are_told_in_a_sentence(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("precious")
    monkeypatch.setenv("VITMECH_ROOT", str(small))
    monkeypatch.chdir(small)
    assert (
        main([each.format(file=tmp_path / "file", long="x" * 5000, digits="9" * 5000) for each in arguments])
        == 1
    )
    told = capsys.readouterr().err
    assert told.startswith("vitmech: ")
    assert len(told) < 10_000
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (RunError("stale"), 1, "vitmech: stale\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "vitmech: /x: Permission denied\n"),
        (OSError("odd"), 1, "vitmech: cannot be done: odd\n"),
        (KeyboardInterrupt(), 130, "vitmech: interrupted; what was whole before still stands\n"),
    ],
)
def test_whatever_a_command_refuses_is_a_sentence(
    capsys: pytest.CaptureFixture[str], raised: BaseException, status: int, told: str
) -> None:
    def command() -> int:
        raise raised

    assert exit_status("vitmech", command, (RunError,)) == status
    assert capsys.readouterr().err == told
    assert exit_status("vitmech", lambda: 2, (RunError,)) == 2


def test_a_reader_of_the_output_that_has_gone_is_a_sentence() -> None:
    code = (
        "import sys\nfrom vitmech_utils.arguments import exit_status\n"
        "def command():\n    for line in range(100_000): print(line)\n    return 0\n"
        "sys.exit(exit_status('vitmech', command, ()))"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    program.stdout.readline()
    program.stdout.close()
    told = program.stderr.read()
    assert program.wait() == 1
    assert told == "vitmech: nobody reads its output any more, so it stopped\n"


@pytest.mark.parametrize(
    ("module", "arguments", "status"),
    [
        ("adapters", ["--at-once", "0"], 2),
        ("adapters", ["--workers", "-1"], 2),
        ("adapters", ["--only", "seed-9"], 1),
        ("adapters", ["--out", "~nobody-of-this-name/x"], 1),
        ("adapters", ["--profile", "none"], 1),
        ("train", ["--run-dir", "~nobody-of-this-name/x"], 1),
        ("train", ["-p", "train.steps"], 1),
        ("data.kept", ["{file}/kept", "--size", "0"], 2),
        ("data.kept", ["{file}/kept", "--size", "1"], 1),
        ("data.kept", ["kept", "--size", "1", "--hard-share", "nan"], 1),
        ("data.kept", ["kept", "--size", "\u0661"], 2),
    ],
)
def test_wrong_arguments_of_the_other_commands_are_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    module: str, arguments: list[str], status: int,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("precious")
    monkeypatch.setenv("VITMECH_ROOT", str(repository_root()))
    monkeypatch.chdir(tmp_path)
    call = importlib.import_module(f"vitmech_utils.{module}").main
    given_arguments = [each.format(file=tmp_path / "file") for each in arguments]
    if status == 2:  # argparse's own sentence
        with pytest.raises(SystemExit) as error:
            call(given_arguments)
        assert error.value.code == 2
    else:
        assert call(given_arguments) == status
    assert f"vitmech_utils.{module}: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name != "kept"] == ["file"]


@pytest.mark.pipeline
def test_a_kernel_of_the_same_name_is_not_taken_for_that_of_this_environment(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    done = vitmech("run", "01", root=small)
    assert done.returncode == 0, done.stderr


@pytest.mark.pipeline
def test_a_kernel_that_cannot_start_is_told_in_a_sentence(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    for kernels in ("OWN_KERNEL", "WARM_KERNEL"):
        monkeypatch.setattr(execute, kernels, tmp_path)
    monkeypatch.setenv("VITMECH_ROOT", str(small))
    assert main(["run", "01"]) == 1
    if spare := warm.take_spare():  # which imported ahead for nothing
        spare[1].close()
        assert spare[0].wait(60) == 0
    told = capsys.readouterr().err
    assert "vitmech: 01_first.ipynb: its kernel" in told
    assert "Traceback" not in told
