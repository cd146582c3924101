/* A matrix product at each pixel, whose results lie beside each other in a square of 1x1 or 2x2: the head's 1x1
   convolution, and the transposed convolution of 2x2 with stride 2. Channels of the image in whole vectors. */

#pragma once

#include "registers.h"

#define SUMMED 96 /* pixels, before a sum goes back to memory */

typedef struct {
  const float *x, *kernel, *bias, *change; /* kernel: [side, side, out, in] */
  float *to, *kernel_to, *bias_to;
  float* parts;  /* [slices, side side out, in + 1], the bias last */
  float* packed; /* the kernel, in columns of register blocks */
  long batch, height, width, inside, outside, side, slices, groups;
} pointwise_t;

static long results_of(const pointwise_t* job) { return job->side * job->side * job->outside; }

/* Where the first result of a pixel lies. */
static long place_of(const pointwise_t* job, long pixel) {
  long x = pixel % job->width, y = pixel / job->width; /* rows of all examples, one after the other */
  return (y * job->side * job->side * job->width + x * job->side) * job->outside;
}

/* How far a pixel's results at `square` lie from its first. */
static long tap_of(const pointwise_t* job, long square) {
  return (square / job->side * job->side * job->width + square % job->side) * job->outside;
}

/* Cut work on rows of pixels and columns of the kernel: where the larger of the two is read once. */
static void cut(XLA_FFI_CallFrame* frame, pointwise_t* job, long columns) {
  long rows = job->batch * job->height, units = 8 * threads_of(frame);
  int by_columns = results_of(job) > rows * job->width;
  job->groups = by_columns ? least(columns, units) : 1;
  job->slices = least(rows, (units + job->groups - 1) / job->groups);
}

/* A square's results of a block of channels: [in, BLOCK], zeros where there are less. */
static void pack_results_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  (void)scratch;
  long inside = job->inside, blocks = blocks_of(job->outside), square = unit / blocks, at = unit % blocks * BLOCK;
  float* to = job->packed + unit * inside * BLOCK;
  for (long k = 0; k < inside; k++)
    for (long o = at; o < at + BLOCK; o++)
      *to++ = o < job->outside ? job->kernel[(square * job->outside + o) * inside + k] : 0;
}

static void point_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  long inside = job->inside, outside = job->outside, side = job->side, blocks = blocks_of(outside), zero = 0;
  long rows = job->batch * job->height, group = unit % job->groups, slice = unit / job->groups;
  long columns = side * side * blocks, apart = side * outside;
  float *biases = scratch, *spare = scratch + BLOCK;
  for (long column = group * columns / job->groups; column < (group + 1) * columns / job->groups; column++) {
    long square = column / blocks, at = column % blocks * BLOCK, channels = least(BLOCK, outside - at);
    int ragged = channels % LANES != 0;
    product_function* const* products = PRODUCTS[channels > LANES];
    for (long o = 0; o < BLOCK; o++) biases[o] = o < channels ? job->bias[at + o] : 0;
    for (long y = slice * rows / job->slices; y < (slice + 1) * rows / job->slices; y++)
      for (long x = 0, count; x < job->width; x += count) {
        count = least(ROWS, job->width - x);
        long pixel = y * job->width + x;
        float* to = job->to + place_of(job, pixel) + tap_of(job, square) + at;
        products[count - 1](job->x + pixel * inside, inside, inside, 1, &zero, job->packed + column * inside * BLOCK,
                          biases, ragged ? spare : to, ragged ? BLOCK : apart);
        for (long p = 0; p < count && ragged; p++) memcpy(to + p * apart, spare + p * BLOCK, channels * sizeof(float));
      }
  }
}

static XLA_FFI_Error* multiply_pixels(XLA_FFI_CallFrame* frame, pointwise_t* job) {
  long columns = job->side * job->side * blocks_of(job->outside);
  job->packed = aligned_alloc(LINE, columns * job->inside * BLOCK * sizeof(float));
  if (job->packed == NULL) return no_memory(frame);
  XLA_FFI_Error* error = run(frame, pack_results_unit, job, columns, 0);
  cut(frame, job, columns);
  if (error == NULL) error = run(frame, point_unit, job, job->slices * job->groups, (1 + ROWS) * BLOCK);
  free(job->packed);
  return error;
}

/* Gradient of the image: each pixel's results by the kernel as it is. */

/* A block of the image's channels: [side side out, BLOCK] */
static void pack_channels_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  (void)scratch;
  long results = results_of(job), channels = least(BLOCK, job->inside - unit * BLOCK);
  float* to = job->packed + unit * results * BLOCK;
  for (long n = 0; n < results; n++)
    memcpy(to + n * BLOCK, job->kernel + n * job->inside + unit * BLOCK, channels * sizeof(float));
}

