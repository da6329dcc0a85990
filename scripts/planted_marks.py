"""Does an identity leave? `make marks`: marks everywhere that we read, and a search in every byte written.

Distinct marks stand in all text elements of DICOM headers (private ones, sequences, dates and UIDs too),
in names of folders and files, cells and properties of tables, NIfTI headers, headers of embeddings and
weights, and in the environment. Then run `merlin hospital`, `findings`, `embed`, `release` and `evaluate`, the
full tier on what `hospital` made, and the site of that run. Archives, pictures, PDFs and notebooks are
searched unpacked, in UTF-8 and UTF-16, whatever the case.

By design a path is found in `own.json` (where this machine's files lie), in `.snakemake/` and as the target
of a link alone; given weights are copied as they are; of scans, weights and embeddings the file's name
may stand in results. What a call prints is searched too, but may name the paths it was given.
"""

import argparse
import base64
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow.parquet
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "ingest"))
from ct_files import ct_slice, small_body  # noqa: E402

UID = "1.2.826.0.1.3680043.8.498.7741"
KINDS = {
    "hd": "header", "da": "date of a header", "ui": "UID", "pa": "path", "na": "name of a file",
    "ce": "cell", "en": "environment", "ni": "NIfTI header", "xl": "property of a workbook",
    "np": "embeddings header", "we": "weights header",
}  # fmt: skip
PLAIN = re.compile(rb"zq([a-z]{2})([a-p]{4})xv")
HIDDEN = re.compile(
    rb"(?<!\d)(19\d\d)[-/. ]?(0[1-9]|1[0-2])[-/. ]?([0-2]\d)(?!\d)|" + UID.encode() + rb"\.\d+"
)


class Marks:
    """Marks planted so far: mark → kind and place."""

    def __init__(self):
        self.places = {}

    def new(self, kind, place):
        """A word of letters, a date (`da`) or a UID (`ui`) that stands nowhere else."""
        n = len(self.places)
        if kind == "da":
            mark = f"19{n // 336 % 45:02}{n // 28 % 12 + 1:02}{n % 28 + 1:02}"
        elif kind == "ui":
            mark = f"{UID}.{n}"
        else:
            mark = (
                f"Zq{kind}" + "".join("abcdefghijklmnop"[n >> k & 15] for k in (12, 8, 4, 0)) + "xv"
            )
        self.places[mark.lower()] = KINDS[kind], place
        return mark

    def in_bytes(self, blob):
        """Marks in bytes of any encoding."""
        found = set()
        for text in {blob.lower(), blob.replace(b"\0", b"").lower()}:
            said = {m[0].decode() for m in PLAIN.finditer(text)}
            said |= {(m[1] + m[2] + m[3] if m[1] else m[0]).decode() for m in HIDDEN.finditer(text)}
            found |= said & self.places.keys()
        return found


# What a header means to its reader, and what tells studies apart: planted as other values, or not at all.
MEANT = {
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "Modality", "PatientSex", "ConversionType",
    "BurnedInAnnotation", "RecognizableVisualFeatures", "PhotometricInterpretation", "RescaleType",
    "PatientAge", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "AccessionNumber",
    "TransferSyntaxUID", "StudyDate",
}  # fmt: skip
TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT")


def plant_header(ds, marks, tags):
    """A mark in each of these elements that can hold one, and in private ones and sequences of all kinds."""
    for tag in tags:
        vr, keyword = DicomDictionary[tag][0], DicomDictionary[tag][4]
        if keyword in MEANT or not keyword:
            continue
        ds.add_new(tag, vr, value_of(marks, vr, keyword)) if vr in (
            *TEXT,
            "DA",
            "DT",
            "UI",
        ) else None
    block = ds.private_block(0x0099, marks.new("hd", "private creator"), create=True)
    for place, vr in enumerate((*TEXT, "DA", "UI"), 1):
        block.add_new(place, vr, value_of(marks, vr, f"private {vr}"))
    for sequence, inside in (
        ("OtherPatientIDsSequence", "PatientID"), ("RequestAttributesSequence", "RequestingPhysician"),
        ("ReferencedStudySequence", "ReferencedSOPInstanceUID"), ("ProcedureCodeSequence", "CodeMeaning"),
        ("ReferencedPatientSequence", "PatientName"), ("RequestAttributesSequence", "RequestedProcedureID"),
    ):  # fmt: skip
        item = Dataset()
        vr = pydicom.datadict.dictionary_VR(inside)
        setattr(item, inside, value_of(marks, vr, f"{sequence}, {inside}"))
        deep = Dataset()
        deep.ModifiedAttributesSequence = [item]
        ds.OriginalAttributesSequence = [*ds.get("OriginalAttributesSequence", []), deep]
        setattr(ds, sequence, [item])


