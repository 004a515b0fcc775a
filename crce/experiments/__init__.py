"""Studies: every method on several concepts, the tables and pages written from them, contact sheets and reports."""
