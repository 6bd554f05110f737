"""The forms in which clients of five projects ask, and the sockets they ask at."""
