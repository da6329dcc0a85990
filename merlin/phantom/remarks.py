"""What a radiologist remarks on without calling it a finding: size, filling, habitus, technique.

No label exists for these, but the picture shows them and reports say them, which is what lets a
report be told from sixty-three others. A remark is made only where it is true of the body.
"""

from collections.abc import Callable
from dataclasses import dataclass

from merlin.phantom.anatomy import Body

MADE = 0.8  # chance that a true remark is dictated, where its section is not just "Normal."


@dataclass(frozen=True)
class Remark:
    """One observation: where it is dictated, when it is true, and in what words."""

    section: str
    holds: Callable[[Body], bool]
    texts: tuple[str, ...]
    unless: tuple[str, ...] = ()  # findings beside which nobody would say it


REMARKS = {
    "small_heart": Remark(
        "lower thorax",
        lambda b: b.heart_scale < 0.97,
        ("Small cardiac silhouette.", "Slender heart."),
        ("cardiomegaly",),
    ),
    "full_heart": Remark(
        "lower thorax",
        lambda b: b.heart_scale > 1.05,
        ("Cardiac size at the upper limit of normal.", "Heart is borderline in size."),
        ("cardiomegaly",),
    ),
    "low_diaphragm": Remark(
        "lower thorax",
        lambda b: b.dome_right < 62,
        ("Deep inspiration.", "Low flat diaphragm."),
    ),
    "high_diaphragm": Remark(
        "lower thorax",
        lambda b: b.dome_right > 71,
        ("Elevated right hemidiaphragm.", "Shallow inspiration with a high diaphragm."),
    ),
    "unenhanced_liver": Remark(
        "liver and biliary tree",
        lambda b: b.phase == "non-contrast",
        ("Unenhanced liver.", "Evaluation limited without intravenous contrast."),
    ),
    "small_liver": Remark(
        "liver and biliary tree",
        lambda b: b.liver_scale < 0.96,
        ("Liver is small.", "Small hepatic volume."),
        ("hepatomegaly",),
    ),
    "full_liver": Remark(
        "liver and biliary tree",
        lambda b: b.liver_scale > 1.04,
        ("Liver span at the upper limit of normal.", "Long right hepatic lobe."),
        ("hepatomegaly",),
    ),
    "contracted_gallbladder": Remark(
        "gallbladder",
        lambda b: b.has_gallbladder and b.gallbladder_scale < 1.08,
        ("Contracted.", "Gallbladder is contracted."),
    ),
    "full_gallbladder": Remark(
        "gallbladder",
        lambda b: b.has_gallbladder and b.gallbladder_scale > 1.22,
        ("Well distended.", "Distended after fasting."),
    ),
    "small_spleen": Remark(
        "spleen",
        lambda b: b.spleen_scale < 0.93,
        ("Small spleen.", "Spleen is small."),
        ("splenomegaly",),
    ),
    "full_spleen": Remark(
        "spleen",
        lambda b: b.spleen_scale > 1.06,
        ("Length at the upper limit of normal.", "Plump spleen."),
        ("splenomegaly",),
    ),
    "splenic_granuloma": Remark(
        "spleen",
        lambda b: "splenic granuloma" in b.incidental,
        ("Calcified splenic granuloma.", "Splenic granuloma."),
    ),
    "full_pancreas": Remark(
        "pancreas",
        lambda b: b.pancreas_scale > 1.04,
        ("Bulky gland.", "Full glandular contour."),
        ("pancreatic_atrophy",),
    ),
    "small_kidneys": Remark(
        "kidneys and ureters",
        lambda b: b.kidney_scale < 0.93,
        ("Small kidneys with cortical thinning.", "Both kidneys are small."),
    ),
    "large_kidneys": Remark(
        "kidneys and ureters",
        lambda b: b.kidney_scale > 1.05,
        ("Both kidneys are large.", "Kidneys are generous in size."),
    ),
    "gassy_colon": Remark(
        "gastrointestinal tract",
        lambda b: b.colon_gas > 0.62,
        ("Gas throughout the colon.", "Gaseous distention of the colon."),
    ),
    "stool_in_colon": Remark(
        "gastrointestinal tract",
        lambda b: b.colon_gas < 0.36,
        ("Stool throughout the colon.", "Large stool burden."),
        ("bowel_obstruction",),
    ),
    "oral_contrast": Remark(
        "gastrointestinal tract",
        lambda b: "oral contrast" in b.incidental,
        ("Oral contrast in the stomach.", "Ingested contrast in the gastric lumen."),
    ),
    "enteric_tube": Remark(
        "gastrointestinal tract",
        lambda b: "enteric tube" in b.incidental,
        ("Enteric tube ends in the stomach.", "Nasogastric tube in place."),
    ),
    "obese_habitus": Remark(
        "peritoneal cavity",
        lambda b: b.fat > 28,
        ("Large body habitus.", "Abundant abdominal fat."),
    ),
    "thin_habitus": Remark(
        "peritoneal cavity",
        lambda b: b.fat < 16,
        ("Thin body habitus.", "Paucity of abdominal fat."),
    ),
    "full_bladder": Remark(
        "pelvic organs",
        lambda b: b.bladder_scale > 1.06,
        ("Bladder is full.", "Well filled bladder."),
    ),
    "empty_bladder": Remark(
        "pelvic organs",
        lambda b: b.bladder_scale < 0.88,
        ("Bladder is collapsed.", "Empty bladder."),
    ),
    "uterus": Remark(
        "pelvic organs",
        lambda b: b.sex == "F",
        ("Uterus and ovaries are unremarkable.", "Anteverted uterus.", "No adnexal mass."),
    ),
    "seminal_vesicles": Remark(
        "pelvic organs",
        lambda b: b.sex == "M",
        ("Seminal vesicles are symmetric.", "Symmetric seminal vesicles."),
    ),
    "phleboliths": Remark(
        "pelvic organs",
        lambda b: "phleboliths" in b.incidental,
        ("Pelvic phleboliths.", "Phleboliths."),
    ),
    "wide_aorta": Remark(
        "vasculature and lymph nodes",
        lambda b: b.aorta_radius > 10.2,
        ("Aorta is tortuous.", "Generous aortic caliber."),
        ("abdominal_aortic_aneurysm",),
    ),
    "slender_aorta": Remark(
        "vasculature and lymph nodes",
        lambda b: b.aorta_radius < 8.7,
        ("Slender aorta.", "Small caliber aorta."),
        ("abdominal_aortic_aneurysm",),
    ),
    "arterial_phase": Remark(
        "vasculature and lymph nodes",
        lambda b: b.phase == "arterial",
        ("Arterial phase of enhancement.", "Arterial phase imaging."),
    ),
    "unopacified_vessels": Remark(
        "vasculature and lymph nodes",
        lambda b: b.phase == "non-contrast",
        ("Vessels are not opacified.", "Unopacified vessels."),
    ),
    "dense_bone": Remark(
        "musculoskeletal",
        lambda b: b.trabecular_hu > 185,
        ("Robust trabecular bone.", "Dense young skeleton."),
        ("osteopenia",),
    ),
    "bone_island": Remark(
        "musculoskeletal",
        lambda b: "bone island" in b.incidental,
        ("Bone island in a lumbar vertebra.", "Lumbar bone island."),
    ),
    "thin_muscle": Remark(
        "musculoskeletal",
        lambda b: b.muscle < 11,
        ("Thin abdominal wall muscles.", "Reduced muscle bulk."),
    ),
    "strong_muscle": Remark(
        "musculoskeletal",
        lambda b: b.muscle > 14,
        ("Well developed musculature.", "Muscular abdominal wall."),
    ),
    "arms_down": Remark(
        "musculoskeletal",
        lambda b: b.arms > 0,
        ("Arms are by the sides.", "Arms down with streak artifact."),
    ),
}


def remarks_of(body, found):
    """Names of the remarks that are true of a body with the given findings."""
    return tuple(
        name
        for name, remark in REMARKS.items()
        if remark.holds(body) and not set(remark.unless) & set(found)
    )