def value_of(marks, vr, place):
    """One mark, or the parts of a name each of its own, in the form of a VR."""
    if vr in ("DA", "DT"):
        return marks.new("da", place)
    if vr == "UI":
        return marks.new("ui", place)
    if vr == "PN":
        return "^".join(marks.new("hd", f"{place}, part {k}") for k in range(3))
    word = marks.new("hd", place)
    return word.upper() if vr == "CS" else word.encode() if vr == "UN" else word


TAGS = [t for t in DicomDictionary if t >> 16 in range(8, 0x5000, 2) and t >> 16 != 0x28]
PATIENTS = [t for t in TAGS if t >> 16 in (0x08, 0x10, 0x32, 0x38, 0x40)]


def write_study(folder, marks, number, *, odd=()):
    """A series of 24 slices; the first slice of the first study holds every element of the dictionary."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    study, series = marks.new("ui", "study"), marks.new("ui", "series")
    mrn, accession = (marks.new("hd", t) + f"{number:05}" for t in ("PatientID", "AccessionNumber"))
    born, seen = marks.new("da", "birth"), f"{1952 + 2 * (number % 30)}0317"
    marks.places[seen] = KINDS["da"], "StudyDate"
    name = value_of(marks, "PN", "PatientName")
    file, said = marks.new("pa", "file of a scan"), {k: marks.new("hd", k).upper() for k in odd}
    tags = TAGS if number == 0 else PATIENTS
    for k in range(24):
        doctor = value_of(marks, "PN", "ReferringPhysicianName")
        ds = ct_slice(
            k, rng, marks.new("ui", "image"), preamble=marks.new("hd", "preamble").encode().ljust(128),
            plant=None if k else lambda ds: plant_header(ds, marks, tags),
            StudyInstanceUID=study, SeriesInstanceUID=series, SeriesNumber=1, PatientID=mrn,
            PatientName=name, PatientBirthDate=born, PatientSex="F", AccessionNumber=accession,
            StudyDate=seen, Manufacturer=marks.new("hd", "Manufacturer"), ReferringPhysicianName=doctor,
            ConvolutionKernel=marks.new("hd", "ConvolutionKernel"), **said,
        )  # fmt: skip
        ds.save_as(folder / f"{file}{k:02}.dcm", enforce_file_format=True)
    return dict(mrn=mrn, accession=accession, name=name, born=born, doctor=doctor)


SAID = (("No ascites. ", "There is ascites. "), ("No gallstones. ", "Gallstones are seen. "),
        ("No pleural effusion. ", "There is a pleural effusion. "))  # fmt: skip


def write_hospital(folder, marks, n):
    """A DICOM tree, its reports and its codes."""
    tree = folder / marks.new("pa", "tree")
    people = [write_study(tree / marks.new("pa", "folder of a study"), marks, i) for i in range(n)]
    for i, odd in enumerate((["Modality"], ["RescaleType"], ["ConversionType"]), n):
        people.append(write_study(tree / marks.new("pa", "refused"), marks, i, odd=odd))
    (tree / f"{marks.new('pa', 'no DICOM')}.dcm").write_bytes(b"")
    rows, codes = [], []
    for i, p in enumerate(people):
        family, given, _ = p["name"].split("^")
        text = (
            f"Mrs. {family}, {given} (MRN {p['mrn']}, acc. {p['accession']}), born {p['born'][:4]}-"
        )
        text += f"{p['born'][4:6]}-{p['born'][6:]}. Asked for by Dr. {p['doctor'].split('^')[0]}. "
        reader = marks.new("ce", "reader")
        text += "".join(s[i >> k & 1] for k, s in enumerate(SAID)) + f"Read by {reader}."
        rows.append(
            dict(accession=p["accession"], findings=text, impression=f"{SAID[0][i & 1]}{given} knows.",
                 patient_name=f"{family}, {given}", radiologist=reader,
                 remark=marks.new("ce", "column that is not ours"))
        )  # fmt: skip
        codes.append(
            dict(patient_id=p["mrn"], date="2001-05-05", vocabulary="ICD10CM", code="K80.2",
                 accession=p["accession"], doctor=marks.new("ce", "doctor"))
        )  # fmt: skip
        codes.append(codes[-1] | dict(code=marks.new("ce", "code"), vocabulary="ICD10CM"))
    reports, table = (
        folder / f"{marks.new('pa', 'reports')}.xlsx",
        folder / f"{marks.new('pa', 'codes')}.csv",
    )
    write_workbook(reports, marks, pd.DataFrame(rows))
    pd.DataFrame(codes).to_csv(table, index=False)
    return tree, reports, table


def write_workbook(path, marks, frame):
    """A workbook with marks in its properties and the name of its sheet."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = marks.new("xl", "sheet")
    for row in [list(frame), *frame.itertuples(index=False)]:
        sheet.append([None if pd.isna(v) else v for v in row])
    for what in (
        "creator",
        "lastModifiedBy",
        "title",
        "subject",
        "keywords",
        "category",
        "description",
    ):
        setattr(book.properties, what, marks.new("xl", what))
    book.save(path)


