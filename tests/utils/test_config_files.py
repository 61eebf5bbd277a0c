"""What a wrong configuration is told, and that none runs anything."""

import pytest

from a2d_d2.config import setup_cfg, system_options


def write(tmp_path, text, name="own.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "MODEL: {FLOW: {ENABELD: true}}",
            r"MODEL\.FLOW\.ENABELD.*nearest is MODEL\.FLOW\.ENABLED",
        ),
        ("SOLVER: {BASE_LRR: 1.0}", r"SOLVER\.BASE_LRR.*nearest is SOLVER\.BASE_LR$"),
        ("MODEL: {CLIP: {LENGTH: 3}}", r"MODEL\.CLIP\.LENGTH.*nearest is INPUT\.CLIP\.LENGTH"),
        ("SEED: {A: 1}", r"no key SEED\.A"),
        ("INPUT: {CLIP: 3}", r"INPUT\.CLIP is not one key, but several: INPUT\.CLIP\.LENGTH"),
        ("INPUT: {CLIP: {LENGTH: x}}", r"INPUT\.CLIP\.LENGTH must be a whole number.* 5, not x"),
        ("INPUT: {CLIP: {LENGTH: 2.5}}", r"LENGTH must be a whole number, such as 5, not 2\.5"),
        ("INPUT: {CLIP: {LENGTH: null}}", "LENGTH must be a whole number"),
        ("INPUT: {CLIP: {LENGTH: true}}", "LENGTH must be a whole number"),
        ("MODEL: {MASK_ON: 1}", r"MODEL\.MASK_ON must be True or False"),
        ("MODEL: {PIXEL_MEAN: [a, b, c]}", r"MODEL\.PIXEL_MEAN must be a list"),
        ("SOLVER: {BASE_LR: .nan}", r"SOLVER\.BASE_LR must be a number"),
        ("DATASETS: {TRAIN: a2d_train}", r"DATASETS\.TRAIN must be a list.*\('a2d_train',\)"),
        ("OUTPUT_DIR: 2001-01-01", "OUTPUT_DIR must be a text"),
        ("1: 2", "1 is not the name of a key"),
        ("VERSION: 1", "VERSION is 1; it must be 2"),
        ("_BASE_: own.yaml\nSEED: 1", "its own _BASE_"),
        ("_BASE_: 7", "_BASE_ must be a path"),
        ("_BASE_: https://example.org/x.yaml", "_BASE_ must be a path"),
        ("_BASE_: nowhere.yaml", "nowhere.yaml does not exist"),
        ("INPUT: {CLIP: {LENGTH: 3, LENGTH: 5}}", "'LENGTH' is given twice"),
    ],
)
def test_a_wrong_file(tmp_path, text, words):
    with pytest.raises(ValueError, match=rf"bad configuration file .*own\.yaml.*{words}"):
        setup_cfg(write(tmp_path, text))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["MODEL.FLOW.ENABELD", "True"], r"nearest is MODEL\.FLOW\.ENABLED"),
        (["SEED"], "SEED has no value"),
        (["SEED", "1", "--every", "3"], "--every stands behind KEY VALUE pairs, or is no option"),
        (["SEED", "1", "--resume"], "--resume stands behind KEY VALUE pairs"),
        (["INPUT.CLIP.LENGTH", "(" * 300], "whole number"),
        (["INPUT.CLIP.LENGTH", "1" * 20_000], "whole number"),
    ],
)
def test_a_wrong_option(options, words):
    with pytest.raises(ValueError, match=f"bad option.*{words}"):
        setup_cfg(opts=options)


def test_the_file_that_holds_the_mistake_is_named(tmp_path):
    write(tmp_path, "SEEED: 1\n", "base.yaml")
    path = write(tmp_path, "_BASE_: base.yaml\nSEED: 2\n")
    with pytest.raises(ValueError, match=r"base\.yaml: there is no key SEEED; the nearest is SEED"):
        setup_cfg(path)


def test_bases_are_bounded(tmp_path):
    """A chain of 1500, and 30 files that each name the one before twice: 2**30 to be read."""
    for count, bases in ((1500, "[{0}]"), (30, "[{0}, {0}]")):
        write(tmp_path, "SEED: 3\n", "0.yaml")
        for i in range(1, count):
            write(tmp_path, f"_BASE_: {bases.format(f'{i - 1}.yaml')}\n", f"{i}.yaml")
        with pytest.raises(ValueError, match=r"^bad configuration file .*yaml: .*_BASE_ .*20 file"):
            setup_cfg(str(tmp_path / f"{count - 1}.yaml"))
        deepest = setup_cfg(str(tmp_path / "20.yaml")) if count == 1500 else None
        assert deepest is None or deepest.SEED == 3
    many = write(tmp_path, f"_BASE_: [{', '.join(['0.yaml'] * 101)}]\n")
    with pytest.raises(ValueError, match=r"own\.yaml: .*_BASE_ .*more than 100"):
        setup_cfg(many)


def test_a_base_of_two_bases_is_read_for_both(tmp_path):
    write(tmp_path, "SEED: 1\nSOLVER: {MAX_ITER: 7}\n", "common.yaml")
    write(tmp_path, "_BASE_: common.yaml\nSOLVER: {MAX_ITER: 8}\n", "one.yaml")
    write(tmp_path, "_BASE_: common.yaml\n", "two.yaml")
    cfg = setup_cfg(write(tmp_path, "_BASE_: [one.yaml, two.yaml]\nSEED: 2\n"))
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER) == (2, 7)


def test_later_files_and_options_win(tmp_path):
    write(tmp_path, "SEED: 1\nSOLVER: {BASE_LR: 1, MAX_ITER: 7}\n", "one.yaml")
    write(tmp_path, "SEED: 2\nSOLVER: {STEPS: [3, 4]}\n", "two.yaml")
    path = write(tmp_path, "_BASE_: [one.yaml, two.yaml]\nSOLVER: {MAX_ITER: 8}\n")
    cfg = setup_cfg(path, ["SOLVER.STEPS", "(5,)", "MODEL.WEIGHTS", "a/b.pth"])
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (2, 1.0, 8)
    assert type(cfg.SOLVER.BASE_LR) is float
    assert (cfg.SOLVER.STEPS, cfg.MODEL.WEIGHTS) == ((5,), "a/b.pth")


@pytest.mark.parametrize("read", [setup_cfg, system_options])
def test_no_file_runs_anything(tmp_path, read):
    """Detectron2's own loader would run it."""
    flag = tmp_path / "ran"
    path = write(tmp_path, f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{flag}']\n")
    with pytest.raises(ValueError, match="not valid YAML"):
        read(path)
    assert not flag.exists()
