"""It opens a file, whose number is the first that is free."""

file = open("log.txt", "w")
print(file.fileno(), file=file, flush=True)