static void point_back_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  (void)scratch;
  long inside = job->inside, outside = job->outside, rows = job->batch * job->height, columns = blocks_of(inside), taps[4];
  long group = unit % job->groups, slice = unit / job->groups;
  for (long square = 0; square < job->side * job->side; square++) taps[square] = tap_of(job, square);
  for (long column = group * columns / job->groups; column < (group + 1) * columns / job->groups; column++)
    for (long y = slice * rows / job->slices; y < (slice + 1) * rows / job->slices; y++)
      for (long x = 0, count; x < job->width; x += count) {
        count = least(ROWS, job->width - x);
        long pixel = y * job->width + x;
        PRODUCTS[inside - column * BLOCK >= BLOCK][count - 1](
            job->change + place_of(job, pixel), job->side * outside, outside, (int)(job->side * job->side), taps,
            job->packed + column * results_of(job) * BLOCK, NULL, job->to + pixel * inside + column * BLOCK, inside);
      }
}

/* Gradient of kernel and bias */

/* A unit sums a slice of the rows for a group of the results. */
static void point_gradient_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  (void)scratch;
  long inside = job->inside, outside = job->outside, side = job->side, results = results_of(job), width = job->width;
  long all = job->batch * job->height, group = unit % job->groups, slice = unit / job->groups;
  long first = group * results / job->groups, last = (group + 1) * results / job->groups;
  float *kernel = job->parts + slice * results * (inside + 1), *bias = kernel + results * inside;
  memset(kernel + first * inside, 0, (last - first) * inside * sizeof(float));
  memset(bias + first, 0, (last - first) * sizeof(float));
  long end = (slice + 1) * all / job->slices, at_once = most(1, SUMMED / width), pitch = side * side * width * outside;
  for (long y = slice * all / job->slices, rows; y < end; y += rows) {
    rows = least(at_once, end - y);
    for (long n = first, count; n < last; n += count) {
      long square = n / outside, o = n % outside;
      count = least(ROWS, least(last - n, outside - o));
      const float* change = job->change + place_of(job, y * width) + tap_of(job, square) + o;
      for (long at = 0; at < inside; at += BLOCK)
        ACCUMULATES[inside - at >= BLOCK][count - 1](change, pitch, side * outside, job->x + y * width * inside + at,
                                                     inside, rows, width, kernel + n * inside + at, inside);
      for (long i = 0; i < count; i++)
        for (long row = 0; row < rows; row++) {
          float sum = 0;
          for (long x = 0; x < width; x++) sum += change[row * pitch + x * side * outside + i];
          bias[n + i] += sum;
        }
    }
  }
}

static void point_add_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  (void)scratch;
  long results = results_of(job), weights = results * job->inside, all = weights + results;
  for (long at = unit * weights / ADDERS; at < (unit + 1) * weights / ADDERS; at++) {
    float sum = job->parts[at];
    for (long slice = 1; slice < job->slices; slice++) sum += job->parts[slice * all + at];
    job->kernel_to[at] = sum;
  }
  for (long o = 0; o < job->outside && unit == 0; o++) {
    float sum = 0;
    for (long slice = 0; slice < job->slices; slice++)
      for (long square = 0; square < job->side * job->side; square++)
        sum += job->parts[slice * all + weights + square * job->outside + o];
    job->bias_to[o] = sum;
  }
}

/* What is not asked for is NULL. `slices` are given: they decide how sums are rounded. */
static XLA_FFI_Error* differentiate_pixels(XLA_FFI_CallFrame* frame, pointwise_t* job) {
  XLA_FFI_Error* error = NULL;
  long slices = job->slices, columns = blocks_of(job->inside), results = results_of(job);
  if (job->to != NULL) {
    job->packed = aligned_alloc(LINE, columns * results * BLOCK * sizeof(float));
    if (job->packed == NULL) return no_memory(frame);
    error = run(frame, pack_channels_unit, job, columns, 0);
    cut(frame, job, columns);
    if (error == NULL) error = run(frame, point_back_unit, job, job->slices * job->groups, 0);
    free(job->packed);
  }
  if (error != NULL || job->kernel_to == NULL) return error;
  job->slices = slices;
  job->groups = most(1, least(results / ROWS, (8 * threads_of(frame) + slices - 1) / slices));
  error = run(frame, point_gradient_unit, job, slices * job->groups, 0);
  return error != NULL ? error : run(frame, point_add_unit, job, ADDERS, 0);
}
