"""How a permitted run is started, watched and ended."""
