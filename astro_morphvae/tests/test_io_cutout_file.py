import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.io.registry import IORegistryError
from astropy.nddata import InverseVariance
from astropy.table import QTable
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astro_morphvae import CutoutSet
from astro_morphvae.exceptions import CutoutMismatchError, MorphVAEWarning
from astro_morphvae.io import CutoutWriter, write_cutouts
from astro_morphvae.tests.cutout_samples import make_set, make_wcs, noise


def full_set(n=5):
    data = noise(n, 3, 9, 7)
    data[1] = np.nan
    catalog = QTable(
        {
            "id": [f"galaxy é{number}" for number in range(n)],
            "size": np.arange(n) * u.arcsec,
            "votes": np.arange(2.0 * n).reshape(n, 2),
            "seen": Time(np.full(n, 60000.5), format="mjd"),
        }
    )
    catalog["size"].info.description = "half-light radius"
    return CutoutSet(
        data,
        unit=u.nmgy,
        bands="grz",
        uncertainty=InverseVariance(np.abs(noise(n, 3, 9, 7, seed=1))),
        wcs=[None] + [make_wcs(1 / 3 + row, crpix=(row / 7, -1e5 / 3)) for row in range(1, n)],
        psf_fwhm=[1.3, 1.2, 1.1] * u.arcsec,
        catalog=catalog,
        meta={"survey": "DECaLS", "depth": 23.5 * u.mag, "nested": {"a": [1, 2]}},
    )


def assert_same(first, second):
    np.testing.assert_array_equal(first.data, second.data)
    for name in ("ivar", "mask"):
        one, other = getattr(first, name), getattr(second, name)
        if one is None or (name == "mask" and not one.any()):
            assert other is None
        else:
            np.testing.assert_array_equal(one, other)
    assert first.bands == second.bands
    assert first.unit == second.unit
    assert first.pixel_scale == second.pixel_scale
    assert first.catalog.colnames == second.catalog.colnames
    assert list(first.catalog["id"]) == list(second.catalog["id"])
    assert list(first.catalog["status"]) == list(second.catalog["status"])


class TestRoundTrip:
    @pytest.mark.parametrize("memmap", [True, False])
    def test_everything_comes_back(self, tmp_path, memmap):
        cutouts = full_set()
        cutouts.write(tmp_path / "set.fits")
        again = CutoutSet.read(tmp_path / "set.fits", memmap=memmap, verify=True)
        assert_same(cutouts, again)
        assert isinstance(again.data, np.memmap) == memmap
        assert isinstance(again.mask, np.memmap) == memmap
        assert again.mask.dtype == bool
        assert again.meta == cutouts.meta
        np.testing.assert_array_equal(again.psf_fwhm, cutouts.psf_fwhm)
        assert again.catalog["size"].unit == u.arcsec
        assert again.catalog["size"].info.description == "half-light radius"
        assert again.catalog["ra"].info.description
        np.testing.assert_array_equal(again.catalog["votes"], cutouts.catalog["votes"])
        assert again.catalog["seen"][0].mjd == 60000.5
        assert again.wcs[0] is None
        for row in range(1, 5):
            for name in ("crval", "crpix", "cd"):
                np.testing.assert_array_equal(
                    getattr(again.wcs[row].wcs, name), getattr(cutouts.wcs[row].wcs, name)
                )

    def test_a_read_set_works_like_any_other(self, tmp_path):
        cutouts = full_set()
        cutouts.write(tmp_path / "set.fits")
        again = CutoutSet.read(tmp_path / "set.fits")
        assert isinstance(again[1:3].data, np.memmap)
        assert "on disk" in repr(again)
        assert again[0].id == "galaxy é0"
        part = again[again.good]
        assert not isinstance(part.data, np.memmap)
        data, _, _ = part.arrays(slice(0, 2))
        assert data.dtype == np.dtype("=f4")
        assert np.isfinite(data).all()
        with pytest.raises(ValueError, match="read-only"):
            again.data[0] = 0
        again.write(tmp_path / "copy.fits")
        assert_same(cutouts, CutoutSet.read(tmp_path / "copy.fits"))

    @given(
        n=st.integers(0, 5),
        n_band=st.integers(1, 4),
        ny=st.integers(1, 9),
        nx=st.integers(1, 9),
        with_ivar=st.booleans(),
        seed=st.integers(0, 99),
    )
    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_any_shape(self, tmp_path, n, n_band, ny, nx, with_ivar, seed):
        rng = np.random.default_rng(seed)
        data = rng.normal(size=(n, n_band, ny, nx)).astype(np.float32)
        data[rng.random(data.shape) < 0.1] = np.nan
        ivar = InverseVariance(rng.random(data.shape)) if with_ivar else None
        cutouts = CutoutSet(data, unit="adu", bands="griz"[:n_band], uncertainty=ivar)
        path = tmp_path / "any.fits"
        cutouts.write(path, overwrite=True)
        assert_same(cutouts, CutoutSet.read(path, verify=True))
        with fits.open(path, checksum=True) as hdus:  # warns, so fails, where a sum is wrong
            hdus.verify("exception")
            np.testing.assert_array_equal(hdus["DATA"].data, None if n == 0 else cutouts.data)

    def test_uncalibrated_set_without_anything(self, tmp_path):
        cutouts = make_set(unit=u.dimensionless_unscaled)
        cutouts.write(tmp_path / "set.fits")
        again = CutoutSet.read(tmp_path / "set.fits")
        assert again.unit == u.dimensionless_unscaled
        assert (again.wcs, again.pixel_scale, again.psf_fwhm, again.ivar) == (None,) * 4

    def test_registry_knows_the_format(self, tmp_path, capsys):
        make_set().write(tmp_path / "set.fits", format="morphvae.fits")
        again = CutoutSet.read(tmp_path / "set.fits", format="morphvae.fits")
        assert len(again) == 4
        CutoutSet.read.list_formats()
        assert "morphvae.fits" in capsys.readouterr().out
        again = CutoutSet.read(str(tmp_path / "set.fits"))
        assert len(again) == 4


