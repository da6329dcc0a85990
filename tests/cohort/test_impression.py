"""Where findings end, whatever heads the impression: headings, prose, and reports with two of them."""

import pytest

from merlin.data.extract import label_report
from merlin.data.impression import split_impression

FINDINGS = "Liver: Normal. Spleen: Normal."
HEADINGS = [
    "IMPRESSION:", "Impression -", "IMPRESSIONS:", "IMPRESSSION:", "Impresson:", "IMPRESSION 1.",
    "IMPRESSION：", "ＩＭＰＲＥＳＳＩＯＮ:", "I M P R E S S I O N", "**Impression**", "IMP:", "Imp:",
    "In conclusion,", "In summary,", "To summarize:", "Interpretation:", "INTERPRETATION:",
    "Diagnosis:", "Final diagnosis:", "Assessment:", "ASSESSMENT AND PLAN:", "Assessment (and plan):",
    "Synopsis:", "Bottom line:", "Wet read:", "Impresión diagnóstica:", "IMPRESION DIAGNOSTICA:",
    "Conclusione:", "Conclusión:", "Beurteilung:", "Diagnose:", "Au total :", "AU TOTAL:", "Sonuc:",
    "SONUÇ", "Konklusjon:", "Vurdering:", "Wniosek:", "Závěr:", "Заключение:", "ЗАКЛЮЧЕНИЕ",
    "Συμπέρασμα:", "诊断意见：", "印象:", "結論:", "결론:", "판독 결론:",
]  # fmt: skip


@pytest.mark.parametrize("heading", HEADINGS)
@pytest.mark.parametrize(
    "form", ["{0}\n{1} Cirrhosis.", "{0} {1} Cirrhosis.", "{0}\n\n{1}\nCirrhosis."]
)
def test_impression_never_stays_in_the_findings(heading, form):
    findings, impression = split_impression(form.format(FINDINGS, heading))
    assert findings == FINDINGS
    assert impression.endswith("Cirrhosis.")
    assert len(impression) <= len("1. Cirrhosis.")


@pytest.mark.parametrize(
    "text",
    [
        "Gastric impression: normal variant.",
        "Basilar impression: absent.",
        "Digital impressions. Prominent convolutional impressions.",
        "There is an impression on the bladder by the uterus.",
        "In conclusion of the arterial phase, a bolus was seen.",
        "OPINION SOUGHT: yes",
        "EXAM: CT.\nINTERPRETATION: The liver is normal, the spleen is large.",
        "Diagnosis: lymphoma.\nFindings: The liver is normal.",
        "Differential diagnosis: cyst.",
    ],
)
def test_what_heads_no_impression_is_kept(text):
    assert split_impression(f"{text} Kidneys: Normal.") == (f"{text} Kidneys: Normal.", "")


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("IMPRESSION: A. FINDINGS: Liver nodular. IMPRESSION: Cirrhosis.", "Liver nodular.", "A.\nCirrhosis."),
        ("IMPRESSION: A.\nFINDINGS: Liver nodular.", "Liver nodular.", "A."),
        (
            "Comparison: CT 2019 (Impression: cyst). Findings: Liver is nodular. Impression: Cirrhosis.",
            "Comparison: CT 2019 (\nLiver is nodular.",
            "Cirrhosis.",
        ),
        ("Normal.\\nIMPRESSION:\\nCirrhosis.", "Normal.", "Cirrhosis."),
        ("Liver normal.\\r\\nConclusion: Cirrhosis.", "Liver normal.", "Cirrhosis."),
        ("Normal.IMPRESSION1. Cirrhosis.", "Normal.", "1. Cirrhosis."),
    ],
)  # fmt: skip
def test_every_impression_of_a_report_is_taken_out(text, findings, impression):
    assert split_impression(text) == (findings, impression)


@pytest.mark.parametrize(
    "unit", ["technique: ", "history: ", "IMPRESSION: A. FINDINGS: bb. ", "\n x"]
)
def test_long_reports_end(unit):
    assert label_report(f"Ascites. {unit * 3000}")["ascites"] == 1
