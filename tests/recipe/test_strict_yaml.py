"""YAML of strangers: within bounds, or one line that names the place, at once."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from capacity.recipe import config, strict_yaml
from capacity.recipe.strict_yaml import LARGEST, parse_yaml, read_yaml


def bomb(levels: int, width: int = 10) -> str:
    lines = ["x0: &x0 [" + ", ".join(["a"] * width) + "]"]
    lines += [f"x{k}: &x{k} [" + ", ".join([f"*x{k - 1}"] * width) + "]" for k in range(1, levels)]
    return "\n".join([*lines, f"description: *x{levels - 1}"])


BAD = {
    # what is wrong: (text, words of the error)
    "a key twice": ("name: a\nseed: 1\nseed: 2\n", "line 3: seed is given twice, first on line 2"),
    "a key twice, inside": ("a:\n  b: 1\n  'b': 2\n", "line 3: b is given twice"),
    "a key twice, inline": ("{a: 1, b: 2, a: 3}", "line 1: a is given twice"),
    "a merge twice": ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", "<< is given twice"),
    "a bomb": (bomb(9), "line 4: more than 10,000 entries"),
    "a bomb of merges": (
        "a: &a {k: 1}\nb: &b\n  <<: [" + ", ".join(["*a"] * 6000) + "]\n", "more than 10,000"
    ),
    "itself": ("a: &a [1, *a]\n", "line 1: *a stands inside of itself"),
    "base 8": ("name: a\nseed: 010\n", "line 2: 010 is a number of base 8 or 60 in YAML"),
    "base 60": ("name: a\nseed: 1:30\n", "line 2: 1:30 is a number of base 8 or 60 in YAML"),
    "a fraction in base 60": ("lr: 1:30.5\n", "line 1: 1:30.5 is a number of base 8 or 60"),
    "deep brackets": ("[" * 5000 + "]" * 5000, "line 1: more than 32 levels"),
    "deep braces": ("{a: " * 5000 + "1" + "}" * 5000, "more than 32 levels"),
    "deep lists": ("- " * 5000 + "1", "more than 32 levels"),
    "unclosed": ("[" * 60_000, "more than 32 levels"),
    "a whole number": ("seed: 1" + "0" * 30, "line 1: 1" + "0" * 30 + " is no whole number of 64"),
    "a long number": ("seed: " + "9" * 50_000, "(50000 characters) is no whole number"),
    "a hexadecimal one": ("seed: 0x" + "f" * 17, "is no whole number of 64 bits"),
    "no number": ("seed: 0x_", "0x_ is no whole number"),
    "a tag": ("name: !!binary aGk=\n", "tag !!binary"),
    "an own tag": ("name: !x y\n", "tag !x"),
    "no YAML": ("a: [", "not readable as YAML"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_what_leaves_the_bounds_is_refused_with_its_line(case):
    text, said = BAD[case]
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 400


def test_what_stays_within_them_is_read_as_yaml_has_it():
    text = """
    base: &base {lr: 0.1, epochs: 3, kinds: [a, b]}
    first: {<<: *base, lr: 0.2}
    deep: [{inner: &in {<<: *base, lr: 0.3}}]
    second: {<<: *in}
    bounds: [9223372036854775807, -9223372036854775808, 1_000, 0x10]
    day: 2024-13-45
    none: ~
    """
    read = parse_yaml(text)
    assert read["first"] == {"lr": 0.2, "epochs": 3, "kinds": ["a", "b"]}
    assert read["deep"] == [{"inner": {"lr": 0.3, "epochs": 3, "kinds": ["a", "b"]}}]
    assert read["second"]["lr"] == 0.3
    assert read["bounds"] == [2**63 - 1, -(2**63), 1000, 16]
    assert read["day"] == "2024-13-45"
    assert read["none"] is None


def test_a_file_is_read_up_to_a_bound(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no space
    with pytest.raises(ValueError, match="more than 64 KiB"):
        read_yaml(path)
    path.write_bytes(b"a: " + b"x" * (LARGEST - 3))
    assert len(read_yaml(path)["a"]) == LARGEST - 3


def test_the_largest_recipe_can_be_read_back():
    recipe = config.Recipe(
        name="\u4e2d" * 1000,
        description="\u4e2d" * 4000,
        model=config.Model(hidden=(2**31 - 1,) * 200),
        measure=config.Measure(eps=(0.1234567890123456,) * 200),
        tasks=config.TaskStream(root="\u4e2d" * 4000),
    )
    text = recipe.to_yaml()
    assert len(text.encode()) < LARGEST
    assert config.build(parse_yaml(text)) == recipe
    with pytest.raises(ValueError, match=r"Recipe: name = .* at most 1000 characters"):
        config.Recipe(name="x" * 1001)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bomb", "deep", "large"])
def test_a_hostile_recipe_costs_nothing(name, tmp_path):
    path = tmp_path / "mine.yaml"
    text = {"bomb": bomb(200), "deep": "[" * 60_000, "large": "a: 1\n" * 10**7}[name]
    path.write_text(text)
    code = (
        "import resource, sys\nfrom capacity.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20,) * 2)\n"  # 200 MB of it are Python's
        "code = main(sys.argv[1:])\nassert 'torch' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "validate", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("capacity: mine.yaml: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "tiny-digits"],
        ["validate", "tiny-digit"],
        ["validate", "tiny-digits", "training.lr=fast"],
        ["run", "tiny-digits", "training.lr=fast"],
        ["run", "tiny-digits", "--seeds", "0-3", "--jobs", "0"],
        ["run", "--resume", "nowhere"],
        ["report", "nowhere"],
        ["compare", "nowhere"],
        ["export", "nowhere", "--to", "mlflow"],
        ["export", "nowhere", "--to", "paper"],
        ["recipes", "ls"],
        ["recipes", "cp", "tiny-digit"],
        ["--help"],
        ["run", "--unknown"],
    ],
    ids=" ".join,
)
def test_refusals_and_help_import_no_torch(arguments, tmp_path):
    code = (
        "import sys\nfrom capacity.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "slow = {'torch', 'avalanche', 'scipy', 'altair', 'duckdb', 'matplotlib', 'sklearn'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr.count("\n") == 1


@pytest.fixture
def parses(monkeypatch):
    """The texts that are parsed from here on."""
    strict_yaml._parsed.cache_clear()
    calls: list[str] = []
    original = strict_yaml.parse_yaml
    monkeypatch.setattr(
        strict_yaml, "parse_yaml", lambda text: calls.append(text) or original(text)
    )
    return calls


def test_a_sweep_over_seeds_is_parsed_twice(tmp_path, parses):
    path = tmp_path / "recipe.yaml"
    for seed in range(20):
        path.write_text(f"name: a\nmodel:\n hidden: [4]\n seed: 7\nseed: {seed}\nreplicas: 2\n")
        for _ in range(2):
            made = strict_yaml.read_yaml(path)
            assert list(made.items()) == [
                ("name", "a"),
                ("model", {"hidden": [4], "seed": 7}),
                ("seed", seed),
                ("replicas", 2),
            ]
            made["model"]["hidden"].append("another reader's")
    assert len(parses) == 2


@pytest.mark.parametrize(
    "text",
    [
        'name: "a\nseed: {}\n"\nseed:  3\n',
        "name: a\nseed: {}\nseed:  3\n",
        "- a\n- 'b\n\nseed: {}'\n",
        "name: [a\nseed: {}\n",
        "name: a\nseed: {}\nmore: {{seed: {}}}\n",
    ],
)
def test_a_line_that_looks_like_the_seed_is_read_as_it_stands(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    for seed in range(4):
        written = text.replace("{{", "{").replace("}}", "}").replace("{}", str(seed))
        path.write_text(written)
        assert outcome(strict_yaml.read_yaml, path) == outcome(strict_yaml.parse_yaml, written)


def outcome(read, given):
    """What is read, or what is said against it."""
    try:
        return read(given)
    except ValueError as error:
        return str(error)
