"""What a run needs of every GPU, of a node's host memory and of its disk, in closed form."""
