"""A static site of what papermill ran: pages, gallery, ledger and a scan viewer."""
