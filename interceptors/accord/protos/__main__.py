"""Print the folder that protoc needs as `-I`."""

from accord.protos import include

print(include())
