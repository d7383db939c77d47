"""Losses and layers of domain adaptation, against known answers."""

import copy

import numpy as np
import pytest
import torch

from astro_morphvae import VAE
from astro_morphvae.networks import AdaptedVAE, _backend
from astro_morphvae.networks.adaptation import (
    MMD,
    Adversarial,
    Agreement,
    Combined,
    Coral,
    Discriminator,
    Paired,
    SurveyCorrection,
    bandwidths_of,
    coral_distance,
    feature_transport,
    gaussian_transport,
    get_method,
    mmd_squared,
    paired_regression,
    paired_transport,
    reverse_gradient,
    squared_distances,
)


def normal(n, d, seed, scale=1.0, shift=0.0):
    return torch.tensor(np.random.default_rng(seed).normal(shift, scale, (n, d)))


def agreement(x, y, paired=None, **kwargs):
    paired = torch.ones(len(x), dtype=torch.bool) if paired is None else torch.tensor(paired)
    return Agreement(x, y, paired, **kwargs)


def analytic_mmd(shift, bandwidth, d, scale=1.0):
    """Of two Gaussians under exp(-distance² / bandwidth): Gaussian integrals."""

    def mean_kernel(variance, distance2):
        width = 1.0 + 2.0 * variance / bandwidth
        return width ** (-d / 2) * np.exp(-distance2 / (bandwidth + 2.0 * variance))

    return (
        mean_kernel(2.0, 0.0)
        + mean_kernel(2.0 * scale**2, 0.0)
        - 2.0 * mean_kernel(1.0 + scale**2, d * shift**2)
    )


class TestMMD:
    @pytest.mark.parametrize("estimator", ["unbiased", "biased"])
    @pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 1.6)])
    def test_of_gaussians(self, estimator, shift, scale):
        x, y = normal(3000, 3, 1), normal(3000, 3, 2, scale, shift)
        value = mmd_squared(x, y, bandwidths=[4.0], estimator=estimator)
        assert float(value) == pytest.approx(analytic_mmd(shift, 4.0, 3, scale), rel=0.15)

    def test_unbiased_is_zero_on_average_and_the_biased_is_not(self):
        samples = [(normal(20, 4, 2 * i), normal(20, 4, 2 * i + 1)) for i in range(300)]
        for estimator, is_zero in (("unbiased", True), ("biased", False)):
            values = [
                float(mmd_squared(*s, bandwidths=[8.0], estimator=estimator)) for s in samples
            ]
            error = np.std(values) / np.sqrt(len(values))
            assert bool(abs(np.mean(values)) < 4 * error) is is_zero

    def test_linear_agrees_with_the_full_estimate_on_average(self):
        x, y = normal(40000, 2, 1), normal(40000, 2, 2, shift=1.0)
        value = mmd_squared(x, y, bandwidths=[4.0], estimator="linear")
        assert float(value) == pytest.approx(analytic_mmd(1.0, 4.0, 2), abs=0.02)

    def test_bandwidths_are_the_mean_squared_distance_times_factors(self):
        x, y = normal(5, 3, 1), normal(7, 3, 2)
        both = torch.cat([x, y])
        mean = float(squared_distances(both, both).sum()) / (12 * 11)
        np.testing.assert_allclose(bandwidths_of(x, y, (0.5, 2.0)), [0.5 * mean, 2.0 * mean])

    def test_a_biased_estimate_by_hand(self):
        x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
        distance = (torch.cat([x, y]) - torch.cat([x, y]).T) ** 2
        bandwidth = float(distance.sum()) / 12
        expected = 0.0
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            kernel = np.exp(-distance.numpy() / (bandwidth * factor))
            expected += kernel[:2, :2].mean() + kernel[2:, 2:].mean() - 2 * kernel[:2, 2:].mean()
        loss = MMD(estimator="biased").loss(agreement(x, y))
        assert float(loss) == pytest.approx(expected, rel=1e-5)

    def test_refuses(self):
        with pytest.raises(ValueError, match="estimator must be one of"):
            MMD(estimator="best")
        with pytest.raises(ValueError, match="factors must be positive"):
            MMD(factors=(1.0, 0.0))
        with pytest.raises(ValueError, match="two rows"):
            mmd_squared(normal(1, 2, 0), normal(5, 2, 0))


