# One rule a notebook, and one for each network that 08, 09 and 10 read of. Run by `make figures`; by hand:
# snakemake --cores 2 --config profile=smoke
#
# The notebook, its settings and the package modules that it uses (and what those import) are inputs,
# so editing any of them reruns exactly what depends on it. papermill runs the notebook into a
# partial copy; only a finished one becomes the output, a failed one is kept and explained.
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from merlin import jobs, run
from merlin.data.prompts import PromptError, prompt_bank
from merlin.jobs import causes_kept

# papermill and its kernels are this environment's, also in a job on another machine.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
PROFILE = config.get("profile", "default")
SETTINGS = run.load_profile(PROFILE)
BASE = f"runs/{PROFILE}"
# What the user brings (a data set, weights, embeddings) stands in a file: no path of theirs is read as
# YAML, a pattern or a shell's word. A tier that needs them never makes its own instead.
if found := {"data", "weights", "embeddings"} & set(config):
    raise WorkflowError(
        f"{', '.join(sorted(found))}: not by --config. First: python -m merlin.run bring {PROFILE} --data …"
    )
OWN = run.brought(PROFILE)
OWN_FILE = f"{BASE}/{run.OWN}"
ARMS = list(SETTINGS["arms"])
SWEEP = run.sweep_arms(SETTINGS)  # small pretrainings, one job each with all seeds
MAIN = list(run.main_runs(SETTINGS))  # main, main-1, …: the main arm with each of its seeds
READERS = [a for a in ARMS if a != "ehr"] + MAIN[1:]  # whose text tower learnt from reports
SIZES = [int(n) for n in SETTINGS["sweep"]["sizes"]]  # of 13, new phantoms
FIGURES = run.read_yaml(run.NOTEBOOKS / "figures.yaml")  # of each notebook
# What a cluster's executor asks for; on one machine only the cores count.
FULL = SETTINGS["tier"] == "full"
HEAVY = dict(  # rules that train or encode
    gpu=int(FULL),  # none on phantoms
    mem_mb=1000 * SETTINGS["expected"]["memory_gb"] if FULL else 5000,
    # A scheduler kills what takes more: four times the minutes that the whole profile is expected to
    # take, but no more than a week, where it is expected to take less.
    runtime=min(4 * SETTINGS["expected"]["minutes"], max(SETTINGS["expected"]["minutes"], 7 * 1440)),
)
# 04 reads real scans once more.
LIGHT = dict(gpu=0, mem_mb=8000 if FULL else 2000, runtime=HEAVY["runtime"] if FULL else 120)
READING = dict(gpu=0, mem_mb=2000 * SETTINGS["01_dataset"]["n_workers"], runtime=HEAVY["runtime"])
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
    """A notebook, or the module of a task's jobs, and the package's modules and tables it depends on."""
    path = run.NOTEBOOKS / f"{name}.ipynb"
    if name in (*jobs.TASKS, "rivals", "scaling", "causes"):
        path = run.ROOT / "merlin" / "jobs" / f"{name}.py"
    return [str(p.relative_to(run.ROOT)) for p in (path, *run.depends_on(path))]


def own_tables(name):
    """Hashes of the user's map, list of phecodes and prompts: no inputs, whose braces Snakemake would
    read. Prompts are read before anything is run, so that a bad file is not told after hours."""
    own = [run.located(p) for k in ("code_map", "phecodes", "prompts") if (p := SETTINGS[name].get(k))]
    if own_prompts := SETTINGS[name].get("prompts"):
        try:
            prompt_bank(run.located(own_prompts))
        except PromptError as error:
            raise WorkflowError(f"{name}, prompts: {error}")
    if lost := [p for p in own if not Path(p).is_file()]:
        raise WorkflowError(f"{name}: no file at {run.shown(lost[0])}")
    return [run.file_hash(p) for p in own]


def chosen(name, arm=None, without=()):
    """Fingerprint of what the profile sets for a notebook: a change of it reruns the rule."""
    values = {k: SETTINGS[k] for k in ("tier", "seed", "cohort_seed")} | SETTINGS[name]
    values = {k: v for k, v in values.items() if k not in without}
    return run.fingerprint(values | (arm_settings(arm) if arm else {}), own_tables(name))


