import gzip
import hashlib
import json
import time
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from werkzeug import Response

from astro_morphvae.catalogs import GALAXY_ZOO, read_galaxy_zoo
from astro_morphvae.catalogs._fetch import fetch_file
from astro_morphvae.decision_trees import GZ2, GZ_DECALS
from astro_morphvae.exceptions import MorphVAEWarning
from astro_morphvae.morphology import select_labels

N = 6


def votes_of(question, rng, stem, count_ending, families, renamed=None):
    """Columns of one question, laid out as published: counts, then fractions, answer by answer."""
    renamed = renamed or {}
    votes = rng.integers(0, 20, (N, len(question.answers)))
    votes[0] = 0  # of the first galaxy nobody is asked anything
    total = votes.sum(axis=1)
    columns = {}
    for answer, counts in zip(question.answers, votes.T, strict=True):
        name = stem(question, renamed.get(answer, answer))
        columns[name + count_ending] = counts
        for family in families:
            columns[f"{name}_{family}"] = counts / np.maximum(total, 1)
    return columns, total


def decals_table(*, totals=True, counts=True, identifier="iauname"):
    rng = np.random.default_rng(5)
    names = [f"J{i:06d}.00+000000.0" for i in range(N)]
    table = Table({identifier: names, "ra": rng.uniform(0, 360, N), "dec": rng.uniform(-10, 30, N)})
    table["petro_th50"] = rng.uniform(1, 5, N)
    table["wrong_size_warning"] = [True, False, False, False, True, False]
    for question in GZ_DECALS:
        columns, total = votes_of(
            question, rng, lambda q, a: f"{q.name}_{a}", "", ("fraction", "debiased")
        )
        if totals:
            table[f"{question.name}_total-votes"] = total
        for name, values in columns.items():
            if counts or name.endswith(("fraction", "debiased")):
                table[name] = values
        if not counts:
            table[f"{question.name}_proportion_volunteers_asked"] = rng.uniform(0, 1, N)
    return table


def gz2_table():
    rng = np.random.default_rng(6)
    ids = 587722981736120347 + np.arange(N)
    table = Table({"dr7objid": ids, "ra": rng.uniform(0, 360, N), "dec": rng.uniform(-10, 30, N)})
    table["gz2_class"] = ["Er", "Sb", "Sc?t", "Ei", "SBb2m", "A"]
    for question in GZ2:
        families = ("fraction", "weighted_fraction", "debiased")
        columns, _ = votes_of(question, rng, gz2_stem, "_count", families)
        for name, values in columns.items():
            table[name] = values
    return table


def gz2_stem(question, answer):
    return question.column(answer).removesuffix("_fraction")


def write_csv(table, path):
    if path.suffix == ".gz":
        plain = path.with_suffix("")
        table.write(plain, format="ascii.csv")
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        table.write(path, format="ascii.csv")
    return path


def test_decals_columns_are_those_of_the_tree(tmp_path):
    published = decals_table()
    table = read_galaxy_zoo("gz-decals-5", write_csv(published, tmp_path / "votes.csv"))
    assert table.colnames[:3] == ["id", "ra", "dec"]
    assert list(table["id"]) == list(published["iauname"])
    assert table["ra"].unit == table["dec"].unit == u.deg
    np.testing.assert_allclose(table["ra"].value, published["ra"])
    assert set(GZ_DECALS.columns) <= set(table.colnames)
    for question in GZ_DECALS:
        total = table[question.total_column]
        counts = [table[question.count_columns[answer]] for answer in question.answers]
        fractions = np.array([table[question.column(answer)] for answer in question.answers])
        assert (np.sum(counts, axis=0) == total).all()
        # Nobody was asked about the first galaxy: no fraction, not a fraction of 0.
        assert np.isnan(fractions[:, 0]).all()
        np.testing.assert_allclose((fractions * total)[:, 1:], np.array(counts)[:, 1:])
        assert question.text in table[question.column(question.answers[0])].info.description
    assert table.meta["questions"]["fraction"] == list(GZ_DECALS.names)
    assert table.meta["references"] == ["Walmsley et al. 2022, MNRAS 509, 3966"]
    assert table.meta["licence"] == "CC BY 4.0"
    assert table.meta["source"].endswith("votes.csv")
    labels = select_labels(table, "gz-decals", "smooth-or-featured", threshold=0.5)
    assert labels.mask[0]
    assert not labels.mask.all()


