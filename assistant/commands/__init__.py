"""Commands about the assistant; a file each, with HELP, `arguments` and `run`."""
