"""Where records come from: the registry, files, folders, the hub."""
