"""`regimen mcp`: the verbs of the command line for a program that speaks the Model Context Protocol over its standard input and output."""
