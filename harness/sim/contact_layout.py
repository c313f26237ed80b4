"""Where `mjContact` of MuJoCo 3.2.3 (mjdata.h) has what."""

from __future__ import annotations

CONTACT_BYTES = 576
NUM_WORDS, NUM_INTS = CONTACT_BYTES // 8, CONTACT_BYTES // 4
DIST, POS, FRAME, INCLUDE_MARGIN, FRICTION, SOLREF, SOLREF_FRICTION, SOLIMP, MU, CONE = (
    0,
    1,
    4,
    13,
    14,
    19,
    21,
    23,
    28,
    29,
)
"""In eight bytes."""
DIM, GEOM1, GEOM, FLEX, EXCLUDE, EFC_ADDRESS = 130, 131, 133, 135, 141, 142
"""In four bytes; the numbers of two flexible things, elements and vertices lie between `FLEX` and `EXCLUDE`."""
MAX_PER_PAIR = 50
"""`mjMAXCONPAIR`: how many contacts a collision function may find."""
