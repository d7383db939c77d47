import numpy as np
import pytest
from astropy.table import QTable

from astro_morphvae import demo
from astro_morphvae.cli import main

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_forests):
    folder = tmp_path_factory.mktemp("demo") / "results"
    lines = []
    evaluation = demo.run_demo(
        folder,
        n=260,
        size=32,
        epochs=1,
        seed=4,
        progress=False,
        report=lambda line="": lines.append(line),
    )
    return folder, evaluation, "\n".join(lines)


def test_leaves_what_it_says(run):
    folder, _, report = run
    made = {path.name for path in folder.iterdir()}
    assert made == set(demo._CONTENTS)
    assert all(name in report for name in made)
    assert str(folder) in report


def test_scores_latents_beside_majority_and_principal_components(run):
    folder, evaluation, report = run
    assert set(evaluation["method"]) == {"latents", "PCA(40)"}
    for name in ("balanced_accuracy_low", "balanced_accuracy_high", "majority_balanced_accuracy"):
        assert name in evaluation.colnames
    assert "smooth-or-featured" in report
    assert "galaxies kept aside" in report
    written = QTable.read(folder / "evaluation.ecsv")
    np.testing.assert_allclose(written["accuracy"], evaluation["accuracy"])
    assert set(evaluation.meta["times"]) == {"simulate", "fit", "encode", "classify", "draw"}


def test_galaxies_kept_aside_are_seen_by_neither_network_nor_classifier(run):
    from astro_morphvae import LatentModel, MorphologyClassifier

    folder, _, _ = run
    classifier = MorphologyClassifier.read(folder / "classifier.skops")
    info = LatentModel.read(folder / "model.keras").fit_info
    n_test = len(classifier.split["test_ids"])
    assert 0.25 * 260 < n_test < 0.35 * 260
    assert info["n_train"] + info["n_validation"] == 260 - n_test
    assert not set(classifier.split["test_ids"]) & set(classifier.split["train_ids"])


def test_a_galaxy_is_captioned_as_far_as_the_tree_leads():
    row = {
        "smooth-or-featured": "featured-or-disk",
        "disk-edge-on": "no",
        "has-spiral-arms": "yes",
        "has-spiral-arms_reach": 0.8,
        "has-spiral-arms_yes_probability": 0.5,
    }
    assert demo._caption(row) == "spiral 40 %"


def test_command(tmp_path, monkeypatch):
    def fake(output, *, report, **keywords):
        report(f"{output} {keywords}")

    monkeypatch.setattr(demo, "run_demo", fake)
    assert main(["demo", "-o", str(tmp_path), "--n", "5"]) == 0
