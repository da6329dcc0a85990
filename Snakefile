# One rule a notebook. Run by `make figures`; by hand: snakemake --cores 2 --config profile=smoke
#
# The notebook, its settings and the package modules that it uses (and what those import) are inputs,
# so editing any of them reruns exactly what depends on it. papermill runs the notebook into a
# partial copy; only a finished one becomes the output, a failed one is kept and explained.
import json
from pathlib import Path

from merlin import run

PROFILE = config.get("profile", "default")
SETTINGS = run.load_profile(PROFILE)
BASE = f"runs/{PROFILE}"
ARMS = list(SETTINGS["arms"])
FIGURES = {
    "00_start_here": ["one_study"],
    "01_cohort": ["cohort", "phantom_ct", "findings_gallery"],
    "02_pretraining": ["pretraining", "qc"],
    "03_embeddings": ["embeddings"],
    "04_zero_shot_findings": ["zero_shot_findings"],
}


def source(name):
    """The notebook and the package files that its result depends on."""
    path = Path("notebooks") / f"{name}.ipynb"
    return [str(path), *(str(m.relative_to(run.ROOT)) for m in run.imported_modules(path)), *DATA]


DATA = [str(p) for p in sorted(Path("merlin").rglob("*")) if p.suffix in (".yaml", ".csv")]


def chosen(name, arm=None):
    """What the profile sets for a notebook: a change of it reruns the rule."""
    values = {k: SETTINGS[k] for k in ("tier", "seed")} | SETTINGS[name]
    return json.dumps(values | (SETTINGS["arms"][arm] or {} if arm else {}), sort_keys=True)


def figures(name, folder=""):
    """Sidecars of a notebook's figures."""
    return [f"{BASE}/figures/{folder}{f}.json" for f in FIGURES[name]]


PAPERMILL = (
    "mkdir -p {BASE}/partial/$(dirname {params.name}) && "
    "( papermill {input[0]} {BASE}/partial/{params.name}.ipynb --cwd notebooks --no-progress-bar "
    "--log-level ERROR --log-output -p profile {PROFILE} {params.extra} "
    "2> >(grep -v 'without encryption' >&2) "
    "|| {{ python -m merlin.run explain {BASE}/partial/{params.name}.ipynb; exit 1; }} ) && "
    "mv {BASE}/partial/{params.name}.ipynb {output[0]}"
)


rule all:
    input:
        [f"{BASE}/{n}.ipynb" for n in FIGURES if n not in ("02_pretraining", "03_embeddings")],
        [f"{BASE}/{n}-{arm}.ipynb" for n in ("02_pretraining", "03_embeddings") for arm in ARMS],
    default_target: True


rule start_here:
    """One study from CT to codes, and what the other notebooks do."""
    input:
        source("00_start_here"),
    output:
        f"{BASE}/00_start_here.ipynb",
        figures("00_start_here"),
    params:
        name="00_start_here",
        extra="",
        settings=chosen("00_start_here"),
    shell:
        PAPERMILL


rule cohort:
    """Make the cohort (or read the one at hand), check it and look at it."""
    input:
        source("01_cohort"),
    output:
        f"{BASE}/01_cohort.ipynb",
        f"{BASE}/cohort/manifest.csv",
        f"{BASE}/results/label_extraction.csv",
        figures("01_cohort"),
    params:
        name="01_cohort",
        extra="",
        settings=chosen("01_cohort"),
    threads: 2
    resources:
        mem_mb=3000,
    shell:
        PAPERMILL


rule pretraining:
    """Train one arm: a papermill run of the same notebook with the arm's settings."""
    input:
        source("02_pretraining"),
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        BASE + "/02_pretraining-{arm}.ipynb",
        BASE + "/pretraining/{arm}/weights.safetensors",
        BASE + "/pretraining/{arm}/log.csv",
    params:
        name=lambda w: f"02_pretraining-{w.arm}",
        extra=lambda w: f"-p arm {w.arm}",
        settings=lambda w: chosen("02_pretraining", w.arm),
    threads: 2
    resources:
        mem_mb=5000,
    shell:
        PAPERMILL


rule embeddings:
    """Encode every volume, report and prompt once with one arm's weights."""
    input:
        source("03_embeddings"),
        weights=BASE + "/pretraining/{arm}/weights.safetensors",
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        BASE + "/03_embeddings-{arm}.ipynb",
        BASE + "/embeddings/{arm}.npz",
    params:
        name=lambda w: f"03_embeddings-{w.arm}",
        extra=lambda w: f"-p arm {w.arm}",
        settings=lambda w: chosen("03_embeddings"),
    threads: 2
    resources:
        mem_mb=4000,
    shell:
        PAPERMILL


rule zero_shot_findings:
    """Score prompts against embeddings: the paper's first evaluation."""
    input:
        source("04_zero_shot_findings"),
        embeddings=[f"{BASE}/embeddings/{arm}.npz" for arm in ARMS],
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        f"{BASE}/04_zero_shot_findings.ipynb",
        f"{BASE}/results/zero_shot_findings.csv",
        f"{BASE}/predictions/zero_shot_findings.parquet",
        figures("04_zero_shot_findings"),
    params:
        name="04_zero_shot_findings",
        extra="",
        settings=chosen("04_zero_shot_findings"),
    shell:
        PAPERMILL
