"""The commands of `shopctl`, a file each, with their options and what they do."""
