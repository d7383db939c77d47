"""`DomainAdaptationFitter`: it brings surveys together, keeps the source, and does not collapse."""

import copy

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import InverseVariance
from scipy.ndimage import gaussian_filter

from astro_morphvae import VAE, CutoutSet, LatentModel, VAEFitter
from astro_morphvae.exceptions import CutoutMismatchError, FitDivergedError
from astro_morphvae.fitting import AdaptationCollapseWarning, DomainAdaptationFitter
from astro_morphvae.fitting._adaptation_data import describe_surveys, plan_epoch
from astro_morphvae.fitting._adaptation_watch import (
    Floors,
    domain_auc,
    pair_distance,
    score_latents,
    score_noise,
)
from astro_morphvae.fitting.checkpoint import read_checkpoint
from astro_morphvae.networks.adaptation import MMD, Combined, Paired, mmd_squared

N, SIZE, N_BANDS = 120, 16, 2
NOISE = {"A": 0.01, "B": 0.03}
BLUR = {"A": 0.5, "B": 1.4}


def galaxies(n, seed=0):
    """Elliptical blobs of many sizes and flattenings, without noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    images = []
    for _ in range(n):
        angle, ratio = generator.uniform(0, np.pi), generator.uniform(0.3, 1.0)
        radius, colour = generator.uniform(1.0, 3.0), generator.uniform(0.5, 1.5)
        along = np.cos(angle) * x + np.sin(angle) * y
        across = (np.cos(angle) * y - np.sin(angle) * x) / ratio
        profile = np.exp(-np.hypot(along, across) / radius)
        images.append([profile, colour * profile])
    return np.array(images)


def observe(images, survey, seed=0, *, ivar=True, **kwargs):
    generator = np.random.default_rng([seed, ord(survey)])
    data = gaussian_filter(images, (0, 0, BLUR[survey], BLUR[survey]))
    data = data + generator.normal(0, NOISE[survey], data.shape)
    uncertainty = InverseVariance(np.full(data.shape, NOISE[survey] ** -2)) if ivar else None
    options = {"meta": {"survey": survey}, "pixel_scale": 0.5 * u.arcsec} | kwargs
    return CutoutSet(
        data.astype(np.float32), unit=u.nmgy, bands="gr", uncertainty=uncertainty, **options
    )


def fitter(**kwargs):
    options = {
        "epochs": 2,
        "batch_size": 32,
        "seed": 3,
        "progress": False,
        "validation_fraction": 0.25,
    }
    return DomainAdaptationFitter(**options | kwargs)


@pytest.fixture(scope="module")
def surveys():
    images = galaxies(N)
    return observe(images, "A"), observe(images, "B")


@pytest.fixture(scope="module")
def model(surveys):
    network = VAE(4, image_size=SIZE, n_bands=N_BANDS, seed=1)
    fit = VAEFitter(epochs=3, batch_size=32, learning_rate=2e-3, seed=1, progress=False)
    return fit(LatentModel(network), surveys[0])


@pytest.fixture(scope="module")
def convolutional(surveys):
    network = VAE(4, architecture="residual", image_size=SIZE, n_bands=N_BANDS, seed=1)
    fit = VAEFitter(epochs=1, batch_size=32, learning_rate=2e-3, seed=1, progress=False)
    return fit(LatentModel(network), surveys[0])


@pytest.fixture(scope="module")
def adapted(model, surveys):
    return fitter()(model, surveys[0], target=surveys[1])


@pytest.fixture(scope="module")
def others():
    """Galaxies that no fit has seen, as both surveys see them."""
    images = galaxies(150, seed=9)
    return observe(images, "A", 9), observe(images, "B", 9)


def latents(model, cutouts, **kwargs):
    return np.asarray(model.encode(cutouts, **kwargs)["z_mean"])


class TestAdaptation:
    def test_brings_unseen_galaxies_together(self, model, adapted, others):
        source, target = others
        z = latents(model, source)
        before = domain_auc(z, latents(model, target))
        after = domain_auc(z, latents(adapted, target))
        assert before > 0.9
        assert after < before - 0.2

    def test_is_better_with_pairs(self, model, adapted, surveys, others):
        paired = fitter(method="paired", epochs=5)
        paired = paired(model, surveys[0], target=surveys[1], pairs="rows")
        source, target = others
        z = latents(model, source)
        before, unpaired, after = (
            pair_distance(z, latents(each, target)) for each in (model, adapted, paired)
        )
        assert after < unpaired
        assert after < 0.7 * before

    def test_leaves_model_source_and_cutouts_alone(self, model, adapted, surveys, others):
        before = model.hash
        data = [survey.data.copy() for survey in surveys]
        again = fitter()(model, surveys[0], target=surveys[1])
        assert model.hash == before
        assert again.hash == adapted.hash != before
        for survey, kept in zip(surveys, data, strict=True):
            np.testing.assert_array_equal(survey.data, kept)
        np.testing.assert_array_equal(latents(adapted, others[0]), latents(model, others[0]))
        np.testing.assert_array_equal(
            adapted.reconstruct(others[0]).data, model.reconstruct(others[0]).data
        )

    def test_in_place(self, model, adapted, surveys):
        own = copy.deepcopy(model)
        assert fitter()(own, surveys[0], target=surveys[1], inplace=True) is own
        assert own.hash == adapted.hash

    def test_the_file_holds_all(self, adapted, others, tmp_path):
        adapted.write(tmp_path / "model.keras")
        read = LatentModel.read(tmp_path / "model.keras")
        assert read.hash == adapted.hash
        assert read.fit_info["surveys"] == ["A", "B"]
        for cutouts in others:
            np.testing.assert_array_equal(latents(read, cutouts), latents(adapted, cutouts))

    def test_fit_info(self, adapted):
        info = adapted.fit_info
        assert (info["epochs_run"], info["stopped"], info["collapse"]) == (2, "completed", None)
        assert info["n_train"] == [90, 90]
        assert info["n_pairs"] == [0]
        assert info["before"]["latent_variance"] <= 1.0
        assert info["before"]["reconstruction_kept"] == 1.0
        for name in ("loss", "alignment", "auc", "mmd", "score", "latent_variance"):
            assert np.isfinite(info["history"][name]).all()
            assert len(info["history"][name]) == 2
        assert info["settings"]["method"].startswith("MMD(")

    @pytest.mark.parametrize("encoder", ["frozen-source", "shared"])
    @pytest.mark.parametrize("method", ["coral", "adversarial"])
    def test_every_encoder_and_method(self, model, surveys, encoder, method):
        result = fitter(method=method, encoder=encoder, epochs=1)(
            model, surveys[0], target=surveys[1]
        )
        assert result.fit_info["epochs_run"] == 1
        kept = np.array_equal(latents(result, surveys[0]), latents(model, surveys[0]))
        assert kept is (encoder == "frozen-source")
        assert type(result.network) is VAE or result.network.surveys == ("A", "B")

    @pytest.mark.parametrize("encoder", ["conditioned", "frozen-source", "shared"])
    def test_every_encoder_of_a_convolutional_network(self, convolutional, surveys, encoder):
        method = Combined(((1.0, Paired(cross_reconstruction=0.1)), (1.0, MMD())))
        result = fitter(method=method, encoder=encoder, epochs=1, keep_best=False)(
            convolutional, surveys[0], target=surveys[1], pairs="id"
        )
        assert result.hash != convolutional.hash
        assert np.isfinite(latents(result, surveys[1])).all()

    def test_more_than_two_surveys(self, model, surveys):
        third = observe(galaxies(40, seed=5), "B", 5, meta={"survey": "C"})
        result = fitter(epochs=1, method="adversarial")(
            model, surveys[0], target=[surveys[1], third], pairs={"B": "rows"}
        )
        assert result.network.surveys == ("A", "B", "C")
        assert result.fit_info["n_pairs"] == [N, 0]
        assert not np.array_equal(
            latents(result, third, survey="B"), latents(result, third, survey="C")
        )

    def test_conditions(self, model, surveys):
        seeing = (1.2, 3.3) * u.arcsec
        target = observe(galaxies(N), "B", psf_fwhm=2 * seeing)
        source = observe(galaxies(N), "A", psf_fwhm=seeing)
        result = fitter(epochs=1, conditions=("noise", "psf_fwhm"))(model, source, target=target)
        (row,) = result.network.correction.conditions
        np.testing.assert_allclose(row, np.log([3.0, 3.0, 2.0, 2.0]), rtol=1e-5)
        with pytest.raises(ValueError, match="conditions hold 'psf_fwhm'"):
            fitter(conditions=("psf_fwhm",))(model, surveys[0], target=surveys[1])

    def test_without_inverse_variance_and_with_bad_rows(self, model, surveys):
        target = observe(galaxies(N), "B", ivar=False)
        data = target.data.copy()
        data[3] = np.nan
        target = CutoutSet(data, unit=u.nmgy, bands="gr", meta={"survey": "B"})
        result = fitter(epochs=1)(model, surveys[0], target=target, pairs="rows")
        assert result.fit_info["n_pairs"] == [N - 1]
        z = latents(result, target)
        assert np.isnan(z[3]).all()
        assert np.isfinite(np.delete(z, 3, axis=0)).all()


class TestRecipe:
    """The published recipe, against a plain computation of its loss."""

    def test_is_that_of_the_reference(self):
        recipe = DomainAdaptationFitter.xu2023()
        assert recipe.method == MMD(factors=(0.25, 0.5, 1.0, 2.0, 4.0), estimator="biased")
        assert (recipe.encoder, recipe.epochs, recipe.batch_size) == ("frozen-source", 20, 128)
        assert (recipe.learning_rate, recipe.weight, recipe.elbo_weight) == (1e-5, 10.0, 0.5)
        assert (recipe.schedule, recipe.clip_norm, recipe.augment) == ("constant", None, None)

    def test_one_step(self):
        size = 64
        generator = np.random.default_rng(0)
        data = generator.random((2, 8, 1, size, size), dtype=np.float32)
        source, target = (
            CutoutSet(part, unit=u.nmgy, bands="r", meta={"survey": name})
            for part, name in zip(data, "AB", strict=True)
        )
        network = VAE(
            3, architecture="xu2023", image_size=size, n_bands=1, stretch=None, noise=0.5**0.5
        )
        fit = DomainAdaptationFitter.xu2023(epochs=1, learning_rate=1e-3, progress=False, seed=4)
        result = fit(LatentModel(network), source, target=target)

        reference = copy.deepcopy(network)
        weights = [weight.value for weight in reference.trainable_weights]
        optimiser = torch.optim.Adam(weights, lr=1e-3)
        split = describe_surveys(
            LatentModel(network), source, target, None, validation_fraction=0.0, seed=4
        )
        from astro_morphvae.fitting.training import epoch_generators

        order, draws = epoch_generators(4, 0)
        ((_, source_rows, target_rows, _),) = plan_epoch(split, 128, order)
        x = torch.from_numpy(data[1][target_rows])
        z_source = network.encode(torch.from_numpy(data[0][source_rows]))[0].detach()
        z, log_var, _ = reference.encode(x)
        drawn = z + torch.randn((8, 3), generator=draws) * torch.exp(0.5 * log_var)
        divergence = -0.5 * (1 + log_var - z.square() - log_var.exp()).sum()
        target_loss = (reference.decode(drawn) - x).square().sum() + divergence
        n = len(x)
        both = torch.cat([z_source, z])
        distance = (both[:, None] - both[None]).square().sum(dim=2)
        bandwidth = distance.detach().sum() / (4 * n**2 - 2 * n)
        kernel = sum(torch.exp(-distance / (bandwidth * f)) for f in (0.25, 0.5, 1, 2, 4))
        mmd = (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()
        (0.5 * target_loss + 10 * n * mmd).backward()  # the source's loss is a constant
        optimiser.step()
        expected = reference.encode(x)[0].detach()
        got = result.network.encode(x, "B")[0].detach()
        assert float((expected - network.encode(x)[0]).detach().abs().max()) > 1e-3
        np.testing.assert_allclose(got, expected, atol=2e-5)
        assert fit_alignment(result) == pytest.approx(mmd.item(), rel=1e-4)


def fit_alignment(model):
    return model.fit_info["history"]["alignment"][0]


COLLAPSING = {
    "method": "paired",
    "encoder": "shared",
    "elbo_weight": 0.0,
    "learning_rate": 0.03,
    "epochs": 60,
    "reconstruction_floor": 0.0,
}


class TestGuard:
    """Settings that shrink all latents to a point, seen and stopped."""

    def test_warns_and_gives_the_last_good_weights(self, model, surveys):
        with pytest.warns(AdaptationCollapseWarning, match="latent_variance fell to"):
            result = fitter(**COLLAPSING)(model, surveys[0], target=surveys[1], pairs="rows")
        info = result.fit_info
        assert info["stopped"] == "collapsed"
        assert "latent_variance" in info["collapse"]
        assert info["epochs_run"] < 60
        assert info["history"]["latent_variance"][-1] < 0.5
        before = latents(model, surveys[0]).var(axis=0).sum()
        assert latents(result, surveys[0]).var(axis=0).sum() > 0.4 * before

    def test_may_raise(self, model, surveys):
        with pytest.raises(FitDivergedError, match="collapsing") as caught:
            fitter(**COLLAPSING, on_collapse="raise")(
                model, surveys[0], target=surveys[1], pairs="rows"
            )
        assert caught.value.model.fit_info["stopped"] == "collapsed"

    def test_reconstruction_has_a_floor_too(self, model, surveys):
        # Latents are pulled about, and the decoder is not let to follow.
        floors = {"method": "mmd", "reconstruction_floor": 1.0, "variance_floor": 0.0}
        with pytest.warns(AdaptationCollapseWarning, match="reconstruction_kept fell to"):
            fitter(**COLLAPSING | floors)(model, surveys[0], target=surveys[1])

    @pytest.mark.parametrize("elbo_weight", [0.0, 1.0])
    def test_lets_a_start_be_that_the_decoder_does_not_know(self, model, surveys, elbo_weight):
        # Surveys so unlike that latents which agree are drawn as the wrong one.
        source, target = surveys
        faint = CutoutSet(
            0.1 * target.data,
            unit=target.unit,
            bands=target.bands,
            pixel_scale=target.pixel_scale,
            uncertainty=InverseVariance(100 * target.ivar),
            meta={"survey": "B"},
        )
        result = fitter(method="mmd", elbo_weight=elbo_weight)(model, source, target=faint)
        info = result.fit_info
        assert info["before"]["auc"] > 0.95
        assert info["start"]["auc"] < 0.6
        assert info["start"]["reconstruction_kept"] < 0.5
        assert info["collapse"] is None
        assert info["after"]["auc"] < 0.7

    @pytest.mark.parametrize(("best", "floor"), [(0.4, 0.2), (0.8, 0.4), (1.0, 0.5), (2.0, 0.5)])
    def test_floor_of_reconstructions_follows_the_best(self, best, floor):
        floors = Floors(0.5, 0.5).relative_to(best)
        entry = {"latent_variance": 0.9, "reconstruction_kept": floor}
        assert floors.broken(entry) is None
        entry["reconstruction_kept"] = floor - 0.01
        assert f"below its floor of {floor:g}" in floors.broken(entry)
        entry["latent_variance"] = 0.49
        assert "latent_variance fell to 0.49" in floors.broken(entry)

    def test_floor_rises_as_the_decoder_learns(self, model, surveys, monkeypatch):
        from astro_morphvae.fitting import _adaptation_run

        # Before, at the start, and after each epoch: drawn badly, well, and badly again.
        kept = iter([1.0, 0.3, 0.9, 0.4, 0.9])
        measure = _adaptation_run.Watch.measure
        monkeypatch.setattr(
            _adaptation_run.Watch,
            "measure",
            lambda self: measure(self) | {"reconstruction_kept": next(kept)},
        )
        with pytest.warns(AdaptationCollapseWarning, match=r"fell to 0.4, below its floor of 0.45"):
            result = fitter(method="mmd", epochs=3)(model, surveys[0], target=surveys[1])
        assert result.fit_info["epochs_run"] == 2

    def test_a_loss_that_is_not_finite(self, model, surveys):
        with pytest.raises(FitDivergedError, match=r"non-finite|became") as caught:
            fitter(learning_rate=1e30, clip_norm=None)(model, surveys[0], target=surveys[1])
        good = caught.value.model
        assert good.fit_info["stopped"] == "diverged"
        assert np.isfinite(latents(good, surveys[1])).all()


class TestCourse:
    def test_resumes_to_the_same_weights(self, model, surveys, adapted, tmp_path, monkeypatch):
        path = tmp_path / "state"
        from astro_morphvae.fitting import _adaptation_run

        run_epoch = _adaptation_run.AdaptationRun._run_epoch

        def killed(self, bar):
            if self.epoch == 1:
                raise KeyboardInterrupt
            return run_epoch(self, bar)

        with monkeypatch.context() as patch:
            patch.setattr(_adaptation_run.AdaptationRun, "_run_epoch", killed)
            with pytest.raises(KeyboardInterrupt):
                fitter(checkpoint=path)(model, surveys[0], target=surveys[1])
        assert read_checkpoint(path)[1]["epoch"] == 1
        result = fitter(checkpoint=path)(model, surveys[0], target=surveys[1])
        assert result.hash == adapted.hash
        with pytest.raises(ValueError, match="of another fit"):
            fitter(checkpoint=path, seed=8)(model, surveys[0], target=surveys[1])

    def test_stops_early_on_the_score(self, model, surveys):
        options = {"epochs": 9, "patience": 1, "learning_rate": 0.05, "elbo_weight": 0.0}
        floors = {"variance_floor": 0.0, "reconstruction_floor": 0.0}
        result = fitter(method="coral", **options, **floors)(model, surveys[0], target=surveys[1])
        info = result.fit_info
        assert info["stopped"] == "early"
        assert info["epochs_run"] == info["best_epoch"] + 1 < 9

    @pytest.mark.parametrize(("method", "pairs"), [("mmd", None), ("paired", "rows")])
    def test_a_gain_within_the_noise_is_none(self, model, surveys, monkeypatch, method, pairs):
        source, target = surveys
        options = {"epochs": 3, "elbo_weight": 0.0, "learning_rate": 1e-5, "start": "identity"}
        kept = []
        for noise in (0.0, 10.0):
            monkeypatch.setattr(
                "astro_morphvae.fitting._adaptation_watch.score_noise",
                lambda *_, noise=noise, **__: noise,
            )
            result = fitter(method=method, **options)(model, source, target=target, pairs=pairs)
            kept.append(result.fit_info["best_epoch"])
        assert kept[0] > kept[1] == 0

    def test_seeds_differ(self, model, surveys, adapted):
        assert fitter(seed=4)(model, surveys[0], target=surveys[1]).hash != adapted.hash


class TestSurveyOfCutouts:
    def test_is_read_from_meta_or_given(self, adapted, surveys):
        table = adapted.encode(surveys[1])
        assert table.meta["survey"] == "B"
        unnamed = CutoutSet(surveys[1].data, unit=u.nmgy, bands="gr")
        np.testing.assert_array_equal(latents(adapted, unnamed, survey="B"), table["z_mean"])
        with pytest.raises(ValueError, match=r"survey must be one of \('A', 'B'\).*got None"):
            adapted.encode(unnamed)
        with pytest.raises(ValueError, match="got 'C'"):
            adapted.reconstruct(unnamed, survey="C")

    def test_is_not_for_a_model_of_one_survey(self, model, surveys):
        with pytest.raises(ValueError, match="survey is for a model adapted to several"):
            model.encode(surveys[0], survey="A")

    def test_latents_are_drawn_as_either_survey(self, adapted, surveys):
        table = adapted.encode(surveys[1])[:5]
        as_source, as_target = adapted.decode(table), adapted.decode(table, survey="B")
        assert not np.array_equal(as_source.data, as_target.data)
        np.testing.assert_allclose(
            as_target.data, adapted.reconstruct(surveys[1][:5]).data, atol=1e-5
        )


class TestInput:
    def test_cutouts_must_fit_each_other(self, model, surveys):
        source, target = surveys
        bands = CutoutSet(target.data, unit=u.nmgy, bands="gz", meta=target.meta)
        with pytest.raises(CutoutMismatchError, match=r"target 'B' have the bands \('g', 'z'\)"):
            fitter()(model, source, target=bands)
        with pytest.raises(CutoutMismatchError, match=r"target 'B' have a pixel scale of 0\.7"):
            fitter()(model, source, target=observe(galaxies(20), "B", pixel_scale=0.7 * u.arcsec))
        with pytest.raises(CutoutMismatchError, match="source have the bands"):
            fitter()(model, bands, target=target)

    def test_pairs(self, model, surveys):
        source, target = surveys
        call = fitter(method="paired")
        with pytest.raises(ValueError, match="pairs must say which rows"):
            call(model, source, target=target)
        for pairs, message in (
            ("names", "pairs must be None, 'rows', 'id' or an array"),
            (np.zeros((3, 3), int), r"shape \(n, 2\)"),
            (np.array([[0, N]]), rf"row {N} of the target"),
            ({"C": "rows"}, r"surveys \['C'\] that target does not hold"),
        ):
            with pytest.raises(ValueError, match=message):
                call(model, source, target=target, pairs=pairs)
        with pytest.raises(ValueError, match="as many rows"):
            call(model, source, target=target[:50], pairs="rows")

    def test_pairs_are_kept_aside_together(self, model, surveys):
        order = np.random.default_rng(0).permutation(N)
        pairs = np.stack([order, np.arange(N)], axis=1)[: N // 2]
        source, target = describe_surveys(
            model, surveys[0], surveys[1], pairs, validation_fraction=0.25, seed=1
        )
        np.testing.assert_array_equal(target.partner[: N // 2], order[: N // 2])
        watched = target.partner[target.watched]
        assert np.isin(watched[watched >= 0], source.watched).all()
        assert not np.isin(target.partner[target.train], source.watched).any()
        for _, source_rows, target_rows, paired in plan_epoch(
            [source, target], 16, np.random.default_rng(1)
        ):
            np.testing.assert_array_equal(target.partner[target_rows] >= 0, paired)
            np.testing.assert_array_equal(source_rows[paired], target.partner[target_rows][paired])
            assert np.isin(source_rows, source.train).all()

    def test_names_must_differ(self, model, surveys):
        with pytest.raises(ValueError, match="of different surveys"):
            fitter()(model, surveys[0], target=surveys[0])
        result = fitter(epochs=1)(model, surveys[0], target={"second": surveys[0]})
        assert result.network.surveys == ("A", "second")

    def test_model(self, model, adapted, surveys):
        source, target = surveys
        with pytest.raises(TypeError, match="model must be a LatentModel, got str"):
            fitter()("model", source, target=target)
        with pytest.raises(ValueError, match="adapted already"):
            fitter()(adapted, source, target=target)
        with pytest.raises(ValueError, match="fitted on the source first"):
            fitter()(LatentModel(VAE(4, image_size=SIZE, n_bands=2)), source, target=target)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("method", "dann"),
            ("encoder", "both"),
            ("start", "zero"),
            ("score", "accuracy"),
            ("epochs", 0),
            ("batch_size", 1),
            ("learning_rate", 0.0),
            ("weight", -1.0),
            ("patience", 0),
            ("validation_fraction", 1.0),
            ("variance_floor", 2.0),
            ("conditions", ("seeing",)),
            ("conditions", "noise"),
            ("on_collapse", "ignore"),
            ("schedule", "linear"),
            ("precision", "float16"),
        ],
    )
    def test_settings(self, name, value):
        with pytest.raises(ValueError, match=name):
            fitter(**{name: value})

    def test_repr_shows_the_settings(self):
        assert "method=Coral(mean_weight=1.0)" in repr(fitter(method="coral"))


class TestScores:
    def test_auc(self):
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(2, 400, 3))
        assert domain_auc(x, y) < 0.58
        assert domain_auc(x, y + 1.0) == pytest.approx(0.89, abs=0.04)  # Phi(3**0.5 / 2**0.5)
        assert domain_auc(x, 3.0 * y) > 0.9

    def test_pair_distance(self):
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(2, 500, 4))
        assert pair_distance(x, x) == 0.0
        assert pair_distance(x, y) == pytest.approx(1.0, abs=0.1)

    @pytest.mark.parametrize("score", ["mmd", "auc"])
    def test_noise_is_the_scatter_of_scores_without_a_difference(self, score):
        generator = np.random.default_rng(0)
        settings = {"score": score, "bandwidths": [4.0, 8.0], "seed": 0}
        none = (np.empty((0, 3)), np.empty((0, 3)))

        def draw():
            return generator.normal(size=(80, 3)), generator.normal(size=(60, 3))

        if score == "mmd":
            drawn = [score_latents(*draw(), none, **settings)["score"] for _ in range(60)]
        else:  # of the ranks of a number that knows nothing of the survey
            drawn = []
            for _ in range(300):
                x, y = (values[:, 0] for values in draw())
                drawn.append(2.0 * np.mean(x[:, None] > y) - 1.0)
        assert score_noise(*draw(), **settings) == pytest.approx(np.std(drawn), rel=0.35)

    def test_mmd_of_latents_is_lowered(self, model, adapted, others):
        z = torch.from_numpy(latents(model, others[0]))
        before, after = (
            float(mmd_squared(z, torch.from_numpy(latents(each, others[1]))))
            for each in (model, adapted)
        )
        assert after < 0.5 * before
