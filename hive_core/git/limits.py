"""How much of everything core accepts from an agent's repository, and why that much."""

KIB = 1024
MIB = 1024 * 1024

# SPEC section 6.
FILES_MAX = 200
TREE_MAX_BYTES = 2 * MIB

# Not in the specification: no configuration that a person reads needs more.
DIRECTORIES_MAX = 200
DEPTH_MAX = 10  # names in a path
NAME_MAX_BYTES = 128  # half of what file systems take, so that a suffix always fits
PATH_MAX_BYTES = 512

# A pack carries the whole history of its commit. Packed, years of small changes are a few MiB.
PACK_MAX_BYTES = 32 * MIB
OBJECTS_MAX = 50_000  # a commit, a tree and a file for each of some 16,000 changes
OBJECT_MAX_BYTES = TREE_MAX_BYTES  # no file of an acceptable tree is larger, so no object need be
INFLATED_MAX_BYTES = 256 * MIB  # of all objects unpacked: what git works through, in some seconds

COPY_CHUNK_BYTES = 256 * KIB
SCAN_SECONDS = 20.0
GIT_SECONDS = 30.0
GIT_CPU_SECONDS = 25
GIT_MEMORY_BYTES = 1024 * MIB  # address space: git maps packs as a whole
GIT_FILE_MAX_BYTES = 2 * PACK_MAX_BYTES
GIT_OUTPUT_MAX_BYTES = MIB
RECEIVING_MAX = 2  # submits that are checked at once; the others wait
COMPARING_MAX = 2  # likewise diffs: two trees made to be hard to compare take git some ten seconds

MESSAGE_MAX_CHARACTERS = 4096
AUTHOR_MAX_CHARACTERS = 200

# One file's diff is one line on the wire (at most 1 MiB), which the text goes into escaped.
DIFF_FILE_MAX_BYTES = 512 * KIB
DIFF_MAX_BYTES = 4 * MIB
# Two whole trees of empty lines, each with its mark, and the headers.
DIFF_OUTPUT_MAX_BYTES = 16 * MIB

PACKS_MAX = 20  # in an applied repository, before they are joined
