# One rule a notebook. Run by `make figures`; by hand: snakemake --cores 2 --config profile=smoke
#
# The notebook, its settings and the package modules that it uses (and what those import) are inputs,
# so editing any of them reruns exactly what depends on it. papermill runs the notebook into a
# partial copy; only a finished one becomes the output, a failed one is kept and explained.
import json
import re
import shlex
from pathlib import Path

from merlin import run

PROFILE = config.get("profile", "default")
SETTINGS = run.load_profile(PROFILE)
BASE = f"runs/{PROFILE}"
# What the user brings: a data set in the release's layout, weights, or embeddings of any model.
OWN = {k: str(Path(config[k]).resolve()) for k in ("data", "weights", "embeddings") if config.get(k)}
ARMS = list(SETTINGS["arms"])
SWEEP = run.sweep_arms(SETTINGS)  # small pretrainings, one job each with all seeds
READERS = [a for a in ARMS if a != "ehr"]  # arms whose text tower learnt from reports
SEEDS = SETTINGS["sweep"]["seeds"]
FIGURES = {
    "00_start_here": ["one_study"],
    "01_dataset": ["dataset_audit"],
    "01_cohort": ["cohort", "phantom_ct", "findings_gallery"],
    "02_pretraining": ["pretraining", "qc"],
    "03_embeddings": ["embeddings"],
    "04_zero_shot_findings": ["zero_shot_findings"],
    "05_phenotypes": ["phenotypes"],
    "06_retrieval": ["retrieval"],
    "07_external": ["external"],
    "08_five_year": ["five_year"],
    "09_report_generation": ["report_generation"],
    "10_segmentation": ["segmentation"],
    "11_summary": ["summary"],
    "12_ablations": ["ablations"],
    "13_scaling_laws": ["scaling_laws"],
    "14_intervals": ["intervals"],
    "15_protocol_sensitivity": ["protocol_sensitivity"],
    "16_claims": ["claims"],
    "17_ideas": ["ideas"],
}
GPU = int(SETTINGS["tier"] == "full")  # asked for by a cluster's executor; none on phantoms
RUN = SETTINGS["notebooks"] or list(FIGURES)
BY_ARM = ("02_pretraining", "03_embeddings")  # one run an arm
# What 11_summary reads.
RESULTS = [
    "zero_shot_findings",
    "phenotypes",
    "retrieval",
    "external",
    "five_year",
    "report_generation",
    "segmentation",
]


def source(name):
    """The notebook and the package files that its result depends on."""
    path = Path("notebooks") / f"{name}.ipynb"
    return [str(path), *(str(m.relative_to(run.ROOT)) for m in run.imported_modules(path)), *DATA]


DATA = [str(p) for p in sorted(Path("merlin").rglob("*")) if p.suffix in (".yaml", ".csv")]


def chosen(name, arm=None):
    """What the profile sets for a notebook: a change of it reruns the rule."""
    values = {k: SETTINGS[k] for k in ("tier", "seed")} | SETTINGS[name]
    return json.dumps(values | (arm_settings(arm) if arm else {}), sort_keys=True)


def arm_settings(arm):
    """What an arm, of the sweep or not, changes."""
    return (SETTINGS["arms"] | SWEEP)[arm] or {}


def any_of(names):
    """A pattern that matches these names alone."""
    return "|".join(re.escape(n) for n in names) or "none"


def inflated_from(wildcards):
    """Weights that an arm starts from, if any."""
    start = arm_settings(wildcards.arm).get("init_from")
    return f"{BASE}/pretraining/{start}/weights.safetensors" if start else []


def threads_of(wildcards):
    """Cores of an arm; those of the sweep take one each, so that several go side by side."""
    return (SETTINGS["02_pretraining"] | arm_settings(wildcards.arm))["n_threads"]


def threads_for(name):
    """Cores that a notebook's settings ask for."""
    return SETTINGS[name]["n_threads"]


def figures(name, folder=""):
    """Sidecars of a notebook's figures."""
    return [f"{BASE}/figures/{folder}{f}.json" for f in FIGURES[name]]


