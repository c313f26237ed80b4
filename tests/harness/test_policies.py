"""What every policy does, and how one is found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.policies.factory import PolicyNameError, is_server_address, make_policy
from harness.policies.replay import ReplayPolicy
from harness.policies.simple import RandomPolicy, ZeroPolicy
from tasks.interface import ActionChunk, Observation, Policy
from tests.examples import episode, observation
from tests.harness.torch_policy import make_torch_policy

EPISODES = [episode(0, i) for i in range(3)]


def make_all() -> dict[str, Policy]:
    recorded = {e.episode_id: np.random.default_rng(i).uniform(-1, 1, (20, 7)) for i, e in enumerate(EPISODES)}
    return {
        "zero": ZeroPolicy(),
        "random": RandomPolicy(seed=3),
        "replay": ReplayPolicy(recorded),
        "torch": make_torch_policy(),
    }


@pytest.mark.parametrize("name", make_all())
class TestConformance:
    def observations(self, policy: Policy) -> list[Observation]:
        size = 32
        return [
            Observation(
                images=np.random.default_rng(i).integers(
                    0, 255, (len(policy.needs.cameras), size, size, 3), dtype=np.uint8
                ),
                proprio=np.zeros(8, dtype=np.float32),
                instruction="pick",
                episode_id=EPISODES[i % 3].episode_id,
                step=i % 5,
            )
            for i in range(policy.needs.batch_size)
        ]

    def test_it_is_a_policy(self, name: str) -> None:
        assert isinstance(make_all()[name], Policy)

    def test_one_finite_chunk_per_observation(self, name: str) -> None:
        policy = make_all()[name]
        policy.start(EPISODES)
        batch = self.observations(policy)
        chunks = policy.act(batch)
        assert len(chunks) == len(batch)
        assert all(isinstance(chunk, ActionChunk) for chunk in chunks)

    def test_the_slot_in_a_batch_changes_nothing(self, name: str) -> None:
        policy = make_all()[name]
        batch = self.observations(policy)
        forward = policy.act(batch)
        backward = policy.act(batch[::-1])[::-1]
        for a, b in zip(forward, backward, strict=True):
            np.testing.assert_array_equal(a.actions, b.actions)

    def test_starting_again_forgets(self, name: str) -> None:
        policy = make_all()[name]
        batch = self.observations(policy)
        policy.start(EPISODES)
        before = policy.act(batch)
        policy.finish([e.episode_id for e in EPISODES])
        policy.start(EPISODES)
        for a, b in zip(before, policy.act(batch), strict=True):
            np.testing.assert_array_equal(a.actions, b.actions)


def test_random_actions_differ_by_episode_step_and_seed() -> None:
    chunks = [
        RandomPolicy(seed=seed).act([observation(episode_id, step)])[0].actions.tobytes()
        for seed in (0, 1)
        for episode_id in ("a", "b")
        for step in (0, 8)
    ]
    assert len(set(chunks)) == 8


def test_the_built_in_ones() -> None:
    assert isinstance(make_policy("zero", checkpoint=None, seed=0), ZeroPolicy)
    assert isinstance(make_policy("random", checkpoint=None, seed=0), RandomPolicy)


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)


def test_names_of_servers() -> None:
    assert is_server_address("ws://localhost:8000")
    assert not is_server_address("my_policy:make")


def test_a_factory_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(
        tmp_path,
        monkeypatch,
        "my_policies_a",
        "from harness.policies.simple import ZeroPolicy\n"
        "def make(seed, checkpoint):\n    policy = ZeroPolicy(); policy.got = (seed, checkpoint); return policy\n",
    )
    policy = make_policy("my_policies_a:make", checkpoint=Path("x"), seed=5)
    assert policy.got == (5, Path("x"))  # type: ignore[attr-defined]


def test_the_working_directory_never_shadows_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    write_module(tmp_path, monkeypatch, "my_policies_b", "from harness.policies.simple import ZeroPolicy\n")
    make_policy("my_policies_b:ZeroPolicy", checkpoint=None, seed=0)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path[0] != str(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pi0",
            "unknown policy .pi0.; expected one of vla-vggt, expert, zero, random, replay:PATH, ws://HOST:PORT, or a factory",
        ),
        ("no_such_module:make", "there is no module 'no_such_module', neither installed nor below"),
        ("harness.policies.simple:Nobody", "has no callable 'Nobody'; it has .*ZeroPolicy"),
        ("json:JSONDecoder", "returned JSONDecoder, which is no policy: it lacks needs, start, act, finish"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, message: str) -> None:
    with pytest.raises(PolicyNameError, match=message):
        make_policy(name, checkpoint=None, seed=0)


def test_an_import_error_inside_the_users_module_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, "my_policies_c", "import a_missing_library\n")
    with pytest.raises(ModuleNotFoundError, match="a_missing_library"):
        make_policy("my_policies_c:make", checkpoint=None, seed=0)


def test_a_factory_that_raises_shows_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, "my_policies_d", "def make():\n    return {}['weights']\n")
    with pytest.raises(
        PolicyNameError, match=r"my_policies_d:make raised KeyError: 'weights'\n(.|\n)*my_policies_d.py"
    ):
        make_policy("my_policies_d:make", checkpoint=None, seed=0)


def test_a_factory_gets_what_it_names_and_is_given_nothing_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(
        tmp_path,
        monkeypatch,
        "my_policies_e",
        "from harness.policies.simple import ZeroPolicy\n"
        "def make(device, instructions):\n    policy = ZeroPolicy(); policy.got = (device, instructions); return policy\n",
    )
    policy = make_policy("my_policies_e:make", checkpoint=None, seed=0, device="cpu", instructions=("lift",))
    assert policy.got == ("cpu", ("lift",))  # type: ignore[attr-defined]
    with pytest.raises(
        PolicyNameError, match="--language-model was given, but the factory .* has no parameter `language_model`"
    ):
        make_policy("my_policies_e:make", checkpoint=None, seed=0, language_model="x")
    with pytest.raises(
        PolicyNameError, match="--device was given, but the factory .*ZeroPolicy has no parameter `device`"
    ):
        make_policy("harness.policies.simple:ZeroPolicy", checkpoint=None, seed=0, device="cuda")
    with pytest.raises(
        PolicyNameError, match="--policy-batch was given, but the factory .*ZeroPolicy has no parameter `batch_size`"
    ):
        make_policy("harness.policies.simple:ZeroPolicy", checkpoint=None, seed=0, batch_size=2)
    with pytest.raises(
        PolicyNameError, match="--policy-batch is for policies that compute in batches; 'zero' does not"
    ):
        make_policy("zero", checkpoint=None, seed=0, batch_size=2)


def test_a_checkpoint_for_a_policy_without_one() -> None:
    with pytest.raises(PolicyNameError, match="--checkpoint is for policies that load one; the policy 'zero' does not"):
        make_policy("zero", checkpoint=Path("x"), seed=0)
    with pytest.raises(
        PolicyNameError, match="the factory harness.policies.simple:ZeroPolicy has no parameter `checkpoint`"
    ):
        make_policy("harness.policies.simple:ZeroPolicy", checkpoint=Path("x"), seed=0)
