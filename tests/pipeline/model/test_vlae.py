"""The ladder: shapes, the published size, and layers that do what their configuration says."""

import pytest
import torch
from torch import nn

from pipeline.config.schema import ConfigError, ModelConfig
from pipeline.model.blocks import parse_stages
from pipeline.model.latents import layer_effects, manifold_codes
from pipeline.model.vlae import VLAE, LastUp

SMALL = ModelConfig(layers=("8/2", "16/2, 16", "fc32"), latents=(2, 3, 4))


def build(config: ModelConfig = SMALL, shape: tuple[int, int, int] = (3, 16, 16)) -> VLAE:
    torch.manual_seed(0)
    return VLAE(config, shape).eval()


def test_shapes_and_ranges():
    vlae = build()
    posteriors = vlae.encode(torch.rand(5, 3, 16, 16) * 2 - 1)
    assert [tuple(q.mean.shape) for q in posteriors] == [(5, 2), (5, 3), (5, 4)]
    assert all((q.std > 0).all() and q.std.dtype == torch.float32 for q in posteriors)
    images = vlae.decode([q.mean for q in posteriors])
    assert images.shape == (5, 3, 16, 16)
    assert images.abs().max() <= 1


def test_published_network_has_the_published_size():
    config = ModelConfig(kernel_size=4, norm="batch")
    parameters = sum(p.numel() for p in VLAE(config, (3, 64, 64)).parameters())
    assert parameters == pytest.approx(51.7e6, rel=0.01)


@pytest.mark.parametrize("initial_std", [0.05, 0.5])
def test_posteriors_start_at_the_configured_deviation(initial_std):
    vlae = build(SMALL.model_copy(update={"initial_std": initial_std}))
    for posterior in vlae.encode(torch.randn(64, 3, 16, 16)):
        assert float(posterior.std.detach().median()) == pytest.approx(initial_std, rel=0.3)


@pytest.mark.parametrize("latent_injection", ["concat", "gated"])
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("separate_inference_branches", [True, False])
def test_every_variant_trains_every_parameter(latent_injection, norm, separate_inference_branches):
    config = SMALL.model_copy(
        update={
            "latent_injection": latent_injection,
            "norm": norm,
            "separate_inference_branches": separate_inference_branches,
        }
    )
    vlae = build(config).train()
    posteriors = vlae.encode(torch.randn(4, 3, 16, 16))
    latents = [q.sample(torch.randn_like(q.mean)) for q in posteriors]
    vlae.decode(latents).square().mean().backward()
    assert all(p.grad is not None for p in vlae.parameters())


def test_faded_layer_has_no_effect_and_coarse_grid_is_smooth():
    vlae = build()
    codes, other = [[torch.randn(6, d) for d in SMALL.latents] for _ in range(2)]
    changed = [other[0], *codes[1:]]
    assert torch.equal(vlae.decode(codes, [0, 1, 1]), vlae.decode(changed, [0, 1, 1]))
    assert not torch.equal(vlae.decode(codes), vlae.decode(changed))
    flat = build(SMALL.model_copy(update={"contribution_grid": (1, 0, 0)})).decoder.contributions[0](codes[0])
    assert flat.shape == (6, 8, 8, 8)
    assert torch.allclose(flat, flat[:, :, :1, :1].expand_as(flat), atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_up_equals_a_transposed_convolution(bias):
    torch.manual_seed(0)
    ours = LastUp(8, 3, 4, 2, 1, bias=bias)
    plain = nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=bias)
    plain.load_state_dict(ours.state_dict())
    features = torch.randn(2, 8, 6, 10)
    weights = torch.randn(2, 3, 12, 20)
    gradients = []
    for layer in (ours, plain):
        given = features.clone().requires_grad_()
        output = layer(given)
        (output * weights).sum().backward()
        gradients.append([output, given.grad, *(p.grad for p in layer.parameters())])
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_of_the_last_up_has_the_strides_of_the_weight(channels):
    layer = LastUp(8, channels, 4, 2, 1).to(memory_format=torch.channels_last)  # as in training; DDP warns of others
    layer(torch.randn(2, 8, 3, 3)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_effects_are_zero_for_an_ignored_layer():
    vlae = build()
    with torch.no_grad():
        vlae.decoder.contributions[1][0].weight.zero_()
    codes, drawn = [[torch.randn(8, d) for d in SMALL.latents] for _ in range(2)]
    effects = layer_effects(vlae, codes, drawn)
    assert effects[1] == 0
    assert effects[0] > 0 and effects[2] > 0


def test_an_image_does_not_depend_on_its_batch():
    vlae = build().train()  # GroupNorm: the same in training
    images = torch.randn(6, 3, 16, 16)
    alone = vlae.encode(images[:1])[2].mean
    assert torch.allclose(alone, vlae.encode(images)[2].mean[:1], atol=1e-5)


def test_manifold_varies_one_layer_over_the_papers_range():
    codes = manifold_codes(0, (2, 3), 5, seed=1)
    assert codes[0].shape == (25, 2) and codes[1].shape == (25, 3)
    assert codes[0].min() == -3 and codes[0].max() == 3
    assert torch.equal(codes[0][0], torch.tensor([-3.0, 3.0]))  # top left: x low, y high
    assert torch.equal(codes[1], codes[1][:1].expand_as(codes[1]))
    random = manifold_codes(1, (2, 3), 20, seed=1)[1]
    assert random.abs().max() <= 3 and random.std() == pytest.approx(3**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("8/3",), "is not a width"),
        (("fc8", "8/2"), "cannot follow"),
        (("8/2, 8/2, 8/2, 8/2, 8/2",), "which is odd"),
        (("",), "is empty"),
    ],
)
def test_impossible_layers_are_named(stages, message):
    with pytest.raises(ConfigError, match=message):
        parse_stages(stages, (3, 16, 16))
