// The table of one level: every kernel for every dtype.
#pragma once
#include "level_gram.h"
#include "level_order.h"

#define EACH(kernel) {kernel<Float64>, kernel<Float32>, kernel<Float16>, kernel<Bfloat16>}
#define EACH_OF(kernel, option) \
    {kernel<Float64, option>, kernel<Float32, option>, kernel<Float16, option>, kernel<Bfloat16, option>}
#define EACH_FROM(kernel, from) \
    {kernel<from, Float64>, kernel<from, Float32>, kernel<from, Float16>, kernel<from, Bfloat16>}

#define SHOAL_TABLE(level)                                                                              \
    {.name = level,                                                                                     \
     .weighted_mean = EACH(weighted_mean),                                                              \
     .combine = EACH(combine),                                                                          \
     .median = EACH(median),                                                                            \
     .weighted_median = EACH_OF(weighted_order, true),                                                  \
     .trimmed_mean = EACH(trimmed_mean),                                                                \
     .weighted_trimmed_mean = EACH_OF(weighted_order, false),                                           \
     .mean_around_median = EACH(mean_around_median),                                                    \
     .gram = EACH(gram),                                                                                \
     .stats = EACH(stats),                                                                              \
     .scaled_add = EACH(scaled_add),                                                                    \
     .convert = {EACH_FROM(convert, Float64), EACH_FROM(convert, Float32), EACH_FROM(convert, Float16), \
                 EACH_FROM(convert, Bfloat16)},                                                         \
     .copy = copy,                                                                                      \
     .to_columns = EACH(to_columns),                                                                    \
     .from_doubles = EACH(from_doubles)}