@pytest.mark.parametrize("ending", ["csv.gz", "fits", "fits.gz", "ecsv", "parquet"])
def test_every_format_gives_the_same_table(tmp_path, ending):
    published = gz2_table()
    path = tmp_path / f"gz2_hart16.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    if ending == "csv.gz":
        write_csv(published, path)
    else:
        published.write(path)
    table = read_galaxy_zoo("gz2", path, columns=["gz2_class"])
    reference = read_galaxy_zoo("gz2", write_csv(published, tmp_path / "a.csv"), columns="all")
    assert list(table["id"]) == [str(value) for value in published["dr7objid"]]
    assert list(table["gz2_class"]) == list(published["gz2_class"])
    for question in GZ2:
        # Hart et al. have no column of those asked: it is the sum of the votes.
        counts = [table[question.count_columns[answer]] for answer in question.answers]
        assert (table[question.total_column] == np.sum(counts, axis=0)).all()
        for answer in question.answers:
            name = question.column(answer)
            np.testing.assert_allclose(table[name], reference[name], rtol=1e-6)
    assert set(table.meta["questions"]) == {"fraction", "weighted_fraction", "debiased"}
    assert "gz2_class" in reference.colnames


def test_predicted_tables_have_no_votes(tmp_path):
    published = decals_table(totals=False, counts=False, identifier="dr8_id")
    # The friendly table of Galaxy Zoo DESI leaves out what is not relevant.
    published["bar_strong_fraction"] = np.ma.masked_less(published["bar_strong_fraction"], 0.3)
    path = write_csv(published, tmp_path / "predicted.csv")
    table = read_galaxy_zoo("gz-desi-auto", path)
    assert "bar_total-votes" not in table.colnames
    assert "bar_strong" not in table.colnames
    assert "bar_proportion_volunteers_asked" in table.colnames
    left_out = np.ma.getmaskarray(published["bar_strong_fraction"])
    assert left_out.any()
    assert (np.isnan(table["bar_strong_fraction"]) == left_out).all()
    assert table.meta["by"] == "network"


def test_first_campaigns_are_mapped_where_they_agree(tmp_path):
    published = decals_table()
    for name in list(published.colnames):
        if name.startswith("how-rounded_round"):
            published.rename_column(name, name.replace("_round", "_completely"))
        elif name.startswith("bar_"):
            del published[name]
    for name in ("bar_yes", "bar_no", "bar_yes_fraction", "bar_no_fraction"):
        published[name] = np.linspace(0, 1, N)
    path = write_csv(published, tmp_path / "votes.csv")
    table = read_galaxy_zoo("gz-decals-1-2", path, columns=["bar_yes_fraction", "petro_th50"])
    np.testing.assert_array_equal(table["how-rounded_round"], published["how-rounded_completely"])
    assert "how-rounded_round_fraction" in table.colnames
    # Bars were asked after with other answers: theirs come only if asked for.
    assert [name for name in table.colnames if name.startswith("bar_")] == ["bar_yes_fraction"]
    assert "bar" not in table.meta["questions"]["fraction"]
    assert table["petro_th50"].unit == u.arcsec