def arm_settings(arm):
    """What an arm, of the sweep or not, changes; the main arm's is the same with every seed."""
    if arm in MAIN:
        arm = "main"
    return (SETTINGS["arms"] | SWEEP | run.scaling_arms(SETTINGS))[arm] or {}


def any_of(names):
    """A pattern that matches these names alone."""
    return "|".join(re.escape(n) for n in names) or "none"


def inflated_from(wildcards):
    """Weights that an arm starts from, if any."""
    start = arm_settings(wildcards.arm).get("init_from")
    return f"{BASE}/pretraining/{start}/weights.safetensors" if start else []


def threads_of(wildcards):
    """Cores of an arm."""
    return (SETTINGS["02_pretraining"] | arm_settings(wildcards.arm))["n_threads"]


def figures(name, folder=""):
    """Sidecars of a notebook's figures."""
    return [f"{BASE}/figures/{folder}{f}.json" for f in FIGURES[name]]


# Of what a job says while it runs, its progress bars: each job's latest, every 15 seconds at most; and
# notes on its checkpoint. They end with a carriage return; an error comes last, behind the final one.
PROGRESS = r"""shown=-15; while IFS= read -r -d $'\r' line || [ -n "$line" ]; do case "$line" in
*Traceback*) echo "$line"; cat ;;
*'Note: '*) line=${line#*Note: }; echo "$name: ${line%%$'\n'*}" ;;
*'  0%|'*) ;;
*%'|'*) if [ $((SECONDS - shown)) -ge 15 ]; then shown=$SECONDS; echo "$name: ${line%%$'\n'*}"
  if [ -d "${partial:-}" ]; then echo "${line%%$'\n'*}" > "$partial/$name.pace"; fi; fi ;;
esac; done"""
# A profile is data: whatever it holds is quoted (`:q`), and its names reach papermill as text (`-r`).
# Two kernels that start in the same moment may pick the same port, and one dies: each start holds a
# lock for some seconds, in the background.
PAPERMILL = (
    "name={params.name:q} && partial={BASE:q}/partial && mkdir -p \"$partial\" && "
    "exec 9>\"$partial/.start\" && flock 9 && {{ sleep 5 & }} && exec 9>&- && "
    "( papermill {input[0]:q} \"$partial/$name.ipynb\" --cwd notebooks --no-progress-bar "
    "--log-level WARNING --log-output -r profile {PROFILE:q} {params.extra:q} 2> >({PROGRESS} >&2) "
    "|| {{ python -m merlin.run explain \"$partial/$name.ipynb\"; exit 1; }} ) && "
    "python -m merlin.run keep \"$partial/$name.ipynb\" {output[0]:q}"
)

JOB = (
    "name={params.name:q}; python -m merlin.jobs.{params.task} {PROFILE:q} {params.job:q} "
    "2> >({PROGRESS} >&2)"
)


EMBEDDED, RESULT = BASE + "/embeddings/{}.npz", BASE + "/results/{}.csv"
MANIFEST, WEIGHTS = f"{BASE}/cohort/manifest.csv", BASE + "/pretraining/{}/weights.safetensors"
POOL = ("volumes.npy", "studies.csv", "codes.csv")  # of 13's new phantoms


rule all:
    input:
        [f"{BASE}/{n}.ipynb" for n in RUN if n not in BY_ARM],
        [f"{BASE}/{n}-{arm}.ipynb" for n in BY_ARM if n in RUN for arm in ARMS + MAIN[1:]],
        [f"{BASE}/02_pretraining-{arm}.ipynb" for arm in SWEEP],
    default_target: True


