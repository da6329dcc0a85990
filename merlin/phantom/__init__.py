"""The synthetic cohort: bodies, scans, reports and diagnosis codes drawn from a seed."""