# Two kernels that start in the same moment may pick the same port, and one dies: each start holds a
# lock for some seconds, in the background.
PAPERMILL = (
    "mkdir -p {BASE}/partial/$(dirname {params.name}) && "
    "exec 9>{BASE}/partial/.start && flock 9 && {{ sleep 5 & }} && exec 9>&- && "
    "( papermill {input[0]} {BASE}/partial/{params.name}.ipynb --cwd notebooks --no-progress-bar "
    "--log-level ERROR --log-output -p profile {PROFILE} {params.extra} "
    "2> >(grep -v 'without encryption' >&2) "
    "|| {{ python -m merlin.run explain {BASE}/partial/{params.name}.ipynb; exit 1; }} ) && "
    "mv {BASE}/partial/{params.name}.ipynb {output[0]}"
)


rule all:
    input:
        [f"{BASE}/{n}.ipynb" for n in RUN if n not in BY_ARM],
        [f"{BASE}/{n}-{arm}.ipynb" for n in BY_ARM if n in RUN for arm in ARMS],
        [f"{BASE}/02_pretraining-{arm}.ipynb" for arm in SWEEP],
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


if "data" in OWN:

    rule dataset:
        """Read a data set in the release's layout, check it, look at every volume."""
        input:
            source("01_dataset"),
            tables=[str(p) for p in sorted(Path(OWN["data"]).iterdir()) if p.suffix in (".csv", ".xlsx")],
            weights=OWN.get("weights", []),
        output:
            f"{BASE}/01_dataset.ipynb",
            f"{BASE}/cohort/manifest.csv",
            f"{BASE}/cohort/codes.csv",
            f"{BASE}/results/dataset_audit.csv",
            figures("01_dataset"),
        params:
            name="01_dataset",
            extra=lambda w, input, threads: f"-p n_workers {threads} " + " ".join(
                f"-p {k} {shlex.quote(v)}"
                for k, v in {"folder": OWN["data"], "weights": OWN.get("weights")}.items()
                if v
            ),
            settings=chosen("01_dataset"),
        threads: SETTINGS["01_dataset"]["n_workers"]
        resources:
            mem_mb=6000,
        shell:
            PAPERMILL

else:

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

    rule dataset:
        """Judge the audit of the release's layout on a look-alike with planted damages."""
        input:
            source("01_dataset"),
            manifest=f"{BASE}/cohort/manifest.csv",
        output:
            f"{BASE}/01_dataset.ipynb",
            f"{BASE}/results/dataset_audit.csv",
            figures("01_dataset"),
        params:
            name="01_dataset",
            extra="",
            settings=chosen("01_dataset"),
        threads: SETTINGS["01_dataset"]["n_workers"]
        shell:
            PAPERMILL


if "weights" in OWN:

    rule given_weights:
        """Take weights from elsewhere in the place of pretraining's."""
        input:
            OWN["weights"],
        output:
            f"{BASE}/pretraining/main/weights.safetensors",
        shell:
            "python -m merlin.cli weights {input:q} --out {output} --overwrite"

    ruleorder: given_weights > pretraining


if "embeddings" in OWN:

    rule given_embeddings:
        """Take embeddings from elsewhere in the place of 03_embeddings."""
        input:
            OWN["embeddings"],
        output:
            f"{BASE}/embeddings/main.npz",
        shell:
            "cp {input:q} {output}"

    ruleorder: given_embeddings > embeddings


rule pretraining:
    """Train one arm: a papermill run of the same notebook with the arm's settings."""
    input:
        source("02_pretraining"),
        manifest=f"{BASE}/cohort/manifest.csv",
        start=inflated_from,
    output:
        BASE + "/02_pretraining-{arm}.ipynb",
        BASE + "/pretraining/{arm}/weights.safetensors",
        BASE + "/pretraining/{arm}/log.csv",
    wildcard_constraints:
        arm=any_of(ARMS),
    params:
        name=lambda w: f"02_pretraining-{w.arm}",
        extra=lambda w: f"-p arm {w.arm}",
        settings=lambda w: chosen("02_pretraining", w.arm),
    threads: threads_of
    resources:
        mem_mb=5000,
        gpu=GPU,
    shell:
        PAPERMILL