if "data" in OWN:

    rule dataset:
        """Read a data set in the release's layout, check it, look at every volume."""
        input:
            source("01_dataset"),
            own=OWN_FILE,
        output:
            f"{BASE}/01_dataset.ipynb",
            f"{BASE}/cohort/manifest.csv",
            f"{BASE}/cohort/codes.csv",
            f"{BASE}/results/dataset_audit.csv",
            figures("01_dataset"),
        params:
            name="01_dataset",
            extra=lambda w, threads: ["-p", "n_workers", threads],
            settings=chosen("01_dataset"),
            map=lambda w: own_tables("03_embeddings"),
        threads: SETTINGS["01_dataset"]["n_workers"]
        priority: 6  # all wait for it
        resources:
            **READING,
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
            f"{BASE}/cohort/codes.csv",
            f"{BASE}/results/label_extraction.csv",
            figures("01_cohort"),
        params:
            name="01_cohort",
            extra=[],
            settings=chosen("01_cohort"),
        threads: 2
        priority: 6  # all wait for it
        resources:
            **LIGHT,
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
            extra=[],
            settings=chosen("01_dataset"),
        threads: SETTINGS["01_dataset"]["n_workers"]
        priority: 3
        resources:
            **LIGHT,
        shell:
            PAPERMILL


if "weights" in OWN:

    rule given_weights:
        """Take weights from elsewhere in the place of pretraining's."""
        input:
            OWN_FILE,
        output:
            f"{BASE}/pretraining/main/weights.safetensors",
        resources:
            **LIGHT,
        shell:
            "python -m merlin.run take weights {PROFILE:q} {output:q}"

    ruleorder: given_weights > pretraining


if "embeddings" in OWN:

    rule given_embeddings:
        """Take embeddings from elsewhere in the place of 03_embeddings."""
        input:
            OWN_FILE,
        output:
            f"{BASE}/embeddings/main.npz",
        resources:
            **LIGHT,
        shell:
            "python -m merlin.run take embeddings {PROFILE:q} {output:q}"

    ruleorder: given_embeddings > embeddings


rule pretraining:
    """Train an arm in a papermill run; the main one, the longest, first with all its seeds."""
    input:
        source("02_pretraining"),
        manifest=f"{BASE}/cohort/manifest.csv",
        codes=f"{BASE}/cohort/codes.csv",
        start=inflated_from,
    output:
        BASE + "/02_pretraining-{arm}.ipynb",
        BASE + "/pretraining/{arm}/weights.safetensors",
        BASE + "/pretraining/{arm}/log.csv",
    wildcard_constraints:
        arm=any_of(MAIN),
    params:
        name=lambda w: f"02_pretraining-{w.arm}",
        extra=lambda w: ["-r", "arm", w.arm],
        settings=lambda w: chosen("02_pretraining", w.arm),
    threads: threads_of
    priority: 5
    resources:
        **HEAVY,
    shell:
        PAPERMILL


use rule pretraining as other_arms with:
    # The same notebook with another arm's settings.
    wildcard_constraints:
        arm=any_of(a for a in ARMS if a != "main"),
    priority: 4


def runs_of(arms):
    """Embeddings of small pretrainings, each with every seed of its own."""
    return [f"{BASE}/embeddings/{a}-{s}.npz" for a in arms for s in run.sweep_seeds(SETTINGS, a)]


for small, said in SWEEP.items():  # an arm of the sweep: every seed in one kernel, encoded for the headline scores

    rule:
        name:
            f"sweep_{small}"
        input:
            source("02_pretraining"),
            manifest=f"{BASE}/cohort/manifest.csv",
            codes=f"{BASE}/cohort/codes.csv",
            start=WEIGHTS.format(said["init_from"]) if said.get("init_from") else [],
        output:
            f"{BASE}/02_pretraining-{small}.ipynb",
            [f"{BASE}/pretraining/{small}-{s}/weights.safetensors" for s in run.sweep_seeds(SETTINGS, small)],
            [f"{BASE}/pretraining/{small}-{s}/log.csv" for s in run.sweep_seeds(SETTINGS, small)],
            runs_of([small]),
        params:
            name=f"02_pretraining-{small}",
            extra=["-r", "arm", small],
            settings=chosen("02_pretraining", small),
        threads: SETTINGS["02_pretraining"]["n_threads"]
        priority: 0
        resources:
            **HEAVY,
        shell:
            PAPERMILL