@pytest.mark.filterwarnings("ignore::astro_morphvae.exceptions.MorphVAEWarning")
def test_what_is_missing_is_named(tmp_path):
    published = decals_table()
    published.remove_columns(["dec", "bar_weak_fraction", "bar_weak_debiased"])
    path = write_csv(published, tmp_path / "votes.csv")
    with pytest.warns(MorphVAEWarning, match="column dec, question bar$"):
        table = read_galaxy_zoo("gz-decals-5", path, columns=["wrong_size_warning"])
    assert "bar" not in table.meta["questions"]["fraction"]
    assert "bar_strong_fraction" in table.colnames
    assert table["wrong_size_warning"].dtype == bool
    with pytest.raises(ValueError, match=r"columns: .* has no \['redshift'\]"):
        read_galaxy_zoo("gz-decals-5", path, columns=["redshift"])
    with pytest.raises(ValueError, match=r"none of the columns \['nsa_id'\] that identify"):
        read_galaxy_zoo("gz-decals-5", path, id_column="nsa_id")
    with pytest.raises(ValueError, match=r"no question of the tree 'gz2'.*t01_smooth.*iauname"):
        read_galaxy_zoo("gz2", path)
    with pytest.raises(ValueError, match=r"name: expected one of .*'gz2'.*, got 'gz3'"):
        read_galaxy_zoo("gz3", path)
    with pytest.raises(ValueError, match="columns: expected a list of names or 'all'"):
        read_galaxy_zoo("gz-decals-5", path, columns="ra")


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "fits", "ecsv", "parquet"])
def test_one_missing_identifier_leaves_the_others_whole(tmp_path, ending):
    published = gz2_table()
    ids = np.ma.array(published["dr7objid"], mask=np.arange(N) == 2)
    published["dr7objid"] = ids
    published["specobjid"] = ids  # so do other numbers that a float cannot hold
    published["rank"] = np.ma.array(np.arange(N), mask=ids.mask)
    path = tmp_path / f"gz2_hart16.{ending}"
    if ending == "parquet":
        # Astropy writes no nulls.
        arrow = pytest.importorskip("pyarrow")
        columns = {name: arrow.array(published[name].tolist()) for name in published.colnames}
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table(columns), path)
    elif ending.startswith("csv"):
        write_csv(published, path)
    else:
        published.write(path)
    table = read_galaxy_zoo("gz2", path, columns=["specobjid", "rank"])
    expected = [str(587722981736120347 + i) if i != 2 else "" for i in range(N)]
    assert list(table["id"]) == expected
    assert list(table["specobjid"]) == expected
    np.testing.assert_array_equal(table["rank"], [0, 1, np.nan, 3, 4, 5])


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (["0012", "", "99999999999999999999"], ["0012", "", "99999999999999999999"]),
        (["12.0", "", "1000.0"], ["12", "", "1000"]),
        (["12_3", "1.0", "a"], ["12_3", "1.0", "a"]),
    ],
)
def test_identifiers_of_text_files_are_text(tmp_path, published, expected):
    table = gz2_table()[: len(published)]
    table["dr7objid"] = published
    path = write_csv(table, tmp_path / "gz2.csv")
    # Lines without anything are no rows; a name may be quoted.
    path.write_text(path.read_text().replace("dr7objid", '"dr7objid"') + "\n \n")
    assert list(read_galaxy_zoo("gz2", path)["id"]) == expected


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_galaxy_zoo("gz2", tmp_path / "gz2.csv")
    other = tmp_path / "votes.xlsx"
    other.write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in none of \.csv"):
        read_galaxy_zoo("gz2", other)
    with pytest.raises(ValueError, match="format: expected one of csv, parquet"):
        read_galaxy_zoo("gz2", other, format="xlsx")
    with pytest.raises(ValueError, match="no question of the tree"):
        read_galaxy_zoo("gz2", other, format="csv")


def test_real_rows(shared_data):
    with pytest.warns(MorphVAEWarning, match="question disk-edge-on"):
        decals = read_galaxy_zoo("gz-decals-5", shared_data / "gz-decals" / "panoptes.csv")
    assert len(decals) == 4000
    assert decals.meta["questions"] == {"fraction": ["smooth-or-featured"]}
    total = sum(decals[name] for name in GZ_DECALS["smooth-or-featured"].columns.values())
    np.testing.assert_allclose(total, 1, atol=1e-6)

    stripe = read_galaxy_zoo("gz2", shared_data / "gz2-stripe82" / "labels.csv")
    assert len(stripe) == 283
    assert stripe.meta["questions"]["debiased"] == list(GZ2.names)
    assert np.abs(stripe["dec"].value).max() < 1.3  # the stripe

    with pytest.warns(MorphVAEWarning, match="column ra, column dec$"):
        votes = read_galaxy_zoo("gz2", shared_data / "gz2-votes" / "labels.csv")
    assert "weighted_fraction" in votes.meta["questions"]
    assert votes["id"][0] == "587739505552785605"


