"""The synthetic cohort: phantoms, reports, diagnosis codes and their manifests."""
