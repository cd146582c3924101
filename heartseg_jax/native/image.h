/* Images, NHWC, which may come in two parts that stand side by side in their channels. */

#pragma once

#include "registers.h"

typedef struct {
  const float* part[2];
  long channels[2]; /* of each part, 0 where there is no second */
  long batch, height, width;
} image_t;

static long channels_of(const image_t* image) { return image->channels[0] + image->channels[1]; }

/* Copy `rows` rows from row `first` on, and one above and below, with a pixel of zeros at either end of each. */
static void copy_band(const image_t* image, long example, long first, long rows, float* to) {
  long width = image->width, a = image->channels[0], b = image->channels[1], c = a + b;
  for (long row = first - 1; row <= first + rows; row++, to += (width + 2) * c) {
    if (row < 0 || row >= image->height) {
      memset(to, 0, (width + 2) * c * sizeof(float));
      continue;
    }
    long at = (example * image->height + row) * width;
    memset(to, 0, c * sizeof(float));
    memset(to + (width + 1) * c, 0, c * sizeof(float));
    if (b == 0) {
      memcpy(to + c, image->part[0] + at * a, width * a * sizeof(float));
      continue;
    }
    const float *left = image->part[0] + at * a, *right = image->part[1] + at * b;
    float* pixel = to + c;
    for (long x = 0; x < width; x++, pixel += c, left += a, right += b) {
      memcpy(pixel, left, a * sizeof(float));
      memcpy(pixel + a, right, b * sizeof(float));
    }
  }
}

