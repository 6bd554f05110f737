"""The messages of four projects' clients as bytes: numpy and msgpack alone, shared by the server and the light client.

Everything here reads bytes from strangers: no pickle, no object arrays, no allocation that the bytes do not back.
"""