def write_nifti(path, marks):
    """A scan with marks in every text of its header and an extension."""
    hu = small_body(np.random.default_rng(0), 24)
    image = nib.Nifti1Image(hu, np.diag([-10.0, -10.0, 5.0, 1.0]))
    image.header.set_xyzt_units("mm")
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = marks.new("ni", field).encode()
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension("comment", marks.new("ni", "extension").encode())
    )
    nib.save(image, path)


def write_weights(path, marks):
    """Small weights, whose facts hold paths and marks as a stranger's might."""
    import torch

    from merlin.model.i3d import ImageConfig
    from merlin.model.text import TextConfig
    from merlin.model.two_towers import TowersConfig, TwoTowers
    from merlin.training.checkpoint import save_weights

    torch.manual_seed(0)
    grid = dict(spacing_mm=(9.0, 9.0, 12.0), shape=(40, 32, 40), hu_window=(-1000, 1000))
    image = ImageConfig(depth=14, width=8, n_phecodes=4)
    model = TwoTowers(TowersConfig(image, TextConfig(kind="small", hidden_size=32), grid["shape"]))
    facts = dict(
        grid=grid, phecodes=["250", "401", "411", "574"], model="main", tier="full", profile="full"
    )
    facts |= dict(seed=0, author=marks.new("we", "author"), parameters={"weights": str(path)})
    save_weights(path, model, facts)
    return path


def write_release(folder, marks):
    """Phantoms in the release's layout, with columns that nobody asks for."""
    from merlin.data import manifest
    from merlin.phantom import build
    from merlin.readers import look_alike, release

    table, _, _ = build.build_cohort(
        build.plan("internal", 8, seed=5, matrix=48, folder=folder / "c"), n_workers=0
    )
    table.to_csv(folder / "c" / "manifest.csv", index=False)
    data = folder / marks.new("pa", "release")
    look_alike.write_release(manifest.load_manifest(folder / "c" / "manifest.csv"), data)
    reports = pd.read_excel(data / release.REPORTS)
    write_workbook(
        data / release.REPORTS, marks, reports.assign(reader=marks.new("ce", "column beside"))
    )
    about = pd.read_csv(data / release.METADATA)
    about.assign(doctor=marks.new("ce", "column beside")).to_csv(
        data / release.METADATA, index=False
    )
    return data


def unpacked(path):
    """Every byte of a file, as it is and with what is packed in it."""
    raw = path.read_bytes()
    yield raw
    yield from inflated(path.suffix, raw)


