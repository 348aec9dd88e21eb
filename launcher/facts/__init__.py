"""What is true before anything is decided: the model, the node, the data as their files tell it."""
