"""What builds the documentation site and checks it: ``nox -s docs``."""
