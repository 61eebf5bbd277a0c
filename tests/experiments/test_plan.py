"""Which runs there are, and their commands."""

import logging
import runpy
import shlex
import subprocess
import sys

import pytest

from a2d_d2 import config
from a2d_d2.config import setup_cfg
from a2d_d2.experiments import records
from a2d_d2.experiments.plan import BASE, plan_lines
from a2d_d2.experiments.records import without_places
from a2d_d2.experiments.systems import CONFIGS, all_systems, suite_systems
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.repository import REPOSITORY, repository_name, repository_path

A2D = LabelSpace.a2d()
ZERO_SHOT = {f"zero_shot-{actor}" for actor in A2D.actors}


def _names(suite):
    return {system.name for system in suite_systems(suite, A2D)}


def test_what_each_table_needs():
    assert _names("table1") == {"full"}
    assert _names("table2") == {"tsct", "tshr", "tsmt", "full"}
    ablations = {"no_temporal", "no_flow", "separate_training", "no_mask_grabcut"}
    assert _names("table3") == {"full", "mask_rcnn"} | ablations
    assert _names("zero_shot") == {"full"} | ZERO_SHOT
    others = {*_names("table2"), *_names("table3")} - {"full"}
    longer = {f"{name}-equal_time" for name in others}
    assert _names("equal_time") == {"full"} | longer
    assert _names("all") == _names("table1") | _names("table2") | _names("table3") | ZERO_SHOT
    with pytest.raises(ValueError, match="no suite 'table4'; use table1"):
        suite_systems("table4", A2D)


@pytest.mark.parametrize("system", all_systems(A2D).values(), ids=lambda system: system.name)
def test_every_system_is_one_over_the_bases(system):
    if system.config:
        assert (CONFIGS / system.config).exists()
    options = system.options()
    assert "OUTPUT_DIR" not in options
    for base in ("a2d_R101_FPN.yaml", "synthetic/R18_FPN.yaml"):
        cfg = setup_cfg(str(CONFIGS / base), options)
        has_masks = cfg.MODEL.MASK_ON or bool(cfg.MODEL.SEGMENTER.NAME)
        assert has_masks == system.has_masks
        if system.name.startswith("zero_shot-"):
            assert [system.name.partition("-")[2]] == cfg.MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS


def test_shared_weights_are_of_the_same_network():
    systems = all_systems(A2D)
    for system in systems.values():
        if system.weights_of:
            own, source = (
                {
                    key: value
                    for key, value in zip(options[::2], options[1::2], strict=True)
                    if not key.startswith(("MODEL.SEGMENTER.", "TEST."))
                }
                for options in (system.options(), systems[system.weights_of].options())
            )
            assert own == source


def _commands(lines):
    return [shlex.split(line) for line in lines if not line.startswith("#")]


def _value(command, key):
    """The last value of a key, which counts."""
    places = [i for i, word in enumerate(command) if word == key]
    return command[places[-1] + 1] if places else None


def test_a_dry_run_lists_every_run_once(make_experiment, tmp_path):
    experiment = make_experiment(seeds=(0, 3), base="configs/a2d_R101_FPN.yaml", options=())
    lines = list(plan_lines(experiment, experiment.plan("all")))
    commands = _commands(lines)
    prepare, *commands = commands
    assert prepare[1].endswith("prepare_clips.py")
    assert shlex.join(prepare).endswith("--method dis --length 5 --stride 1")
    trainings = [c for c in commands if "--resume" in c]
    tests = [c for c in commands if "--eval-only" in c]
    # 9 systems of the tables, 7 of zero-shot; one of them shares its weights. Two seeds.
    assert (len(trainings), len(tests)) == (2 * 15, 2 * 16)
    assert len(commands) == len(trainings) + len(tests)
    assert len({_value(c, "OUTPUT_DIR") for c in commands}) == len(commands)
    assert {_value(c, "SEED") for c in trainings} == {"0", "3"}
    comments = [line for line in lines if line.startswith("# full, seed 3")]
    assert comments == ["# full, seed 3: for table1, table2, table3, zero_shot, equal_time"]
    for command in commands:
        assert _value(command, "INPUT.CLIP.CACHE") == str(experiment.output / "cache")
        assert _value(command, "DATASETS.HOLD_OUT") == "2"
    assert not experiment.output.exists()


