"""One module for each stage; what several stages share is in shared/."""