class TestCoral:
    def test_of_known_covariances(self):
        x = normal(200000, 2, 1)
        y = normal(200000, 2, 2) @ torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
        assert float(coral_distance(x, y)) == pytest.approx(9.0 / 16.0, rel=0.03)

    def test_sees_the_mean_too(self):
        x = normal(100, 3, 1)
        assert float(Coral().loss(agreement(x, x))) == pytest.approx(0.0, abs=1e-10)
        assert float(Coral().loss(agreement(x, x + 2.0))) == pytest.approx(4.0, rel=1e-5)
        assert float(Coral(mean_weight=0.0).loss(agreement(x, x + 2.0))) < 1e-10


class TestAdversarial:
    def test_gradient_is_reversed(self):
        x = torch.ones(3, requires_grad=True)
        y = reverse_gradient(x, 0.5)
        np.testing.assert_array_equal(y.detach(), x.detach())
        (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        np.testing.assert_allclose(x.grad, [-0.5, -1.0, -1.5])

    def test_strength_rises_from_nothing(self):
        method = Adversarial(strength=2.0, moments=0.0)
        (layer,) = method.prepare(3, 2, seed=1)
        gradients = []
        for progress in (0.0, 0.5, 1.0):
            y = normal(8, 3, 2).float().requires_grad_()
            method.loss(agreement(normal(8, 3, 1), y, progress=progress), [layer]).backward()
            gradients.append(float(y.grad.norm()))
        assert gradients[0] == 0.0
        assert 0 < gradients[1] < gradients[2]

    def test_discriminator_finds_a_difference_of_the_scatter(self):
        x, y = normal(256, 4, 1).float(), normal(256, 4, 2, 2.0).float()
        layer = Discriminator(4, 2, seed=3)
        optimiser = torch.optim.Adam([w.value for w in layer.trainable_weights], lr=1e-2)
        survey = torch.repeat_interleave(torch.tensor([0, 1]), 256)
        for _ in range(60):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(torch.cat([x, y])), survey)
            loss.backward()
            optimiser.step()
        assert float(loss.detach()) < 0.35

    def test_round_trip(self):
        layer = Discriminator(3, 4, width=16, seed=5)
        again = Discriminator.from_config(layer.get_config())
        np.testing.assert_array_equal(
            again(normal(2, 3, 1).float()).detach().numpy(),
            layer(normal(2, 3, 1).float()).detach().numpy(),
        )


class TestPaired:
    def test_only_pairs_count(self):
        x, y = torch.zeros(4, 2), torch.ones(4, 2)
        y[2:] = 100.0
        loss = Paired().loss(agreement(x, y, [True, True, False, False]))
        assert float(loss) == pytest.approx(1.0)
        assert float(Paired().loss(agreement(x, y, [False] * 4))) == 0.0

    def test_cross_reconstruction_is_added(self):
        x = torch.zeros(2, 2)
        method = Paired(cross_reconstruction=0.5)
        loss = method.loss(agreement(x, x, cross=lambda: torch.tensor(3.0)))
        assert float(loss) == pytest.approx(1.5)
        assert method.crosses
        assert not Paired().crosses


