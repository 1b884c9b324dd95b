// The ring kernels of one level.  Included by the ring_*.cpp files only; SHOAL_VECTOR_BYTES says how wide a register
// is.
#pragma once
#include "level_masks.h"
#include "level_sums.h"

#define SHOAL_RING_TABLE \
    {.keystream = keystream, .add_streams = add_streams, .sum_words = sum_words, .check_sums = check_sums}
