"""A data set from its folder to what the other notebooks read: what `01_dataset` does, step by step.

In the phantom tier the folder is a look-alike of the release, written from phantoms and damaged on
purpose, so that the audit itself can be judged.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from merlin import run
from merlin.data import extract, manifest
from merlin.data.codes import NO_CODES, read_codes
from merlin.data.preprocess import Grid
from merlin.readers import audit, look_alike, release, survey
from merlin.training.checkpoint import read_facts


@dataclass(frozen=True)
class AtHand:
    """The folder that is audited.

    Attributes
    ----------
    folder : path
    is_own : bool
        The user's, not a look-alike.
    owners : path or None
        Table of study and patient ids, where there is one.
    planted : DataFrame or None
        Damages of a look-alike, from `look_alike.plant_defects`.
    """

    folder: Path
    is_own: bool
    owners: str | Path | None
    planted: pd.DataFrame | None

    @property
    def tables(self) -> list[Path]:
        """Those of its files that are tables of a known name."""
        return [self.folder / n for n in audit.TABLES if (self.folder / n).exists()]


@dataclass(frozen=True)
class Coded:
    """Diagnosis codes of a data set.

    Attributes
    ----------
    codes : DataFrame
    notes : list of str
    unmapped : DataFrame
        Codes without a phecode.
    files : list of path
        That they and their map were read from.
    """

    codes: pd.DataFrame
    notes: list[str]
    unmapped: pd.DataFrame
    files: list[Path]

    @property
    def study_ids(self) -> pd.Series:
        """Studies with a code that has a phecode."""
        coded = self.codes.merge(self.unmapped, how="left", on=["vocabulary", "code"])
        return coded["study_id"][coded["n"].isna()].drop_duplicates()


@dataclass(frozen=True)
class Read:
    """A data set that was read whole.

    Attributes
    ----------
    found : release.Release
    studies : DataFrame
    coded : Coded
    seen : DataFrame
        From `survey.survey`.
    turned : DataFrame
        Studies whose label contradicts the report, from `audit.label_disagreements`.
    n_turned : int
        Such labels.
    """

    found: release.Release
    studies: pd.DataFrame
    coded: Coded
    seen: pd.DataFrame
    turned: pd.DataFrame
    n_turned: int

    @property
    def quarantined(self) -> pd.DataFrame:
        """Studies whose volume could not be read."""
        return self.seen[self.seen["status"] == "quarantined"]

    @property
    def unusual(self) -> pd.DataFrame:
        """Volumes that differ from the others, a row an oddity."""
        odd = survey.outliers(self.seen)
        return odd.assign(what="unusual: " + odd["what"])

    @property
    def kept(self) -> pd.DataFrame:
        """Studies that the other notebooks will see."""
        lost = self.studies["study_id"].isin(self.quarantined["study_id"])
        return self.studies[~lost].reset_index(drop=True)

    @property
    def left_out(self) -> pd.DataFrame:
        """Studies that they will not see, with split and reason."""
        unread = self.quarantined[["study_id", "reason"]]
        unread = unread.merge(self.studies[["study_id", "split"]])
        return pd.concat([self.found.lost, unread], ignore_index=True)

    def denominators(self) -> pd.DataFrame:
        """Test studies that each figure divides by."""
        in_test = self.kept.set_index("study_id")["split"].eq("test")
        n_coded = int(in_test[in_test.index.isin(self.coded.study_ids)].sum())
        n_lost = int((self.left_out["split"] == "test").sum())
        return audit.denominators(self.kept, n_coded=n_coded, n_left_out=n_lost)

    def table(self) -> pd.DataFrame:
        """Every count of the audit: `what, n, detail`."""
        more = [
            ("labels that contradict their report", self.n_turned, "by our reading of the text"),
            ("studies quarantined", len(self.quarantined), "could not be read"),
            *((what, len(part), "") for what, part in self.unusual.groupby("what")),
            *(("remarks on diagnosis codes", 1, note) for note in self.coded.notes),
        ]
        return pd.concat([self.found.audit, pd.DataFrame(more, columns=["what", "n", "detail"])])


def at_hand(settings: SimpleNamespace) -> AtHand:
    """The user's folder, or a look-alike that is written and damaged now."""
    if settings.folder:
        return AtHand(Path(settings.folder), True, settings.patients or None, None)
    base = run.folder(settings.profile)
    source = run.upstream(base / "cohort" / "manifest.csv", "01_cohort")
    data = base / "dataset" / "merlinabdominalctdataset"
    shutil.rmtree(data.parent, ignore_errors=True)
    cohort = manifest.load_manifest(source)
    look_alike.write_release(cohort[cohort["site"] == "internal"].head(settings.n_studies), data)
    planted = look_alike.plant_defects(data)
    patients = settings.patients or data.with_name(f"{data.name}-patients.csv")
    return AtHand(data, False, patients, planted)