class TestCombined:
    def test_is_the_weighted_sum(self):
        x, y = normal(30, 3, 1), normal(30, 3, 2, 1.5)
        adversary = Adversarial()
        method = Combined(((2.0, Paired()), (1.0, adversary), (0.5, MMD())))
        layers = method.prepare(3, 2, seed=1)
        assert len(layers) == method.n_layers == 1
        pair = agreement(x, y)
        expected = 2 * Paired().loss(pair) + adversary.loss(pair, layers) + 0.5 * MMD().loss(pair)
        assert method.loss(pair, layers).item() == pytest.approx(expected.item())

    @pytest.mark.parametrize("parts", [(), ((0.0, MMD()),), ((1.0, "mmd"),)])
    def test_refuses(self, parts):
        with pytest.raises(ValueError, match="parts must"):
            Combined(parts)

    def test_methods_by_name(self):
        assert get_method("coral") == Coral()
        assert get_method(MMD(estimator="linear")).estimator == "linear"
        for wrong in ("dann", MMD, None):
            with pytest.raises(ValueError, match="method must be"):
                get_method(wrong)


class TestTransport:
    def mixed(self):
        x = normal(4000, 4, 1) @ normal(4, 4, 7)
        y = x @ normal(4, 4, 8) + 0.05 * normal(4000, 4, 3) + 2.0
        return x, y

    def test_gives_the_moments_of_the_source(self):
        x, y = self.mixed()
        for matrix, offset in (
            gaussian_transport(x, y, ridge=1e-6),
            paired_transport(x, y, n_directions=4),
        ):
            mapped = y @ matrix + offset
            np.testing.assert_allclose(mapped.mean(dim=0), x.mean(dim=0), atol=1e-6)
            np.testing.assert_allclose(torch.cov(mapped.T), torch.cov(x.T), atol=3e-2)

    def test_optimal_transport_of_a_scaling_is_that_scaling(self):
        x = normal(500, 3, 1)
        matrix, offset = gaussian_transport(x, 2.0 * x + 1.0, ridge=0.0)
        np.testing.assert_allclose(matrix, 0.5 * np.eye(3), atol=1e-5)
        np.testing.assert_allclose(offset, -0.5 * np.ones(3), atol=1e-4)

    def test_pairs_undo_a_mixing(self):
        x, y = self.mixed()
        matrix, offset = paired_transport(x, y, n_directions=4)
        error = (y @ matrix + offset - x).square().mean() / x.var()
        assert float(error) < 0.02
        unpaired, offset = gaussian_transport(x, y, ridge=1e-6)
        assert (y @ unpaired + offset - x).square().mean() / x.var() > 10 * error

    def test_regression_shrinks_what_cannot_be_known_and_transport_gives_the_scatter_back(self):
        x = normal(5000, 2, 1)
        y = x + normal(5000, 2, 2)
        matrix, _ = paired_regression(x, y)
        np.testing.assert_allclose(matrix, 0.5 * np.eye(2), atol=0.05)
        matrix, _ = paired_transport(x, y, n_directions=2)
        np.testing.assert_allclose(matrix, 0.5**0.5 * np.eye(2), atol=0.05)

    def test_other_directions_stay_denoised(self):
        x = normal(5000, 2, 1) * torch.tensor([3.0, 1.0])
        y = x + normal(5000, 2, 2)
        matrix, _ = paired_transport(x, y, n_directions=1, ridges=(0.0,))
        np.testing.assert_allclose(matrix, np.diag([0.9**0.5, 0.5]), atol=0.05)

    def test_the_ridge_is_the_one_that_predicts_other_objects_best(self):
        ridges = (0.01, 0.3, 10.0, 300.0)
        for noise in (0.1, 30.0):
            x, unseen = normal(80, 40, 1), normal(2000, 40, 2)
            y, unseen_y = x + noise * normal(80, 40, 3), unseen + noise * normal(2000, 40, 4)

            def error(ridges, fitted=(x, y), others=(unseen, unseen_y)):
                matrix, offset = paired_regression(*fitted, ridges=ridges)
                return float((others[1] @ matrix + offset - others[0]).square().mean())

            assert error(ridges) < 1.05 * min(error((ridge,)) for ridge in ridges)

    def test_of_features_is_that_in_few_dimensions(self):
        x, y = self.mixed()
        matrix, offset = feature_transport(x, y, ridge=1e-6)
        expected = gaussian_transport(x, y, ridge=1e-6)
        np.testing.assert_allclose(matrix, expected[0], atol=1e-3)
        np.testing.assert_allclose(offset, expected[1], atol=1e-3)

    def test_of_features_asks_little_of_few_rows(self):
        x, y, unseen = normal(60, 40, 1), normal(60, 40, 2), normal(60, 40, 3)
        moved = []
        for transport in (gaussian_transport, feature_transport):
            matrix, offset = transport(x, 2.0 * y + 1.0, ridge=1e-6)
            moved.append(float(((2.0 * unseen + 1.0) @ matrix + offset - unseen).square().mean()))
        assert moved[1] < 0.7 * moved[0]


