/* Small matrix products that stay in registers: up to 6 rows by 8 or 16 columns. */

#pragma once

#include "work.h"

#define BLOCK 16 /* columns of a block: two vectors */
#define ROWS 6   /* 6 x 2 sums fill the registers, but for what they are summed of */

/* A function for each size of a block, named by its rows, and a table of them: [one vector or two][rows - 1]. */
#define FOR_ALL_SIZES(MAKE, name)                                                                                     \
  MAKE(name##_8x1, 1, 1) MAKE(name##_8x2, 2, 1) MAKE(name##_8x3, 3, 1)                                                \
  MAKE(name##_8x4, 4, 1) MAKE(name##_8x5, 5, 1) MAKE(name##_8x6, 6, 1)                                                \
  MAKE(name##_16x1, 1, 2) MAKE(name##_16x2, 2, 2) MAKE(name##_16x3, 3, 2)                                             \
  MAKE(name##_16x4, 4, 2) MAKE(name##_16x5, 5, 2) MAKE(name##_16x6, 6, 2)
#define TABLE(name)                                                                         \
  {{name##_8x1, name##_8x2, name##_8x3, name##_8x4, name##_8x5, name##_8x6},                \
   {name##_16x1, name##_16x2, name##_16x3, name##_16x4, name##_16x5, name##_16x6}}

static long blocks_of(long channels) { return (channels + BLOCK - 1) / BLOCK; }

/* to[row, :] = bias + sum over taps t and k of from[row, tap[t] + k] * weights[t * count + k, :]. Rows of `from` are
   `pitch` apart, those of `to` `apart`, those of weights BLOCK. */
INLINED void product(const int rows, const int vectors, const float* from, long pitch, long count, int taps,
                     const long* tap, const float* weights, const float* bias, float* to, long apart) {
  lanes sums[ROWS][2];
  UNROLLED for (int row = 0; row < rows; row++) {
    UNROLLED for (int v = 0; v < vectors; v++) sums[row][v] = bias == NULL ? (lanes){0} : AT(bias + LANES * v);
  }
  for (int t = 0; t < taps; t++) {
    const float* x = from + tap[t];
    for (long k = 0; k < count; k++, x++, weights += BLOCK) {
      lanes w[2];
      UNROLLED for (int v = 0; v < vectors; v++) w[v] = SCRATCH(weights + LANES * v);
      UNROLLED for (int row = 0; row < rows; row++) {
        float value = x[row * pitch];
        UNROLLED for (int v = 0; v < vectors; v++) sums[row][v] += value * w[v];
      }
    }
  }
  UNROLLED for (int row = 0; row < rows; row++) {
    UNROLLED for (int v = 0; v < vectors; v++) PUT(to + row * apart + LANES * v) = sums[row][v];
  }
}

typedef void product_function(const float* from, long pitch, long count, int taps, const long* tap,
                              const float* weights, const float* bias, float* to, long apart);
#define PRODUCT(name, rows, vectors)                                                                                  \
  static void name(const float* from, long pitch, long count, int taps, const long* tap, const float* weights,        \
                   const float* bias, float* to, long apart) {                                                        \
    product(rows, vectors, from, pitch, count, taps, tap, weights, bias, to, apart);                                  \
  }
FOR_ALL_SIZES(PRODUCT, product)
static product_function* const PRODUCTS[2][ROWS] = TABLE(product);

/* to[row, :] += sum over pixels of left[pixel, row] * right[pixel, :]. Pixels of both are `step` apart, on `lines` of
   `width`; lines of `left` are `pitch` apart, those of `right` follow each other. Rows of `to` are `apart`. */
INLINED void accumulate(const int rows, const int vectors, const float* left, long pitch, long left_step,
                        const float* right, long right_step, long lines, long width, float* to, long apart) {
  lanes sums[ROWS][2];
  UNROLLED for (int row = 0; row < rows; row++) {
    UNROLLED for (int v = 0; v < vectors; v++) sums[row][v] = AT(to + row * apart + LANES * v);
  }
  for (long line = 0; line < lines; line++) {
    const float* values = left + line * pitch;
    for (long x = 0; x < width; x++, values += left_step, right += right_step) {
      lanes w[2];
      UNROLLED for (int v = 0; v < vectors; v++) w[v] = AT(right + LANES * v);
      UNROLLED for (int row = 0; row < rows; row++) {
        float value = values[row];
        UNROLLED for (int v = 0; v < vectors; v++) sums[row][v] += value * w[v];
      }
    }
  }
  UNROLLED for (int row = 0; row < rows; row++) {
    UNROLLED for (int v = 0; v < vectors; v++) PUT(to + row * apart + LANES * v) = sums[row][v];
  }
}

typedef void accumulate_function(const float* left, long pitch, long left_step, const float* right, long right_step,
                                 long lines, long width, float* to, long apart);
#define ACCUMULATE(name, rows, vectors)                                                                               \
  static void name(const float* left, long pitch, long left_step, const float* right, long right_step, long lines,    \
                   long width, float* to, long apart) {                                                               \
    accumulate(rows, vectors, left, pitch, left_step, right, right_step, lines, width, to, apart);                    \
  }
FOR_ALL_SIZES(ACCUMULATE, accumulate)
static accumulate_function* const ACCUMULATES[2][ROWS] = TABLE(accumulate);