if SIZES:

    rule pool:
        """New phantoms on the sweep's grid, as many as the largest size of 13 needs."""
        input:
            source("scaling"),
        output:
            temp([f"{BASE}/pool/{f}" for f in POOL]),
        params:
            name="scaling-pool",
            task="scaling",
            job="pool",
            settings=chosen("01_cohort") + chosen("02_pretraining", f"once_{max(SIZES)}"),
        threads: SETTINGS["01_cohort"]["n_workers"]
        priority: 0
        resources:
            **LIGHT,
        shell:
            JOB


for together in run.scaling_jobs(SETTINGS):

    rule:
        name:
            f"scaling_{together[0]}"
        input:
            source("scaling"),
            manifest=f"{BASE}/cohort/manifest.csv",
            codes=f"{BASE}/cohort/codes.csv",
            pool=[f"{BASE}/pool/{f}" for f in POOL],
        output:
            runs_of(run.scaling_names(SETTINGS, together)),
        params:
            name=f"scaling-{together[0]}",
            task="scaling",
            job=[str(size) for size in together],
            settings=[chosen("02_pretraining", name) for name in run.scaling_names(SETTINGS, together)],
        threads: SETTINGS["02_pretraining"]["n_threads"]
        priority: 0
        resources:
            **HEAVY,
        shell:
            JOB


rule embeddings:
    """Encode every volume, report and prompt once with one arm's weights."""
    input:
        source("03_embeddings"),
        weights=BASE + "/pretraining/{arm}/weights.safetensors",
        manifest=f"{BASE}/cohort/manifest.csv",
        codes=f"{BASE}/cohort/codes.csv",
    output:
        BASE + "/03_embeddings-{arm}.ipynb",
        BASE + "/embeddings/{arm}.npz",
    wildcard_constraints:
        arm=any_of(ARMS + MAIN[1:]),
    params:
        name=lambda w: f"03_embeddings-{w.arm}",
        extra=lambda w: ["-r", "arm", w.arm],
        settings=lambda w: chosen("03_embeddings"),
    threads: SETTINGS["03_embeddings"]["n_threads"]
    priority: 4
    resources:
        **HEAVY,
    shell:
        PAPERMILL


# What rivals are given (merlin.jobs.rivals). Given embeddings come without a cohort; a real cohort's
# training studies are encoded for a probe by hand alone, and its patients' traits are not known.
GIVEN = BASE + "/rivals/{}.parquet"
RIVALS = [] if "embeddings" in OWN else [GIVEN.format("measured")]
RIVALS += [GIVEN.format(k) for k in ("traits", "features-main")] if SETTINGS["tier"] == "phantom" else []


def jobs_of(task):
    """Jobs of a task, each with the last table that it leaves.

    Of those before it the job itself knows what is to be made: a failed job's output is removed.
    """
    common = {k: SETTINGS[k] for k in run.COMMON}
    made = jobs.tables(task, SimpleNamespace(**common, **SETTINGS[jobs.TASKS[task].notebook]))
    return {job: f"{BASE}/{task}/{names[-1]}.parquet" for job, names in made.items()}


# Of 18: phantoms with one thing changed, as the main arm sees them.
CAUSES = [f"{BASE}/causes/{table}.parquet" for table in causes_kept.TABLES]