def inflated(suffix, raw):
    """What is packed in bytes of a kind of file."""
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    elif raw[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for member in archive.infolist():
                inside = archive.read(member)
                yield member.filename.encode() + inside
                yield from inflated(Path(member.filename).suffix, inside)
    elif suffix == ".parquet":
        file = pyarrow.parquet.ParquetFile(io.BytesIO(raw))
        yield str(file.metadata.metadata).encode() + str(file.schema).encode()
        yield file.read().to_pandas().to_csv().encode()
    elif raw[:4] == b"\x89PNG":
        for kind in (b"zTXt", b"iTXt"):
            for part in raw.split(kind)[1:]:
                yield from deflated(part)
    elif raw[:4] == b"%PDF":
        for part in raw.split(b"stream")[1:]:
            yield from deflated(part.lstrip(b"\r\n"))
    if suffix in (".ipynb", ".html", ".svg", ".js"):
        for packed in re.findall(rb"[A-Za-z0-9+/\\n]{200,}={0,2}", raw):
            whole = base64.b64decode(packed.replace(b"\\n", b"")[: len(packed) // 4 * 4] + b"==")
            yield whole
            yield from inflated("", whole)


def deflated(part):
    """The first zlib stream in bytes."""
    for start in (m.start() for m in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", part[:400])):
        try:
            yield zlib.decompressobj().decompress(part[start:])
            return
        except zlib.error:
            continue


MACHINE = ("path", "environment")  # of Snakemake's own logs
ALLOWED = {
    "own.json": ("path",),
    "weights.safetensors": ("weights header",),
}  # the latter is copied as given


def search(folder, marks):
    """Marks in names and bytes of all files of a folder.

    Returns
    -------
    found : list of (str, str, str, str)
        File, kind, place, mark.
    n_files, n_bytes, n_links : int
    allowed : Counter
        Files that may hold paths and did, by name.
    """
    found, allowed, n_files, n_bytes, n_links = [], Counter(), 0, 0, 0
    for top, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f != "__pycache__"]
        for name in (*files, *folders):
            path = Path(top) / name
            where = str(path.relative_to(folder))
            said = marks.in_bytes(name.encode())
            if path.is_symlink():
                n_links += bool(marks.in_bytes(str(path.readlink()).encode()))
            elif name in files:
                n_files += 1
                for blob in unpacked(path):
                    n_bytes += len(blob)
                    said |= marks.in_bytes(blob)
            named = {m for m in said if marks.places[m][0] == "name of a file"}
            allowed["names of files"] += len(named)
            said -= named
            if said and (name in ALLOWED or ".snakemake" in where):
                allowed[name if name in ALLOWED else ".snakemake/"] += 1
                said = {m for m in said if marks.places[m][0] not in ALLOWED.get(name, MACHINE)}
            found += [(where, *marks.places[m], m) for m in sorted(said)]
    return found, n_files, n_bytes, n_links, allowed


def environment(marks, home):
    """The environment with marks in what tells a user, a machine, a job and a secret."""
    names = ("USER", "LOGNAME", "HOSTNAME", "SLURM_JOB_NAME", "SLURM_JOB_USER", "SLURM_SUBMIT_DIR",
             "WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MAIL", "DISPLAY", "SSH_CLIENT")  # fmt: skip
    home.mkdir()
    marked = {n: marks.new("en", n) for n in names}
    return (
        os.environ
        | marked
        | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    )


THREE = "hospital, findings and embed"
# In one interpreter: most of their time is the import of torch.
ONE_AFTER_ANOTHER = "import json, sys; from merlin import cli; sys.exit(max(map(cli.main, json.loads(sys.argv[1]))))"


def run_all(place, n=24, *, short=False):
    """Plant, run, search; returns the number of finds that should not be."""
    marks, began = Marks(), time.time()
    home = place / marks.new("pa", "home")
    root, given = place / "companion", home / marks.new("pa", "folder of what is given")
    env = environment(marks, home)
    given.mkdir()
    out = place / "out"  # all that is written, with what is printed
    (out / "said").mkdir(parents=True)
    with pydicom.config.disable_value_validation():
        tree, reports, codes = write_hospital(given, marks, n)
    write_nifti(given / f"{(scan := marks.new('na', 'scan'))}.nii.gz", marks)
    weights = write_weights(given / f"{marks.new('na', 'weights')}.safetensors", marks)
    cli = [sys.executable, "-m", "merlin.cli"]
    dicom = given / marks.new("na", "DICOM folder")
    shutil.copytree(sorted(p for p in tree.iterdir() if p.is_dir())[0], dicom)

    def call(name, *words, cwd=ROOT, path=ROOT):
        done = subprocess.run(
            [*map(str, words)],
            cwd=cwd,
            env=env | {"PYTHONPATH": str(path)},
            capture_output=True,
            check=False,
        )
        said = done.stdout + done.stderr
        for mark in [
            m for m, (kind, _) in marks.places.items() if kind in ("path", "name of a file")
        ]:
            said = re.sub(mark.encode(), b"(a path)", said, flags=re.IGNORECASE)
        (out / "said" / f"{name}.txt").write_bytes(said)
        sys.stdout.write(f"{name}: exit code {done.returncode}\n")
        # Some of a hospital's studies and of the scans are to be refused.
        is_wrong = done.returncode > (name == THREE)
        if is_wrong:
            sys.stdout.write(said.decode(errors="replace")[-3000:])
        return is_wrong

    cohort = out / "cohort"
    (given / "secret.txt").write_text("0123456789abcdef" * 4)  # one key: one split in every run
    scans = (given / f"{scan}.nii.gz", dicom)
    commands = (
        ("hospital", tree, "--reports", reports, "--codes", codes, "--redact",
         "--key", given / "secret.txt", "--out", cohort),
        ("findings", *scans, "--weights", weights, "--out", out / "findings"),
        ("embed", *scans, "--weights", weights, "--out", out / "embed.npz"),
    )  # fmt: skip
    words = json.dumps([[str(word) for word in command] for command in commands])
    codes_of = [call(THREE, sys.executable, "-c", ONE_AFTER_ANOTHER, words)]
    codes_of += [not (out / p).exists() for p in ("cohort/manifest.csv", "findings", "embed.npz")]
    if not short:
        data = write_release(given, marks)
        codes_of.append(call("release", *cli, "release", data, "--out", out / "release"))
        for name in ("merlin", "notebooks", "docs", "data_manifests", "figures"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("Snakefile", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
            shutil.copy(ROOT / file, root)
        profiles = root / "notebooks" / "profiles"
        text = (profiles / "full.yaml").read_text().replace("n_workers: 16", "n_workers: 1")
        text = text.replace(", 05_phenotypes, 06_retrieval", "")
        codes_map = "03_embeddings:\n  code_map: merlin/data/tables/phantom_icd.csv\n"
        (profiles / "marks.yaml").write_text(text.replace("03_embeddings:\n", codes_map))
        command = [
            sys.executable,
            "-m",
            "merlin.run",
            "figures",
            "marks",
            "--data",
            cohort,
            "--weights",
            weights,
        ]
        codes_of.append(call("figures", *command, cwd=root, path=root))
        site = [sys.executable, "-m", "merlin.site.build", "marks", out / "site"]
        codes_of.append(call("site", *site, cwd=root, path=root))
        (root / "runs").rename(out / "runs")
        shutil.move(root / ".snakemake", out)
        alien = plant_embeddings(out / "runs" / "marks" / "embeddings" / "main.npz", given, marks)
        codes_of.append(
            call(
                "evaluate", *cli, "evaluate", alien, "--out", out / "evaluate", "--resamples", "10"
            )
        )
    found, n_files, n_bytes, n_links, allowed = search(out, marks)
    planted = Counter(kind for kind, _ in marks.places.values())
    sys.stdout.write(
        f"{len(marks.places):,} marks planted ({', '.join(f'{n:,} {k}' for k, n in planted.items())}).\n"
        f"{n_files:,} files and {n_bytes:,} bytes searched, unpacked, in {time.time() - began:.0f} s; paths by "
        f"design: {dict(allowed)}, {n_links} links.\n{len(found)} marks found that should not be: "
        f"{dict(Counter(kind for _, kind, *_ in found))}\n"
    )
    for row in found[:60]:
        sys.stdout.write(f"  {': '.join(row)}\n")
    return len(found) + sum(codes_of)


def plant_embeddings(path, folder, marks):
    """A run's embeddings with a stranger's header."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"])) | {
        "author": marks.new("np", "author"),
        "folder": str(folder),
    }
    target = folder / f"{marks.new('na', 'embeddings')}.npz"
    np.savez(
        target,
        **arrays | {"meta": np.array(json.dumps(meta))},
        beside=np.array([marks.new("np", "array")]),
    )
    return target


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="hospital, findings and embed alone")
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--keep", help="a new folder for all of it; default: one that goes")
    args = parser.parse_args(argv)
    if args.keep:
        Path(args.keep).mkdir()
        return int(run_all(Path(args.keep), args.studies, short=args.short) > 0)
    with tempfile.TemporaryDirectory() as place:
        return int(run_all(Path(place), args.studies, short=args.short) > 0)


if __name__ == "__main__":
    sys.exit(main())