class TestCorrection:
    def test_starts_as_the_identity_and_can_start_elsewhere(self):
        layer = SurveyCorrection(6, 2, seed=1)
        x = normal(5, 6, 1).float()
        np.testing.assert_allclose(layer(x, survey=1).detach(), x, atol=1e-3)
        layer.start_from(0, 2.0 * torch.eye(6), torch.ones(6))
        np.testing.assert_allclose(layer(x, survey=0).detach(), 2 * x + 1, atol=1e-3)
        np.testing.assert_allclose(layer(x, survey=1).detach(), x, atol=1e-3)

    def test_conditions_tell_surveys_apart(self):
        rows = [[0.1, 0.2], [0.3, 0.4]]
        layer = SurveyCorrection(6, 2, conditions=rows, embedding_dim=2, seed=1)
        again = SurveyCorrection.from_config(layer.get_config())
        assert again.conditions == rows
        assert layer.film.kernel.shape[-1] == 4 or layer.film.kernel.shape[0] == 4
        with pytest.raises(ValueError, match="conditions must be 3 rows"):
            SurveyCorrection(6, 3, conditions=rows)


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(1).random((6, 2, 32, 32), dtype=np.float32))


class TestAdaptedVAE:
    def network(self, images, architecture="default", **kwargs):
        network = VAE(4, architecture=architecture, image_size=32, n_bands=2, seed=3)
        network.adapt([images])
        return network, AdaptedVAE.from_network(network, ("A", "B", "C"), **kwargs)

    @pytest.mark.parametrize("branches", ["conditioned", "separate"])
    @pytest.mark.parametrize("architecture", ["default", "residual"])
    def test_all_surveys_start_as_the_source(self, images, architecture, branches):
        network, adapted = self.network(images, architecture, branches=branches)
        before = network.encode(images)[0].detach()
        np.testing.assert_array_equal(adapted.encode(images)[0].detach(), before)
        for survey in ("B", "C"):
            after = adapted.encode(images, survey)[0].detach()
            np.testing.assert_allclose(after, before, atol=5e-3)
            np.testing.assert_allclose(
                adapted.for_survey(survey)(images).detach(), network(images).detach(), atol=2e-3
            )

    @pytest.mark.parametrize("branches", ["conditioned", "separate"])
    def test_file_and_copy_keep_every_branch(self, images, branches, tmp_path):
        _, adapted = self.network(images, branches=branches)
        for weight in adapted.trainable_weights:
            weight.assign(weight.value + 0.01)
        adapted.save(tmp_path / "model.keras")
        read = _backend.keras.saving.load_model(tmp_path / "model.keras")
        assert read.get_config() == adapted.get_config()
        for other in (read, copy.deepcopy(adapted)):
            for survey in ("A", "B", "C"):
                np.testing.assert_array_equal(
                    other.encode(images, survey)[0].detach(),
                    adapted.encode(images, survey)[0].detach(),
                )

    def test_surveys_have_names(self, images):
        _, adapted = self.network(images)
        with pytest.raises(ValueError, match=r"survey must be one of .*, got 'D'"):
            adapted.encode(images, "D")
        with pytest.raises(ValueError, match="different names"):
            AdaptedVAE(4, surveys=("A", "A"), image_size=32)
        with pytest.raises(ValueError, match="branches must be one of"):
            AdaptedVAE(4, branches="both", image_size=32)