# What 19_subgroups reads of those notebooks that a profile runs.
PREDICTED = BASE + "/predictions/{}.parquet"
PREDICTIONS = {
    n: n[3:] for n in ("04_zero_shot_findings", "05_phenotypes", "07_external", "08_five_year")
}
# What each of the other notebooks reads, beside itself and the code that it imports.
READS = {
    "00_start_here": [],
    "04_zero_shot_findings": [*(EMBEDDED.format(a) for a in READERS), *RIVALS],
    "05_phenotypes": [*(EMBEDDED.format(a) for a in ARMS + MAIN[1:]), *RIVALS],
    "06_retrieval": [EMBEDDED.format(a) for a in READERS],
    "07_external": [EMBEDDED.format(a) for a in MAIN],
    "08_five_year": [
        *(MANIFEST, *jobs_of("five_year").values()),
        *(GIVEN.format(k) for k in ("measured", "traits")),
        *(GIVEN.format(f"features-{a}") for a in (*(["ehr"] if "ehr" in ARMS else []), *MAIN)),
    ],
    "09_report_generation": [MANIFEST, *jobs_of("report_generation").values()],
    "10_segmentation": [MANIFEST, *jobs_of("segmentation").values(), GIVEN.format("measured")],
    "11_summary": [RESULT.format(r) for r in RESULTS],
    "12_ablations": ["data_manifests/claims.yaml", *runs_of(SWEEP)],
    "13_scaling_laws": runs_of(run.scaling_arms(SETTINGS)),
    "14_intervals": [],
    "15_protocol_sensitivity": [EMBEDDED.format("main")],
    "16_claims": [
        "data_manifests/claims.yaml",
        *(RESULT.format(r) for r in (*RESULTS, "ablations", "scaling_laws")),
        *figures("11_summary"),
    ],
    "17_ideas": [],
    "18_causes": [MANIFEST, EMBEDDED.format("main"), *CAUSES],
    "19_subgroups": [
        *(PREDICTED.format(p) for n, p in PREDICTIONS.items() if n in RUN),
        *([MANIFEST, GIVEN.format("traits")] if SETTINGS["tier"] == "phantom" else []),
    ],
    "20_encoders": [
        *(MANIFEST, GIVEN.format("measured"), *(EMBEDDED.format(a) for a in READERS)),
        *(GIVEN.format(f"features-{a}") for a in ARMS + MAIN[1:]),
    ],
}
TABLES = ("results/{}.csv", "predictions/{}.parquet")  # what most of them leave, beside figures
LEAVES = {"00": (), "11": (), "16": (), "17": ()} | dict.fromkeys(("14", "15", "18", "19", "20"), TABLES[:1])


rule given_to_rivals:
    """Organs measured, latent traits of phantoms, or features of an arm's frozen encoder."""
    input:
        source("rivals"),
        MANIFEST,
        lambda w: WEIGHTS.format(w.kind.removeprefix("features-")) if "-" in w.kind else [],
    output:
        update(GIVEN.format("{kind}")),  # not removed first: what follows from the same things is kept
    wildcard_constraints:
        kind="measured|traits|features-.*",
    params:
        name=lambda w: f"rivals-{w.kind}",
        task="rivals",
        job=lambda w: w.kind,
    priority: 4
    resources:
        **HEAVY,
    shell:
        JOB


rule drawn_again:
    """Test patients drawn with and without each finding, scored by the main arm, with its gradients."""
    input:
        source("causes"),
        MANIFEST,
        WEIGHTS.format("main"),
    output:
        update(CAUSES),  # not removed first: what follows from the same things is kept
    params:
        name="causes-main",
        task="causes",
        job="main",
        settings=chosen("18_causes", without=causes_kept.LATER),
    threads: SETTINGS["18_causes"]["n_threads"]
    priority: 1
    resources:
        **HEAVY,
    shell:
        JOB


for task, about in jobs.TASKS.items():
    for job, made in jobs_of(task).items():

        rule:
            name:
                f"{task}_{job}"
            input:
                source(task),
                MANIFEST,
                [WEIGHTS.format(arm) for arm in jobs.arms(task, PROFILE, job)],
                [jobs_of(task)[first] for first, seed in [jobs.seed_of(job)] if seed],  # whose choices it takes
            output:
                update(made),  # not removed first: what follows from the same things is kept
            params:
                name=f"{task}-{job}",
                task=task,
                job=job,
                settings=chosen(about.notebook, without=about.later),
            threads: SETTINGS[about.notebook]["n_threads"]
            priority: 4  # minutes before seconds
            resources:
                **HEAVY,
            shell:
                JOB


for notebook, reads in READS.items():

    rule:
        name:
            notebook[3:]
        input:
            source(notebook),
            reads,
        output:
            f"{BASE}/{notebook}.ipynb",
            [f"{BASE}/{t.format(notebook[3:])}" for t in LEAVES.get(notebook[:2], TABLES)],
            figures(notebook),
        params:
            name=notebook,
            extra=[],
            settings=chosen(notebook),
        priority: 3 if notebook < "12" else 1  # the task families before all that the sweep is for
        resources:
            **LIGHT,
        shell:
            PAPERMILL