use rule pretraining as sweep with:
    # An arm of the sweep: every seed in one kernel, encoded for the headline scores.
    output:
        BASE + "/02_pretraining-{arm}.ipynb",
        [BASE + f"/pretraining/{{arm}}-{s}/weights.safetensors" for s in SEEDS],
        [BASE + f"/pretraining/{{arm}}-{s}/log.csv" for s in SEEDS],
        [BASE + f"/embeddings/{{arm}}-{s}.npz" for s in SEEDS],
    wildcard_constraints:
        arm=any_of(SWEEP),
    resources:
        mem_mb=3000,


rule embeddings:
    """Encode every volume, report and prompt once with one arm's weights."""
    input:
        source("03_embeddings"),
        weights=BASE + "/pretraining/{arm}/weights.safetensors",
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        BASE + "/03_embeddings-{arm}.ipynb",
        BASE + "/embeddings/{arm}.npz",
    wildcard_constraints:
        arm=any_of(ARMS),
    params:
        name=lambda w: f"03_embeddings-{w.arm}",
        extra=lambda w: f"-p arm {w.arm}",
        settings=lambda w: chosen("03_embeddings"),
    threads: threads_for("03_embeddings")
    resources:
        mem_mb=4000,
        gpu=GPU,
    shell:
        PAPERMILL


rule zero_shot_findings:
    """Score prompts against embeddings: the paper's first evaluation."""
    input:
        source("04_zero_shot_findings"),
        embeddings=[f"{BASE}/embeddings/{arm}.npz" for arm in READERS],
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


rule phenotypes:
    """Read the phecode head on test patients."""
    input:
        source("05_phenotypes"),
        embeddings=[f"{BASE}/embeddings/{arm}.npz" for arm in ARMS],
    output:
        f"{BASE}/05_phenotypes.ipynb",
        f"{BASE}/results/phenotypes.csv",
        f"{BASE}/predictions/phenotypes.parquet",
        figures("05_phenotypes"),
    params:
        name="05_phenotypes",
        extra="",
        settings=chosen("05_phenotypes"),
    shell:
        PAPERMILL


rule retrieval:
    """Find reports from volumes and volumes from reports."""
    input:
        source("06_retrieval"),
        embeddings=[f"{BASE}/embeddings/{arm}.npz" for arm in READERS],
    output:
        f"{BASE}/06_retrieval.ipynb",
        f"{BASE}/results/retrieval.csv",
        f"{BASE}/predictions/retrieval.parquet",
        figures("06_retrieval"),
    params:
        name="06_retrieval",
        extra="",
        settings=chosen("06_retrieval"),
    shell:
        PAPERMILL


rule external:
    """The off-the-shelf tasks at the other sites, and the spine series."""
    input:
        source("07_external"),
        embeddings=f"{BASE}/embeddings/main.npz",
    output:
        f"{BASE}/07_external.ipynb",
        f"{BASE}/results/external.csv",
        f"{BASE}/predictions/external.parquet",
        figures("07_external"),
    params:
        name="07_external",
        extra="",
        settings=chosen("07_external"),
    shell:
        PAPERMILL


rule five_year:
    """Fine-tune on six diseases, from several beginnings and with fewer labels."""
    input:
        source("08_five_year"),
        weights=[f"{BASE}/pretraining/{arm}/weights.safetensors" for arm in ("main", "ehr")],
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        f"{BASE}/08_five_year.ipynb",
        f"{BASE}/results/five_year.csv",
        f"{BASE}/predictions/five_year.parquet",
        figures("08_five_year"),
    params:
        name="08_five_year",
        extra="",
        settings=chosen("08_five_year"),
    threads: threads_for("08_five_year")
    resources:
        mem_mb=4000,
        gpu=GPU,
    shell:
        PAPERMILL


rule report_generation:
    """Train a language model behind the frozen encoder, and judge what it writes."""
    input:
        source("09_report_generation"),
        weights=f"{BASE}/pretraining/main/weights.safetensors",
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        f"{BASE}/09_report_generation.ipynb",
        f"{BASE}/results/report_generation.csv",
        f"{BASE}/predictions/report_generation.parquet",
        figures("09_report_generation"),
    params:
        name="09_report_generation",
        extra="",
        settings=chosen("09_report_generation"),
    threads: threads_for("09_report_generation")
    resources:
        mem_mb=4000,
        gpu=GPU,
    shell:
        PAPERMILL


