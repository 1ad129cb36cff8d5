"""The command `hyvideo-rt`. Parsing stays free of torch, so that `--help` is immediate."""