def labelled(found: release.Release) -> tuple[pd.DataFrame, bool]:
    """Studies with a site and with labels: their own, or where none were given what our rules read.

    Returns
    -------
    studies : DataFrame
    is_mined : bool
        Whether labels are what our rules read.
    """
    studies = found.manifest
    if "site" not in studies:
        studies = studies.assign(site="internal")
    names = [c for c in studies if c.startswith("label_") and c != "label_map"]
    is_mined = bool(studies[names].isna().all(axis=None))
    if is_mined:
        sex = studies["sex"] if "sex" in studies else None
        mined = extract.label_table(studies["findings"].fillna(""), sex)
        text = pd.DataFrame(mined, studies.index).map(lambda x: f"{x:g}", na_action="ignore")
        studies[names] = text
    return studies, is_mined


def read_own_codes(settings: SimpleNamespace, folder: Path, study_ids: pd.Series) -> Coded:
    """Codes of the profile's table, or of the folder's `codes.csv`, checked before any volume is read."""
    beside = folder / "codes.csv"
    file = settings.icd or (beside if beside.exists() else "")
    codes = read_codes(file) if file else NO_CODES
    code_map = run.settings("03_embeddings", {"profile": settings.profile}).code_map
    notes, unmapped = audit.check_codes(codes, study_ids, code_map)
    return Coded(codes, notes, unmapped, [Path(p) for p in (settings.icd, code_map) if p])


def input_grid(settings: SimpleNamespace) -> Grid:
    """Of the model's input: the given weights', or the profile's."""
    if settings.weights:
        grid = read_facts(settings.weights)["grid"]
        return Grid(tuple(grid["spacing_mm"]), tuple(grid["shape"]), tuple(grid["hu_window"]))
    shape = run.load_profile(settings.profile)["02_pretraining"]
    return Grid(tuple(shape["spacing_mm"]), tuple(shape["grid_shape"]))


def write(data: AtHand, read: Read, out: Path, *, is_mined: bool) -> Path:
    """Write what the other notebooks read: manifest and codes, and beside them what is odd or left out.

    Returns
    -------
    path
        Of the manifest.
    """
    run.write_csv(out / "manifest.csv", manifest.linked(read.kept, data.folder, out))
    if (data.folder / run.SYNTHETIC).exists():  # phantoms are called so in every tier
        shutil.copyfile(data.folder / run.SYNTHETIC, out / run.SYNTHETIC)
    run.mark_mined(out, extract.mined_label_note() if is_mined else "")  # captions say so
    run.write_csv(out / "codes.csv", read.coded.codes)
    if len(read.coded.unmapped):
        run.write_csv(out / "unmapped_codes.csv", read.coded.unmapped)
    run.write_csv(out / "quarantine.csv", read.quarantined)
    run.write_csv(out / "left_out.csv", read.left_out)  # every figure says how many
    run.write_csv(out / "odd.csv", pd.concat([read.found.odd, read.turned, read.unusual]))
    return out / "manifest.csv"


def oddities(table: pd.DataFrame) -> pd.DataFrame:
    """Of `Read.table` what is odd, not what merely counts: `what, n`."""
    plain = ("studies", "volumes", "patients")
    counts = table["what"].isin(plain) | table["what"].str.match(
        r"studies, |studies with (finding|5-year|meta)|test studies|.*: column"
    )
    odd = table[~counts & (table["n"] > 0)]
    return odd.groupby("what", sort=False, as_index=False)["n"].sum()


def as_results(table: pd.DataFrame, studies: pd.DataFrame) -> pd.DataFrame:
    """The audit's counts in the common result schema."""
    results = table[["what", "n", "detail"]].rename(columns={"what": "label", "n": "value"})
    return results.assign(
        task="dataset audit",
        metric="count",
        model="",
        split="all",
        low=None,
        high=None,
        n_studies=len(studies),
        n_patients=studies["patient_id"].nunique(),
        n_positive=None,
        status="ok",
        reason="",
    )


def judged(planted: pd.DataFrame | None, table: pd.DataFrame) -> pd.DataFrame | None:
    """Each planted damage with how often the audit found it; None where none was planted."""
    if planted is None:
        return None
    n = table.groupby("what")["n"].sum()
    return planted.assign(found=planted["what"].map(n).fillna(0).astype(int))


def reading(read: Read, damages: pd.DataFrame | None) -> str:
    """What the audit found, in some sentences."""
    unit = (
        "Patients are known"
        if read.found.has_patients
        else "Patients are unknown: studies are the unit"
    )
    said = ""
    if damages is not None:
        hit = damages["found"] >= damages["n"]
        said = f" Of {len(damages)} planted damages the audit found {hit.sum()}"
        said += "." if hit.all() else f"; missed: {', '.join(damages['defect'][~hit])}."
    inside = read.seen["body_fraction"]
    return (
        f"{len(read.studies):,} studies have a report and a volume; {len(read.quarantined)} could not be "
        f"read. {unit}. {read.n_turned} labels contradict their report. The crop keeps "
        f"{inside.mean():.1%} of the body on average, and less than nine tenths in "
        f"{(inside < 0.9).sum()} studies.{said}"
    )
