"""The command line: one small file a verb. Read arguments, call the library, print."""
