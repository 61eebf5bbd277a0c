"""The codec of ids, against the figures of A2D and label spaces of other sizes."""

import colorsys
import pickle

import numpy as np
import pytest
import yaml

from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
VALID_IDS = [11, 12, 13, 15, 16, 17, 18, 19]
VALID_IDS += [21, 22, 26, 28, 29, 34, 35, 36, 39]
VALID_IDS += [41, 43, 44, 45, 46, 48, 49, 54, 55, 56, 57, 59]
VALID_IDS += [61, 63, 65, 66, 67, 68, 69, 72, 73, 75, 76, 77, 78, 79]
ALL_IDS = [10 * actor + action for actor in range(1, 8) for action in range(1, 10)]


def make_space(num_actors, num_actions):
    return LabelSpace.from_dict(
        {
            "actors": [f"actor{i}" for i in range(num_actors)],
            "actions": [f"action{i}" for i in range(num_actions)],
        }
    )


def load_text(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return LabelSpace.load(path)


def test_a2d_classes():
    assert A2D.actors == ("adult", "baby", "ball", "bird", "car", "cat", "dog")
    assert A2D.actions == (
        *("climbing", "crawling", "eating", "flying", "jumping"),
        *("rolling", "running", "walking", "none"),
    )
    assert len(VALID_IDS) == len(A2D.valid_pairs) == len(A2D.pair_names) == 43
    assert [i for i in range(-100, 200) if A2D.is_valid_id(i)] == VALID_IDS
    assert A2D.joint_ids == tuple(ALL_IDS)
    assert (A2D.base, A2D.max_id, A2D.label_map_dtype) == (10, 79, np.uint8)


def test_names():
    assert A2D.pair_name(*A2D.split_id(77)) == "dog-running"
    assert A2D.pair_names[0] == "adult-climbing"
    assert A2D.pair_names[-1] == "dog-none"
    assert A2D.actor_index("cat") == 5
    assert A2D.action_index("none") == 8
    with pytest.raises(ValueError, match="no actor 'horse'; it has adult, baby"):
        A2D.actor_index("horse")
    with pytest.raises(ValueError, match="no action 'swimming'; it has climbing"):
        A2D.action_index("swimming")


# Below ten, at ten and above, and where both parts of the id need more digits.
@pytest.mark.parametrize("num_actors, num_actions", [(7, 9), (1, 1), (3, 10), (12, 15), (2, 120)])
def test_every_id_survives_the_round_trip(num_actors, num_actions):
    space = make_space(num_actors, num_actions)
    pairs = [(i, j) for i in range(num_actors) for j in range(num_actions)]
    ids = [space.joint_id(*pair) for pair in pairs]
    assert [space.split_id(i) for i in ids] == pairs
    assert list(space.joint_ids) == ids == sorted(set(ids))
    assert space.max_id == ids[-1]
    # As the evaluation derives them from label maps, 0 remaining background.
    assert [(i // space.base - 1, i % space.base - 1) for i in ids] == pairs
    assert np.array(ids).astype(space.label_map_dtype).tolist() == ids
    strangers = set(range(-10, space.max_id + 2 * space.base)) - set(ids)
    for stranger in strangers:
        with pytest.raises(ValueError, match=f"{stranger} is not a joint id"):
            space.split_id(stranger)


def test_joint_id_refuses_indices_outside_the_space():
    for pair in [(7, 0), (0, 9), (-1, 0), (0, -1)]:
        with pytest.raises(ValueError, match="A2D has no actor"):
            A2D.joint_id(*pair)


@pytest.mark.parametrize("joint_id", [18.5, float("nan"), 0, 10, 20, 80])
def test_other_numbers_are_no_valid_ids(joint_id):
    assert not A2D.is_valid_id(joint_id)


def test_a2d_colors():
    table = {0: (0, 0, 0)}
    for joint_id in ALL_IDS:
        actor, action = divmod(joint_id, 10)
        saturation, value = (1, action / 5) if action <= 5 else (1 - (action - 5) / 5, 1)
        rgb = colorsys.hsv_to_rgb((54 * (actor - 1) % 360) / 360, saturation, value)
        table[joint_id] = tuple(min(255, int(255 * channel) + 1) for channel in rgb)
    assert {i: A2D.color(i) for i in table} == table
    # Rows of the data set's own table.
    assert A2D.color(11) == (52, 1, 1)
    assert A2D.color(28) == (255, 245, 154)
    assert A2D.color(45) == (1, 255, 179)
    assert A2D.color(59) == (205, 225, 255)
    assert A2D.color(63) == (77, 1, 154)
    assert A2D.color(79) == (255, 205, 235)
    unused = sorted(set(range(80)) - set(table))
    assert not A2D.palette[unused].any()


@pytest.mark.parametrize("num_actors, num_actions", [(7, 9), (1, 1), (2, 2), (7, 10), (12, 15)])
def test_colors_tell_all_pairs_and_background_apart(num_actors, num_actions):
    space = make_space(num_actors, num_actions)
    colors = {space.color(i) for i in (0, *space.joint_ids)}
    assert len(colors) == num_actors * num_actions + 1


def test_yaml_space(tmp_path):
    space = load_text(
        tmp_path,
        """
        name: farm
        actors: [horse, hen, farmer]
        actions: [trotting, pecking, none]
        valid:
          horse: [none, trotting]
          hen: [pecking]
        coco: {horse: horse, farmer: person}
        """,
    )
    assert space.name == "farm"
    assert space.pair_names == (
        *("horse-trotting", "horse-none", "hen-pecking"),
        *("farmer-trotting", "farmer-pecking", "farmer-none"),
    )
    assert space.valid.tolist() == [[True, False, True], [False, True, False], [True, True, True]]
    assert space.coco_names == {"horse": "horse", "farmer": "person"}
    assert LabelSpace.from_dict(space.to_dict()) == space
    assert LabelSpace.from_dict(yaml.safe_load(yaml.safe_dump(space.to_dict()))) == space


def test_minimal_yaml_space(tmp_path):
    space = load_text(tmp_path, "actors: [a]\nactions: [x, y]\n")
    assert (space.name, space.pair_names) == ("space", ("a-x", "a-y"))


def test_empty_path_is_a2d():
    assert LabelSpace.load("") is LabelSpace.load(None) is A2D
    assert LabelSpace.from_dict(A2D.to_dict()) == A2D


def test_pickles():
    assert A2D.valid.any()
    assert pickle.loads(pickle.dumps(A2D)) == A2D


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected the keys actors and actions"),
        ("- a\n- b\n", "expected the keys actors and actions"),
        ("actors: [a", "not valid YAML"),
        ("actions: [x]", "actors must be a list"),
        ("actors: a\nactions: [x]", "actors must be a list"),
        ("actors: []\nactions: [x]", "no actors"),
        ("actors: [a, a]\nactions: [x]", "actors repeat a"),
        ("actors: [a]\nactions: [off]", "False in actions is not a name.*quot"),
        ("actors: [a]\nactions: [x]\ncolors: {}", "unknown key colors"),
        ("actors: [a]\nactions: [x]\nvalid: [a]", "valid must map actor names"),
        ("actors: [a]\nactions: [x]\nvalid: {b: [x]}", "valid names 'b', not an actor"),
        ("actors: [a]\nactions: [x]\nvalid: {a: x}", "valid.a must be a list of actions"),
        ("actors: [a]\nactions: [x]\nvalid: {a: [y]}", "'y' of a is not an action"),
        ("actors: [a, b]\nactions: [x]\nvalid: {a: []}", "a has no valid action"),
        ("actors: [a]\nactions: [x]\ncoco: {b: dog}", "coco names 'b', not an actor"),
        ("actors: [[a]]\nactions: [x]", "not a name"),
        ("actors: [a]\nactions: [x]\n1: 2\nb: 3", "unknown key 1, b"),
        ("actors: [a]\nactions: [x]\nactors: [b]", "'actors' is given twice"),
        ('actors: ["a\\e[2J"]\nactions: [x]', "cannot be shown"),
        (f"actors: [a]\nactions: {[f'x{i}' for i in range(5000)]}", "too many"),
        ("actors: !!python/name:os.system", "not valid YAML"),
    ],
)
def test_mistakes_in_yaml_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        load_text(tmp_path, text)
    assert "space.yaml" in str(error.value)


def test_missing_yaml(tmp_path):
    with pytest.raises(ValueError, match="cannot read label space .*none.yaml: No such file"):
        LabelSpace.load(tmp_path / "none.yaml")
