"""The published Galaxy Zoo tables: where they are, and how their columns fit the decision trees."""

from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["GALAXY_ZOO", "GalaxyZooTable"]


@dataclass(frozen=True)
class GalaxyZooTable:
    """A published table of Galaxy Zoo.

    Parameters
    ----------
    name : str
        Name by which `read_galaxy_zoo` knows it.
    title : str
        What it holds.
    tree : str
        Decision tree that its columns are mapped to.
    id_columns : tuple of str
        Columns that identify a galaxy, the first that is found.
    files : dict of str to (str or None)
        Names of its files, the one that is fetched by preference first, and their MD5 checksums.
    record : int, optional
        Zenodo record that holds them.
    url : str, optional
        Where the file is, if it is not in a Zenodo record.
    by : {"volunteers", "network"}
        Who gave the votes: volunteers, or a network that predicts what they would say.
    renamed : dict of str to str
        Beginning of the columns of an answer in the tree, and that of the published columns, where
        they are not the same.
    differing : tuple of str
        Questions of the tree that were asked otherwise, so that their columns are not mapped.
    references : tuple of str
        Papers to cite.
    licence : str
        Under which it is published.
    """

    name: str
    title: str
    tree: str
    id_columns: tuple
    files: dict = field(hash=False)
    record: int | None = None
    url: str | None = None
    by: str = "volunteers"
    renamed: dict = field(default_factory=dict, hash=False)
    differing: tuple = ()
    references: tuple = ()
    licence: str = ""


_DECALS = ("Walmsley et al. 2022, MNRAS 509, 3966",)
_DESI = ("Walmsley et al. 2023, MNRAS 526, 4768",)
_DECALS_IDS = ("iauname", "id_str", "subject_id")
_DESI_IDS = ("dr8_id", "id_str")

_TABLES = (
    GalaxyZooTable(
        name="gz2",
        title="Galaxy Zoo 2, votes of the normal-depth sample debiased by Hart et al. 2016",
        tree="gz2",
        id_columns=("dr7objid", "objid"),
        # Not on Zenodo, and published without a checksum: the one inside the gzip file has to do.
        files={"gz2_hart16.csv.gz": None},
        url="https://gz2hart.s3.amazonaws.com/gz2_hart16.csv.gz",
        references=("Willett et al. 2013, MNRAS 435, 2835", "Hart et al. 2016, MNRAS 461, 3663"),
        licence="see https://data.galaxyzoo.org",
    ),
    GalaxyZooTable(
        name="gz-decals-5",
        title="Galaxy Zoo DECaLS, votes of volunteers, campaign GZD-5",
        tree="gz-decals",
        id_columns=_DECALS_IDS,
        files={
            "gz_decals_volunteers_5.parquet": "364d0b598b7d2958553350c5ce0ffc14",
            "gz_decals_volunteers_5.csv": "b12e3767b3968f9767d4f4115cc69d4d",
        },
        record=4573248,
        references=_DECALS,
        licence="CC BY 4.0",
    ),
    GalaxyZooTable(
        name="gz-decals-1-2",
        title="Galaxy Zoo DECaLS, votes of volunteers, campaigns GZD-1 and GZD-2",
        tree="gz-decals",
        id_columns=_DECALS_IDS,
        files={
            "gz_decals_volunteers_1_and_2.parquet": "e9de511cbd5977e02c81cbdb5d21b7c2",
            "gz_decals_volunteers_1_and_2.csv": "f1be080ac22269fb5ea4e12ddefb8b11",
        },
        record=4573248,
        renamed={"how-rounded_round": "how-rounded_completely"},
        # Asked with other answers: bars were not weak or strong, bulges had three sizes.
        differing=("bar", "bulge-size", "spiral-arm-count", "merging"),
        references=_DECALS,
        licence="CC BY 4.0",
    ),
    GalaxyZooTable(
        name="gz-decals-auto",
        title="Galaxy Zoo DECaLS, vote fractions predicted for all galaxies of DECaLS DR5",
        tree="gz-decals",
        id_columns=_DECALS_IDS,
        files={
            "gz_decals_auto_posteriors.parquet": "2e9f4b4fe9f3473a44f60aed0526911f",
            "gz_decals_auto_posteriors.csv": "5cc06cc0e2d44b5c0eb5c60231530b67",
        },
        record=4573248,
        by="network",
        references=_DECALS,
        licence="CC BY 4.0",
    ),
    GalaxyZooTable(
        name="gz-desi-8",
        title="Galaxy Zoo DESI, votes of volunteers, campaign GZD-8",
        tree="gz-decals",
        id_columns=_DESI_IDS,
        files={
            "gz_desi_gzd8_volunteer_core_catalog.parquet": "ba79d9d9b56bb81608fbaa4c48d4f465",
        },
        record=8360385,
        references=_DESI,
        licence="CC BY 4.0",
    ),
    GalaxyZooTable(
        name="gz-desi-auto",
        title="Galaxy Zoo DESI, vote fractions predicted for 8.7 million galaxies",
        tree="gz-decals",
        id_columns=_DESI_IDS,
        files={
            "gz_desi_deep_learning_catalog_friendly.parquet": "114785d00c4d4f2208185bee73dd08b8",
        },
        record=8360385,
        by="network",
        references=_DESI,
        licence="CC BY 4.0",
    ),
)

GALAXY_ZOO = MappingProxyType({table.name: table for table in _TABLES})
"""Galaxy Zoo tables that `read_galaxy_zoo` knows, by name.

References
----------
Galaxy Zoo 2: https://data.galaxyzoo.org. Galaxy Zoo DECaLS: https://zenodo.org/records/4573248.
Galaxy Zoo DESI: https://zenodo.org/records/8360385.
"""