rule segmentation:
    """Train decoders on few and many label maps, and measure organs on the native grid."""
    input:
        source("10_segmentation"),
        weights=f"{BASE}/pretraining/main/weights.safetensors",
        manifest=f"{BASE}/cohort/manifest.csv",
    output:
        f"{BASE}/10_segmentation.ipynb",
        f"{BASE}/results/segmentation.csv",
        f"{BASE}/predictions/segmentation.parquet",
        figures("10_segmentation"),
    params:
        name="10_segmentation",
        extra="",
        settings=chosen("10_segmentation"),
    threads: threads_for("10_segmentation")
    resources:
        mem_mb=5000,
        gpu=GPU,
    shell:
        PAPERMILL


rule summary:
    """The overview, from the results tables alone."""
    input:
        source("11_summary"),
        results=[f"{BASE}/results/{name}.csv" for name in RESULTS],
    output:
        f"{BASE}/11_summary.ipynb",
        figures("11_summary"),
    params:
        name="11_summary",
        extra="",
        settings=chosen("11_summary"),
    shell:
        PAPERMILL


def sweep_files(sizes):
    """Embeddings of the sweep's runs of one kind: by size (and the reference), or by arm."""
    arms = [f"size_{x:g}" for x in SETTINGS["sweep"]["sizes"]] + ["reference"]
    arms = arms if sizes else list(SETTINGS["sweep"]["arms"])
    return [f"{BASE}/embeddings/{a}-{s}.npz" for a in arms for s in SEEDS]


rule ablations:
    """Design choices one at a time: small pretrainings compared pairwise."""
    input:
        source("12_ablations"),
        embeddings=sweep_files(sizes=False),
    output:
        f"{BASE}/12_ablations.ipynb",
        f"{BASE}/results/ablations.csv",
        f"{BASE}/predictions/ablations.parquet",
        figures("12_ablations"),
    params:
        name="12_ablations",
        extra="",
        settings=chosen("12_ablations"),
    shell:
        PAPERMILL


rule scaling_laws:
    """Scores against training size, with laws and their intervals."""
    input:
        source("13_scaling_laws"),
        embeddings=sweep_files(sizes=True),
    output:
        f"{BASE}/13_scaling_laws.ipynb",
        f"{BASE}/results/scaling_laws.csv",
        f"{BASE}/predictions/scaling_laws.parquet",
        figures("13_scaling_laws"),
    params:
        name="13_scaling_laws",
        extra="",
        settings=chosen("13_scaling_laws"),
    shell:
        PAPERMILL


rule intervals:
    """Coverage of intervals in simulation; needs no other notebook."""
    input:
        source("14_intervals"),
    output:
        f"{BASE}/14_intervals.ipynb",
        f"{BASE}/results/intervals.csv",
        figures("14_intervals"),
    params:
        name="14_intervals",
        extra="",
        settings=chosen("14_intervals"),
    shell:
        PAPERMILL


rule protocol_sensitivity:
    """How far unsaid choices of protocol move two numbers."""
    input:
        source("15_protocol_sensitivity"),
        embeddings=f"{BASE}/embeddings/main.npz",
    output:
        f"{BASE}/15_protocol_sensitivity.ipynb",
        f"{BASE}/results/protocol_sensitivity.csv",
        figures("15_protocol_sensitivity"),
    params:
        name="15_protocol_sensitivity",
        extra="",
        settings=chosen("15_protocol_sensitivity"),
    shell:
        PAPERMILL


rule claims:
    """The paper's claims beside what was run of them."""
    input:
        source("16_claims"),
        "data_manifests/claims.yaml",
        results=[f"{BASE}/results/{name}.csv" for name in (*RESULTS, "ablations", "scaling_laws")],
        summary=figures("11_summary"),
    output:
        f"{BASE}/16_claims.ipynb",
        figures("16_claims"),
    params:
        name="16_claims",
        extra="",
        settings=chosen("16_claims"),
    shell:
        PAPERMILL


rule ideas:
    """Five ideas on toy numbers; needs no other notebook."""
    input:
        source("17_ideas"),
    output:
        f"{BASE}/17_ideas.ipynb",
        figures("17_ideas"),
    params:
        name="17_ideas",
        extra="",
        settings=chosen("17_ideas"),
    shell:
        PAPERMILL
