"""One module per group of subcommands; each is imported when it is called."""