def test_the_two_commands_of_a_run(make_experiment):
    experiment = make_experiment(options=("SOLVER.MAX_ITER", "7"))
    (run,) = experiment.plan("table3", ["no_flow"])
    folder = experiment.folder(run)
    train, test = experiment.train_command(run), experiment.test_command(run)
    assert train[:5] == [
        *(sys.executable, "train_net.py", "--config-file", "configs/synthetic/R18_FPN.yaml"),
        "--resume",
    ]
    assert train[-4:] == ["MODEL.FLOW.ENABLED", "False", "SOLVER.MAX_ITER", "7"]
    assert _value(train, "DATASETS.TEST") == "('a2d_val',)"
    assert _value(train, "OUTPUT_DIR") == str(folder)
    assert test[4] == "--eval-only"
    assert _value(test, "DATASETS.TEST") == "('a2d_test',)"
    assert _value(test, "OUTPUT_DIR") == str(folder / "test")
    assert _value(test, "MODEL.WEIGHTS") == str(folder / "model_final.pth")
    assert experiment.predictions(run, "val") == folder / "inference" / "predictions.json"
    assert experiment.predictions(run, "test") == folder / "test/inference/predictions.json"
    assert experiment.training_steps(run) == 7
    (separate,) = experiment.plan("table3", ["separate_training"])
    assert experiment.training_steps(separate) == 14


def test_a_run_with_the_weights_of_another(make_experiment):
    experiment = make_experiment()
    lines = list(plan_lines(experiment, experiment.plan("table3", ["no_mask_grabcut"])))
    _, train, test = _commands(lines)
    assert _value(train, "OUTPUT_DIR").endswith("runs/tsmt/seed0")
    assert _value(train, "MODEL.SEGMENTER.NAME") is None
    assert _value(test, "MODEL.WEIGHTS").endswith("runs/tsmt/seed0/model_final.pth")
    assert _value(test, "MODEL.SEGMENTER.NAME") == "GrabCutSegmenter"
    assert _value(test, "DATASETS.TEST") == "('a2d_val', 'a2d_test')"