class Zenodo:
    """A local server that answers as Zenodo does, or not quite."""

    def __init__(self, httpserver, record, name, content):
        self.record, self.name, self.content = record, name, content
        self.md5 = hashlib.md5(content).hexdigest()
        self.faults = []  # one for each coming request of the file
        self.ranges = []
        self.url = httpserver.url_for("")
        httpserver.expect_request(f"/api/records/{record}").respond_with_handler(self.describe)
        httpserver.expect_request(f"/records/{record}/files/{name}").respond_with_handler(self.send)

    def describe(self, request):
        file = {"key": self.name, "size": len(self.content), "checksum": f"md5:{self.md5}"}
        return Response(json.dumps({"id": self.record, "files": [file]}))

    def send(self, request):
        self.ranges.append(request.headers.get("Range"))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return Response("no", status=fault)
        if fault == "wrong":
            return Response(self.content[::-1])
        start = 0
        if self.ranges[-1] and fault != "no ranges":
            start = int(self.ranges[-1].removeprefix("bytes=").removesuffix("-"))
        body = self.content[start:]
        response = Response(body, status=206 if start else 200)
        if start:
            size = len(self.content)
            response.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        if fault == "cut":
            response.set_data(body[: len(body) // 2])
            response.headers["Content-Length"] = str(len(body))
        return response


@pytest.fixture
def zenodo(httpserver, tmp_path, monkeypatch):
    """Return a server that holds the votes of GZD-5 as CSV, which nothing but the wire can harm."""
    pytest.importorskip("requests")
    monkeypatch.setattr("astro_morphvae.catalogs._fetch.backoff_delay", lambda *_: 0.01)
    monkeypatch.setattr("astro_morphvae.catalogs.galaxy_zoo.find_spec", lambda _: None)
    name = "gz_decals_volunteers_5.csv"
    content = write_csv(decals_table(), tmp_path / name).read_bytes()
    zenodo = Zenodo(httpserver, 4573248, name, content)
    files = {name: zenodo.md5, "gz_decals_volunteers_5.parquet": "0" * 32}
    monkeypatch.setitem(GALAXY_ZOO["gz-decals-5"].files, name, files[name])
    return zenodo


@pytest.fixture
def fetch(zenodo, tmp_path):
    def fetch(**keywords):
        keywords = {"cache": tmp_path / "cache", "progress": False, "timeout": 5.0} | keywords
        return read_galaxy_zoo("gz-decals-5", server=zenodo.url, **keywords)

    return fetch


def test_fetched_once_and_kept(zenodo, fetch, tmp_path):
    table = fetch()
    assert len(table) == N
    assert table.meta["source"] == f"https://zenodo.org/records/4573248/files/{zenodo.name}"
    zenodo.faults = [500] * 9
    assert list(fetch()["id"]) == list(table["id"])
    assert len(zenodo.ranges) == 1
    kept = tmp_path / "cache" / "zenodo-4573248" / zenodo.name
    assert kept.read_bytes() == zenodo.content
    zenodo.faults = []
    assert list(fetch(cache=False)["id"]) == list(table["id"])
    assert len(zenodo.ranges) == 2


def test_an_interrupted_download_goes_on(zenodo, fetch):
    zenodo.faults = ["cut", 503, "cut"]
    assert len(fetch()) == N
    size = len(zenodo.content)
    assert zenodo.ranges[0] is None
    assert zenodo.ranges[1:3] == [f"bytes={size // 2}-"] * 2
    assert int(zenodo.ranges[3].removeprefix("bytes=").removesuffix("-")) > size // 2


def test_a_server_without_ranges_starts_again(zenodo, fetch):
    zenodo.faults = ["cut", "no ranges"]
    assert len(fetch()) == N
    assert len(zenodo.ranges) == 2


def test_a_file_with_another_checksum_is_not_kept(zenodo, fetch, tmp_path):
    zenodo.faults = ["wrong"]
    assert len(fetch()) == N  # asked again, it is right
    (tmp_path / "cache" / "zenodo-4573248" / zenodo.name).unlink()
    zenodo.faults = ["wrong"] * 9
    with pytest.raises(OSError, match=f"invalid-file: its MD5 checksum is .*, not {zenodo.md5}"):
        fetch()
    assert list((tmp_path / "cache" / "zenodo-4573248").iterdir()) == []


@pytest.mark.parametrize("code", [404, 500])
def test_a_file_that_is_not_there(zenodo, fetch, code):
    zenodo.faults = [code] * 9
    with pytest.raises(OSError, match=f"gz_decals_volunteers_5.csv.*HTTP {code}"):
        fetch()
    assert len(zenodo.ranges) == (1 if code == 404 else 5)


def test_a_record_that_changed(zenodo, fetch, monkeypatch):
    monkeypatch.setitem(GALAXY_ZOO["gz-decals-5"].files, zenodo.name, "0" * 32)
    with pytest.warns(MorphVAEWarning, match=f"has the checksum {zenodo.md5}, not 000"):
        assert len(fetch(cache=False)) == N
    zenodo.name = "votes.csv"
    with pytest.raises(OSError, match=r"has no file 'gz_decals_volunteers_5.csv', but \['votes"):
        fetch()
    monkeypatch.setattr(zenodo, "record", {"not": "a record"})
    zenodo.md5 = "sha:1"
    with pytest.raises(OSError, match="not an MD5 checksum"):
        fetch()


def test_hart_2016_is_checked_by_its_own_checksum(httpserver, tmp_path, monkeypatch):
    pytest.importorskip("requests")
    monkeypatch.setattr("astro_morphvae.catalogs._fetch.backoff_delay", lambda *_: 0.01)
    path = write_csv(gz2_table(), tmp_path / "gz2_hart16.csv.gz")
    content = path.read_bytes()
    spoilt = content[:-200] + bytes(100) + content[-100:]
    replies = [spoilt, content[:-50], content]
    httpserver.expect_request("/gz2_hart16.csv.gz").respond_with_handler(
        lambda request: Response(replies.pop(0))
    )
    table = read_galaxy_zoo(
        "gz2", server=httpserver.url_for(""), cache=tmp_path / "cache", progress=False
    )
    assert replies == []
    assert len(table) == N
    assert table.meta["source"].endswith("/gz2_hart16.csv.gz")


def test_what_a_file_must_weigh(httpserver, tmp_path):
    pytest.importorskip("requests")
    httpserver.expect_request("/a.csv").respond_with_data(b"x" * 100)
    url = httpserver.url_for("/a.csv")
    with pytest.raises(OSError, match="100 bytes in place of 60"):
        fetch_file(url, tmp_path / "a.csv", size=60, retries=0, progress=False)
    path = fetch_file(url, tmp_path / "a.csv", size=100, retries=0, progress=False)
    assert path.read_bytes() == b"x" * 100


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_does_not_end_is_left(httpserver, tmp_path, announced):
    pytest.importorskip("requests")
    sent = []

    def send(request):
        def chunks():
            for _ in range(1000):
                sent.append(2**16)
                yield bytes(2**16)

        headers = {"Content-Length": str(1000 * 2**16)} if announced else {}
        return Response(chunks(), headers=headers)

    httpserver.expect_request("/a.csv").respond_with_handler(send)
    problem = "65536000 bytes in place of 1000" if announced else "more than 1000 bytes"
    with pytest.raises(OSError, match=f"invalid-file: {problem}"):
        fetch_file(
            httpserver.url_for("/a.csv"), tmp_path / "a.csv", size=1000, retries=0, progress=False
        )
    assert sum(sent) < 500 * 2**16  # what the connection holds, not all
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_too_slowly_is_continued(httpserver, tmp_path, monkeypatch):
    pytest.importorskip("requests")
    monkeypatch.setattr("astro_morphvae.catalogs._fetch.backoff_delay", lambda *_: 0.01)
    ranges = []

    def send(request):
        ranges.append(request.headers.get("Range"))
        if ranges[-1] is None:

            def drip():
                for _ in range(10):
                    yield b"x" * 10
                    time.sleep(0.1)

            return Response(drip(), headers={"Content-Length": "100"})
        start = int(ranges[-1].removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-99/100"}
        return Response(b"x" * (100 - start), status=206, headers=headers)

    httpserver.expect_request("/a.csv").respond_with_handler(send)
    url = httpserver.url_for("/a.csv")
    path = fetch_file(url, tmp_path / "a.csv", size=100, timeout=0.35, progress=False)
    assert path.read_bytes() == b"x" * 100
    assert len(ranges) == 2
    assert ranges[0] is None


def test_published_tables_are_described():
    for name, table in GALAXY_ZOO.items():
        assert table.name == name
        assert table.tree in ("gz2", "gz-decals")
        assert set(table.differing) <= set(GZ_DECALS.names)
        assert (table.record is None) != (table.url is None)
        assert table.references
        for md5 in table.files.values():
            assert md5 is None or len(bytes.fromhex(md5)) == 16


@pytest.mark.remote_data
@pytest.mark.parametrize("name", ["gz-desi-8", "gz-decals-5", "gz-decals-1-2"])
def test_zenodo_publishes_what_we_know(name):
    """The records still hold the files, with the checksums that are known here."""
    from astro_morphvae._download import Downloader, Request
    from astro_morphvae.catalogs._fetch import ZENODO, _parse_record

    pytest.importorskip("requests")
    table = GALAXY_ZOO[name]
    request = Request(f"{ZENODO}/api/records/{table.record}")
    (reply,) = Downloader(cache=False, progress=False).fetch([request], _parse_record)
    assert reply.ok, reply.reason
    assert {file: reply.value[file][1] for file in table.files} == table.files


@pytest.mark.remote_data
def test_the_votes_of_gzd_8_can_be_fetched(tmp_path):
    pytest.importorskip("pyarrow")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_galaxy_zoo("gz-desi-8", cache=tmp_path, progress=False)
    assert len(table) > 50_000
    assert table.meta["questions"]["fraction"] == list(GZ_DECALS.names)
