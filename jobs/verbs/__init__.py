"""One module per verb of the command line: `HELP`, `Config` and `run(config, *, dry_run)`."""