def test_nothing_held_out_leaves_the_test_videos_alone_in_training(make_experiment):
    experiment = make_experiment(hold_out=0, options=("INPUT.CLIP.CACHE", "mine"))
    (run,) = experiment.plan("table1")
    train = experiment.train_command(run)
    assert _value(train, "DATASETS.TEST") == "()"
    assert (_value(train, "TEST.EVAL_PERIOD"), _value(train, "TEST.BEST_METRIC")) == ("0", "")
    assert experiment.prepare_command() is None
    assert _value(train, "INPUT.CLIP.CACHE") == "mine"


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("", [sys.executable, "train_net.py"]),
        ("srun -N1 --gres 'gpu:1 x'", ["srun", "-N1", "--gres", "gpu:1 x", sys.executable]),
        ("torchrun --nproc-per-node=8", ["torchrun", "--nproc-per-node=8", "train_net.py"]),
        ("srun /opt/bin/torchrun", ["srun", "/opt/bin/torchrun", "train_net.py"]),
        (
            "python -m torch.distributed.run",
            ["python", "-m", "torch.distributed.run", "train_net.py"],
        ),
        ("srun /opt/python3.11 -u", ["srun", "/opt/python3.11", "-u", "train_net.py"]),
        ("srun -l python3 -u", ["srun", "-l", "python3", "-u", "train_net.py"]),
        ("srun -p python3 -n1", ["srun", "-p", "python3", "-n1", sys.executable, "train_net.py"]),
        (
            "srun --partition torchrun python",
            ["srun", "--partition", "torchrun", "python", "train_net.py"],
        ),
        (
            "accelerate launch --num_processes 2",
            ["accelerate", "launch", "--num_processes", "2", "train_net.py"],
        ),
        ("any python {python}", ["any", "python", sys.executable, "train_net.py"]),
        (
            "any {python} -m torch.distributed.run",
            ["any", sys.executable, "-m", "torch.distributed.run", "train_net.py"],
        ),
        (
            'bash -c \'exec "$0" "$@"\'',
            ["bash", "-c", 'exec "$0" "$@"', sys.executable, "train_net.py"],
        ),
    ],
)
def test_launchers(make_experiment, launcher, words):
    experiment = make_experiment(launcher=launcher)
    (run,) = experiment.plan("table1")
    for command in (experiment.train_command(run), experiment.test_command(run)):
        assert command[: len(words)] == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"options": ("OUTPUT_DIR", "x")},
            "OUTPUT_DIR cannot be given here: it is set by --output",
        ),
        ({"options": ("SEED", "1")}, "set by --seeds"),
        ({"options": ("SOLVER.MAX_ITER",)}, "KEY VALUE pairs are wanted, got SOLVER.MAX_ITER"),
        ({"seeds": (1, 1)}, "different numbers"),
        ({"seeds": (-1,)}, "from 0 up"),
        ({"hold_out": -5}, "--hold-out is -5; it must be at least 0"),
        ({"launcher": "srun 'a"}, "--launcher srun 'a cannot be split into words: No closing"),
        (
            {"launcher": "bash -c"},
            "^--launcher bash -c ends with -c, after which a shell takes one",
        ),
        ({"launcher": "srun -n1 /bin/sh -lc"}, "-lc ends with -lc, after which"),
    ],
)
def test_mistakes_are_named(make_experiment, changes, words):
    with pytest.raises(ValueError, match=words):
        make_experiment(**changes)


def test_a_system_that_the_suite_lacks_is_named(make_experiment):
    with pytest.raises(ValueError, match="suite table1 has no system 'no_flow'; it has full"):
        make_experiment().plan("table1", ["no_flow"])


@pytest.mark.parametrize(
    ("suite", "names", "option", "system"),
    [
        ("table3", ["no_flow"], "MODEL.FLOW.ENABLED True", "no_flow"),
        ("all", [], "MODEL.ROI_HEADS.NAME ActorActionROIHeads", "tsct"),
        ("table3", ["no_mask_grabcut"], "TEST.BEST_METRIC segmentation/joint/mIoU", "tsmt"),
        ("zero_shot", [], "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS ()", "zero_shot-adult"),
        ("equal_time", [], "MODEL.TRAIN_BRANCH joint", "separate_training-equal_time"),
    ],
)
def test_options_that_make_a_system_are_refused(make_experiment, suite, names, option, system):
    """Those of TSMT too, which gives its weights to the system with GrabCut."""
    experiment = make_experiment(options=("SOLVER.MAX_ITER", "2", *option.split()))
    key = option.split()[0]
    message = f"^{key} cannot be given here: it is part of what makes the system {system}; train"
    with pytest.raises(ValueError, match=message):
        experiment.plan(suite, names)


def test_options_of_the_base_alone_are_taken(make_experiment):
    options = ("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1", "INPUT.CLIP.CACHE", "mine")
    experiment = make_experiment(options=options)
    for suite, number in (("all", 16), ("equal_time", 9)):
        assert len(experiment.plan(suite)) == number
    experiment = make_experiment(options=("MODEL.FLOW.ENABLED", "False"))
    assert len(experiment.plan("table2")) == 4  # none of them is made by this key


