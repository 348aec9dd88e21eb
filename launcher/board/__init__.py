"""The board: run folders, plans and the verbs of the command line as pages in a browser. It holds no truth of its own."""