class TestWriting:
    def test_existing_file_needs_overwrite(self, tmp_path):
        path = tmp_path / "set.fits"
        make_set().write(path)
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="overwrite=True"):
            make_set().write(path)
        assert path.read_bytes() == before
        make_set(n=2).write(path, overwrite=True)
        assert len(CutoutSet.read(path)) == 2

    def test_a_set_can_replace_the_file_it_is_read_from(self, tmp_path):
        path = tmp_path / "set.fits"
        full_set().write(path)
        CutoutSet.read(path)[2:].write(path, overwrite=True)
        assert list(CutoutSet.read(path).catalog["id"]) == [f"galaxy é{row}" for row in (2, 3, 4)]

    def test_batches_make_the_same_file(self, tmp_path):
        cutouts = full_set(7)
        cutouts.write(tmp_path / "whole.fits")
        batches = (cutouts[start : start + 3] for start in range(0, 7, 3))
        write_cutouts(batches, tmp_path / "batches.fits", n=7)
        whole = CutoutSet.read(tmp_path / "whole.fits", verify=True)
        assert_same(whole, CutoutSet.read(tmp_path / "batches.fits", verify=True))

    def test_an_error_leaves_nothing_or_the_old_file(self, tmp_path):
        path = tmp_path / "set.fits"

        def failing():
            yield make_set()
            raise RuntimeError("the survey is down")

        with pytest.raises(RuntimeError, match="the survey is down"):
            write_cutouts(failing(), path, n=8)
        assert list(tmp_path.iterdir()) == []
        make_set().write(path)
        before = path.read_bytes()
        with pytest.raises(RuntimeError):
            write_cutouts(failing(), path, n=8, overwrite=True)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_a_killed_run_leaves_no_file(self, tmp_path):
        code = (
            "import os, sys\n"
            "from astro_morphvae.io import CutoutWriter\n"
            "from astro_morphvae.tests.cutout_samples import make_set\n"
            "with CutoutWriter(sys.argv[1], n=8) as writer:\n"
            "    writer.append(make_set())\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        path = tmp_path / "set.fits"
        result = subprocess.run([sys.executable, "-c", code, path], check=False)
        assert result.returncode == -9
        assert not path.exists()

    @pytest.mark.parametrize("n", [3, 9])
    def test_number_of_rows_must_be_right(self, tmp_path, n):
        with pytest.raises(ValueError, match=f"n is {n}"):
            write_cutouts([make_set(), make_set()], tmp_path / "set.fits", n=n)
        assert list(tmp_path.iterdir()) == []

    def test_batches_must_match(self, tmp_path):
        with pytest.raises(CutoutMismatchError, match="rows from 4 on"):
            write_cutouts([make_set(), make_set(size=8)], tmp_path / "set.fits", n=8)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("call", "error", "match"),
        [
            (lambda path: write_cutouts([make_set()], path), ValueError, "n: needed"),
            (lambda path: write_cutouts([3], path, n=1), TypeError, "cutouts: expected"),
            (lambda path: CutoutWriter(path, -1), ValueError, "n: expected"),
            (lambda path: CutoutWriter(path, 4).append(make_set()), ValueError, "not open"),
        ],
    )
    def test_wrong_argument_is_named(self, tmp_path, call, error, match):
        with pytest.raises(error, match=match):
            call(tmp_path / "set.fits")

    def test_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            make_set().write(tmp_path / "nowhere" / "set.fits")

    def test_meta_that_cannot_be_written_is_said(self, tmp_path):
        cutouts = make_set(meta={"good": 1, "bad": lambda: None})
        with pytest.warns(MorphVAEWarning, match="'bad'"):
            cutouts.write(tmp_path / "set.fits")
        assert CutoutSet.read(tmp_path / "set.fits").meta == {"good": 1}

    def test_column_of_objects_is_refused(self, tmp_path):
        catalog = QTable({"thing": np.array([{}, [], 1, None], dtype=object)})
        with pytest.raises(TypeError, match="column 'thing'"):
            make_set(catalog=catalog).write(tmp_path / "set.fits")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the path of a file that is whole."""
    path = tmp_path_factory.mktemp("damage") / "set.fits"
    full_set().write(path)
    return path


class TestDamage:
    @given(share=st.floats(0, 1, exclude_max=True))
    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_truncated_anywhere(self, tmp_path, whole, share):
        path = tmp_path / "cut.fits"
        content = whole.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises((OSError, IORegistryError)):
            CutoutSet.read(path)
        with pytest.raises(OSError, match=r"truncated|cut off"):
            CutoutSet.read(path, format="morphvae.fits")

    @given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_any_flipped_bit_is_noticed(self, tmp_path, whole, place, bit):
        changed = bytearray(whole.read_bytes())
        changed[place % len(changed)] ^= 1 << bit
        path = tmp_path / "bit.fits"
        path.write_bytes(changed)
        with pytest.raises(OSError):
            CutoutSet.read(path, verify=True, format="morphvae.fits")

    def test_foreign_files(self, tmp_path):
        fits.PrimaryHDU(np.zeros((3, 8, 8))).writeto(tmp_path / "image.fits")
        with pytest.raises(OSError, match=r"not one of CutoutSet.write; .*from_files"):
            CutoutSet.read(tmp_path / "image.fits")
        (tmp_path / "text.txt").write_text("galaxies")
        with pytest.raises(IORegistryError):
            CutoutSet.read(tmp_path / "text.txt")
        with pytest.raises(FileNotFoundError):
            CutoutSet.read(tmp_path / "absent.fits")

    def test_newer_format(self, tmp_path, whole):
        path = tmp_path / "new.fits"
        path.write_bytes(whole.read_bytes())
        fits.setval(path, "MORPHVAE", value=99)
        with pytest.raises(OSError, match="newer"):
            CutoutSet.read(path)


def test_reading_and_writing_keep_memory_flat(tmp_path):
    code = (
        "import resource, sys, numpy as np\n"
        "from astro_morphvae import CutoutSet\n"
        "from astro_morphvae.io import write_cutouts\n"
        "import astropy.units as u\n"
        "pixels = np.random.default_rng(0).normal(size=(100, 1, 256, 256)).astype('f4')\n"
        "batch = CutoutSet(pixels, unit=u.nmgy, bands='r')\n"
        "write_cutouts(iter([batch] * 2), sys.argv[1], n=200)\n"
        "CutoutSet.read(sys.argv[1], verify=True)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "write_cutouts(iter([batch] * 16), sys.argv[1], n=1600, overwrite=True)\n"
        "found = CutoutSet.read(sys.argv[1], verify=True)\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(found), (after - before) / 1024)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "long.fits"],
        check=True,
        capture_output=True,
        text=True,
    )
    n, grown = result.stdout.split()
    assert n == "1600"
    assert float(grown) < 60  # MiB, for a file of 420
