"""`python -m recon_pipeline.cli` is `recon`."""

from recon_pipeline.cli import main

main(prog_name="recon")