def test_digests_tell_settings_from_places(make_experiment, tmp_path):
    def digests(**changes):
        experiment = make_experiment(**changes)
        (run,) = experiment.plan("table1")
        return experiment.digest, experiment.run_digest(run)

    here = digests()
    assert digests(output=tmp_path / "elsewhere", launcher="srun") == here
    assert digests(options=(*make_experiment().options, "DATALOADER.NUM_WORKERS", "3")) == here
    for changes in (
        {"hold_out": 4},
        {"options": ("SOLVER.MAX_ITER", "9")},
        {"base": "configs/a2d_R50_FPN.yaml"},
    ):
        other = digests(**changes)
        assert other[0] != here[0]
        assert other[1] != here[1]
    assert digests(seeds=(4,))[0] == here[0]
    assert digests(seeds=(4,))[1] != here[1]


def test_a_key_that_a_later_version_adds_leaves_digests_alone(make_experiment, monkeypatch):
    def digests():
        experiment = make_experiment()
        return experiment.digest, experiment.run_digest(experiment.plan("table1")[0])

    def add_more(cfg, add=config.add_a2d_config):
        add(cfg)
        cfg.TEST.LATER = 3

    before = digests()
    monkeypatch.setattr(config, "add_a2d_config", add_more)
    monkeypatch.setattr(records, "add_a2d_config", add_more)
    assert "TEST.LATER" in records.flatten(make_experiment().base_config)
    assert digests() == before


def test_a_record_keeps_no_option_that_is_a_place():
    options = ["INPUT.CLIP.CACHE", "somewhere", "SOLVER.MAX_ITER", "9", "MODEL.DEVICE", "cuda"]
    assert without_places(options) == ["SOLVER.MAX_ITER", "9"]


@pytest.fixture
def dry_run(make_experiment, tiny_release, monkeypatch, capsys):
    """The tool printing the commands of a suite: exit code, standard output and error."""
    make_experiment()  # goes to the repository
    # Loggers that another test made may hold its output, which is closed.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def run(words):
        tool = "tools/run_experiments.py"
        argv = [tool, "--dry-run", f"--root={tiny_release}", "--output=nowhere", *words.split()]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(tool, run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return run


def test_options_follow_seeds_and_systems(dry_run):
    status, output, _ = dry_run("--suite table1 --seeds 0 1 2 SOLVER.MAX_ITER 2")
    trainings = [words for words in _commands(output.splitlines()) if "--resume" in words]
    assert status == 0
    assert [_value(words, "SEED") for words in trainings] == ["0", "1", "2"]
    assert all(words[-2:] == ["SOLVER.MAX_ITER", "2"] for words in trainings)
    status, output, _ = dry_run("--suite table3 --seeds 4 --systems no_flow SOLVER.MAX_ITER 2")
    (training,) = [words for words in _commands(output.splitlines()) if "--resume" in words]
    assert status == 0
    assert _value(training, "OUTPUT_DIR") == "nowhere/runs/no_flow/seed4"
    assert training[-2:] == ["SOLVER.MAX_ITER", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds 0 x SOLVER.MAX_ITER 2", "--seeds must be whole numbers, not 'x'\n"),
        ("--seeds SOLVER.MAX_ITER 2", "--seeds has no value before SOLVER.MAX_ITER\n"),
        ("--systems full SEED 1", "SEED cannot be given here: it is set by --seeds\n"),
        (
            "--suite table1 --systems noflow SOLVER.MAX_ITER 2",
            "suite table1 has no system 'noflow'; it has full\n",
        ),
    ],
)
def test_wrong_seeds_and_systems_are_named(dry_run, words, message):
    assert dry_run(words) == (2, "", f"error: {message}")


def test_the_default_base_is_found_from_any_folder(tiny_release, tmp_path, monkeypatch):
    for folder, base in ((REPOSITORY, BASE), (tmp_path, str(REPOSITORY / BASE))):
        monkeypatch.chdir(folder)
        found = repository_path(BASE)
        assert found == base
        assert repository_name(found) == BASE  # what records say
    assert repository_name(str(tmp_path / "own.yaml")) == str(tmp_path / "own.yaml")
    command = [sys.executable, REPOSITORY / "tools/run_experiments.py", "--dry-run"]
    command += ["--suite", "table1", "--root", tiny_release, "--output", tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--config-file {REPOSITORY / BASE} --resume" in done.stdout
