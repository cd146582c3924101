/* A matrix product at each pixel, whose results lie beside each other in a square of 1x1 or 2x2: the head's 1x1
   convolution, and the transposed convolution of 2x2 with stride 2. Channels of the image in whole vectors. */

#pragma once

#include "registers.h"

#define SUMMED 96 /* pixels, before a sum goes back to memory */

typedef struct {
  const float *x, *kernel, *bias, *change; /* kernel: [side, side, out, in] */
  float *to, *kernel_to, *bias_to;
  float* parts;  /* [slices, side side out, in + 1], the bias last */
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

/* Cut work into slices of the rows of pixels and groups of the kernel's columns, of `depth` weights each. What is done
   more than once for it: weights are packed in every slice, and the image is read in every group. */
static void cut(XLA_FFI_CallFrame* frame, pointwise_t* job, long columns, long depth) {
  long rows = job->batch * job->height, units = 8 * threads_of(frame);
  double fewest = -1, packing = 1.5 * columns * BLOCK * depth, reading = 0.3 * rows * job->width * depth;
  for (long groups = 1; groups <= least(columns, units); groups++) {
    long slices = least(rows, (units + groups - 1) / groups);
    double twice = slices * packing + groups * reading;
    if (fewest >= 0 && twice >= fewest) continue;
    fewest = twice, job->groups = groups, job->slices = slices;
  }
}

static void point_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  long inside = job->inside, outside = job->outside, side = job->side, blocks = blocks_of(outside), zero = 0;
  long rows = job->batch * job->height, group = unit % job->groups, slice = unit / job->groups;
  long columns = side * side * blocks, apart = side * outside;
  float *biases = scratch, *ragged = biases + BLOCK, *packed = ragged + ROWS * BLOCK;
  for (long column = group * columns / job->groups; column < (group + 1) * columns / job->groups; column++) {
    long square = column / blocks, at = column % blocks * BLOCK, channels = least(BLOCK, outside - at);
    int whole = channels % LANES == 0;
    for (long o = 0; o < BLOCK; o++) {
      biases[o] = o < channels ? job->bias[at + o] : 0;
      const float* from = job->kernel + (square * outside + at + o) * inside;
      for (long k = 0; k < inside; k++) packed[k * BLOCK + o] = o < channels ? from[k] : 0;
    }
    for (long y = slice * rows / job->slices; y < (slice + 1) * rows / job->slices; y++)
      for (long x = 0, count; x < job->width; x += count) {
        count = least(ROWS, job->width - x);
        long pixel = y * job->width + x;
        float* to = job->to + place_of(job, pixel) + tap_of(job, square) + at;
        PRODUCTS[channels > LANES][count - 1](job->x + pixel * inside, inside, inside, 1, &zero, packed, biases,
                                              whole ? to : ragged, whole ? apart : BLOCK);
        for (long p = 0; p < count && !whole; p++) memcpy(to + p * apart, ragged + p * BLOCK, channels * sizeof(float));
      }
  }
}

static XLA_FFI_Error* multiply_pixels(XLA_FFI_CallFrame* frame, pointwise_t* job) {
  cut(frame, job, job->side * job->side * blocks_of(job->outside), job->inside);
  return run(frame, point_unit, job, job->slices * job->groups, (1 + ROWS + job->inside) * BLOCK);
}

/* Gradient of the image: each pixel's results by the kernel as it is. */
static void point_back_unit(const void* given, long unit, float* scratch) {
  const pointwise_t* job = given;
  long inside = job->inside, outside = job->outside, results = results_of(job), columns = blocks_of(inside), taps[4];
  long rows = job->batch * job->height, group = unit % job->groups, slice = unit / job->groups;
  for (long square = 0; square < job->side * job->side; square++) taps[square] = tap_of(job, square);
  for (long column = group * columns / job->groups; column < (group + 1) * columns / job->groups; column++) {
    long at = column * BLOCK, channels = least(BLOCK, inside - at);
    for (long n = 0; n < results; n++)
      memcpy(scratch + n * BLOCK, job->kernel + n * inside + at, channels * sizeof(float));
    for (long y = slice * rows / job->slices; y < (slice + 1) * rows / job->slices; y++)
      for (long x = 0, count; x < job->width; x += count) {
        count = least(ROWS, job->width - x);
        long pixel = y * job->width + x;
        PRODUCTS[channels == BLOCK][count - 1](job->change + place_of(job, pixel), job->side * outside, outside,
                                               (int)(job->side * job->side), taps, scratch, NULL,
                                               job->to + pixel * inside + at, inside);
      }
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
  long slices = job->slices, results = results_of(job);
  if (job->to != NULL) {
    cut(frame, job, blocks_of(job->inside), results);
    error = run(frame, point_back_unit, job, job->slices * job->groups, results * BLOCK);
  }
  if (error != NULL || job->kernel_to == NULL) return error;
  job->slices = slices;
  job->groups = most(1, least(results / ROWS, (8 * threads_of(frame) + slices - 1) / slices));
  error = run(frame, point_gradient_unit, job, slices * job->groups, 0);
  return error != NULL ? error : run(frame, point_add_unit, job, ADDERS, 0);
}
