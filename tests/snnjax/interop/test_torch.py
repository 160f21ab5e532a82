"""Recorder, on objects that have the hooks and tensors of torch but are not."""

import numpy as np
import pytest

from snnjax import firing
from snnjax.interop.torch import is_neuron, record


class Tensor:
    def __init__(self, array):
        self.array = np.asarray(array)

    def detach(self):
        return self

    cpu = float = detach

    def numpy(self):
        return self.array


class Handle:
    def __init__(self, hooks, hook):
        self.hooks, self.hook = hooks, hook

    def remove(self):
        self.hooks.remove(self.hook)


class Module:
    def __init__(self, **children):
        self.children, self.hooks = children, []

    def named_modules(self, prefix=""):
        yield prefix, self
        for name, child in self.children.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def register_forward_hook(self, hook):
        self.hooks.append(hook)
        return Handle(self.hooks, hook)

    def __call__(self, x):
        found = self.forward(x)
        for hook in list(self.hooks):
            hook(self, (x,), found)
        return found

    def forward(self, x):
        for child in self.children.values():
            x = child(x)
        return x


class BaseNode(Module):
    __module__ = "spikingjelly.activation_based.neuron"


class LIFNode(BaseNode):
    def __init__(self, step_mode):
        super().__init__()
        self.step_mode = step_mode

    def forward(self, x):
        return Tensor(np.float32(x.array > 0.5))


class SpikingNeuron(Module):
    __module__ = "snntorch._neurons.neurons"

    def forward(self, x):
        return Tensor(np.float32(x.array > 0.5)), Tensor(x.array)


class InnerLoop(Module):
    def forward(self, x):
        return [self.children["lif"](Tensor(step)) for step in x.array]


class Half(Module):
    def forward(self, x):
        return Tensor(x.array / 2)


def inputs(batches=3, steps=4, size=5, shape=(2, 3, 3)):
    rng = np.random.default_rng(0)
    return rng.random((batches, steps, size, *shape))


def check(counts, x, groups):
    fired = np.moveaxis(np.concatenate(list(x), 1) > 0.5, 2, -1)  # [T, images, H, W, C]
    group = np.arange(fired.shape[1]) % groups
    (name,) = counts.spikes
    np.testing.assert_array_equal(counts.spikes[name], fired.sum((0, 1)))
    for g in range(min(groups, fired.shape[1])):
        np.testing.assert_array_equal(
            counts.groups[name][g], fired[:, group == g].sum((0, 1))
        )
        assert counts.group_observations[g] == fired.shape[0] * np.sum(group == g)
    assert counts.observations == fired.shape[0] * fired.shape[1]


@pytest.mark.parametrize("groups", [4, 32])
def test_multi_step(groups):
    net, x = Module(lif=LIFNode("m")), inputs()
    with record(net, groups=groups, inputs_id="a") as found:
        for batch in x:
            net(Tensor(batch))
    check(found.counts, x, groups)
    assert found.counts.inputs_id == "a"
    assert not net.hooks
    assert not net.children["lif"].hooks


def test_loop_over_time_inside():
    net, x = InnerLoop(lif=SpikingNeuron()), inputs()
    with record(net, groups=4) as found:
        for batch in x:
            net(Tensor(batch))
    check(found.counts, x, 4)


def test_loop_over_time_outside():
    net, x = Module(lif=LIFNode("s")), inputs()
    with record(net, groups=4, timesteps=4) as found:
        for batch in x:
            for step in batch:
                net(Tensor(step))
    check(found.counts, x, 4)
    with record(net) as found, pytest.raises(ValueError, match="timesteps"):
        net(Tensor(x[0, 0]))


def test_an_incomplete_batch_is_an_error():
    net, x = Module(lif=LIFNode("s")), inputs()
    with record(net, timesteps=4) as found:
        net(Tensor(x[0, 0]))
    with pytest.raises(ValueError, match="timesteps=4"):
        found.counts  # noqa: B018
    with record(net) as found:
        pass
    with pytest.raises(ValueError, match="nothing"):
        found.counts  # noqa: B018


def test_named_layers():
    net, x = Module(a=Module(spikes=LIFNode("m")), half=Half()), inputs()
    with record(net, ["a"], groups=4) as found:
        for batch in x:
            net(Tensor(batch))
    check(found.counts, x, 4)
    with record(net, ["half"]), pytest.raises(ValueError, match="half"):
        net(Tensor(x[0]))
    # Where it is called for each step, and nobody said so.
    flat = Module(a=Module(spikes=LIFNode("m")))
    with record(flat, ["a"]), pytest.raises(ValueError, match="timesteps=T"):
        flat(Tensor(x[0][..., 0, 0, 0]))
    with pytest.raises(ValueError, match="layers"), record(net, ["b"]):
        pass
    with pytest.raises(ValueError, match="layers"), record(Module(half=Half())):
        pass


def test_a_recording_is_saved(tmp_path):
    net, x = Module(lif=LIFNode("m")), inputs()
    with record(net) as found:
        net(Tensor(x[0]))
    found.save(tmp_path / "a.npz")
    assert firing.load_counts(tmp_path / "a.npz") == found.counts


def test_leaky_integrators_are_no_neurons():
    def make(name):
        base = type("SNN", (Module,), {"__module__": "norse.torch.module.snn"})
        return type(name, (base,), {"__module__": "norse.torch.module.x"})()

    assert is_neuron(make("LIFCell"))
    assert is_neuron(make("IAF"))
    assert not is_neuron(make("LICell"))


@pytest.mark.slow
def test_torch_itself():
    torch = pytest.importorskip("torch")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    net = torch.nn.Sequential(neuron.IFNode(step_mode="m"))
    x = inputs()
    with record(net, groups=4) as found:
        for batch in x:
            net[0].reset()
            net(torch.tensor(np.float32(batch > 0.5) * 2))
    check(found.counts, x, 4)
