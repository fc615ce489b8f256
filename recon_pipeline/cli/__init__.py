"""The command line: recon."""
