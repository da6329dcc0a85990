"""Profiles, files, provenance and the workflow: what every notebook does before and after its story.

Notebooks and the Snakefile take from here what they use; each name lives in one of the modules below,
and code that takes it depends on that module alone (`sources`).
"""

from merlin.files import (
    atomic,
    changed_texts,
    file_hash,
    read_csv,
    write_csv,
    write_json,
    write_xlsx,
)
from merlin.run.notebook import (
    COMMON,
    RESULT_COLUMNS,
    SYNTHETIC,
    TIER_WORDS,
    counts,
    left_out,
    mark_mined,
    mark_synthetic,
    provenance,
    settings,
    tier_note,
    unit,
    write_results,
)
from merlin.run.own import OWN, bring, brought, own_files, take
from merlin.run.places import NOTEBOOKS, PROFILES, ROOT, folder, located, upstream
from merlin.run.processes import end_with_parent
from merlin.run.profile import (
    TIER_NOTES,
    ProfileError,
    load_profile,
    main_runs,
    nearest,
    read_yaml,
    scaling_arms,
    scaling_jobs,
    scaling_names,
    scaling_sizes,
    sweep_arms,
    sweep_runs,
    sweep_seeds,
    trainings,
)
from merlin.run.sources import (
    array_hash,
    code_hash,
    cohort_hash,
    depends_on,
    fingerprint,
    imported_modules,
    is_kept,
    kept,
)
from merlin.run.workflow import LOOK_FIRST, explain, figures, keep, publish
from merlin.words import NAME, shown

__all__ = [
    "COMMON", "LOOK_FIRST", "NAME", "NOTEBOOKS", "OWN", "PROFILES", "RESULT_COLUMNS", "ROOT", "SYNTHETIC",
    "TIER_NOTES", "TIER_WORDS", "ProfileError", "array_hash", "atomic", "bring", "brought",
    "changed_texts", "code_hash", "cohort_hash", "counts", "depends_on", "end_with_parent", "explain",
    "figures", "file_hash", "fingerprint", "folder", "imported_modules", "is_kept", "keep", "kept",
    "left_out", "load_profile", "located", "main_runs", "mark_mined", "mark_synthetic", "nearest",
    "own_files", "provenance", "publish", "read_csv", "read_yaml", "scaling_arms",
    "scaling_jobs", "scaling_names", "scaling_sizes",
    "settings", "shown", "sweep_arms", "sweep_runs", "sweep_seeds",
    "take", "tier_note", "trainings", "unit", "upstream", "write_csv", "write_json", "write_results",
    "write_xlsx",
]  # fmt: skip
