/* BatchNorm by the batch's own statistics with the ReLU behind it, and its gradient. Channels in whole vectors. */

#pragma once

#include "registers.h"

#define CHUNK 128  /* pixels summed at once: sums of sums lose less to rounding */
#define SLICES 16  /* of the pixels, each with sums of its own: so many whatever the threads, for the same bits */
#define APPLIED 64 /* units of the second pass */

typedef struct {
  const float *x, *out, *change; /* [pixels, channels]; the last two for the gradient */
  const float *mean, *factor, *shift, *slope; /* [channels] */
  float *to, *sums; /* [slices, 2, channels] */
  long pixels, channels, slices, units;
} norm_t;

/* Two sums over pixels: of x and its square, or of what comes back and its product with what deviates from the mean. */
INLINED void sum_pixels(const norm_t* job, const int backward, const int vectors, long first, long last, long at,
                        float* to) {
  long channels = job->channels;
  lanes total[2][2] = {{{0}}}, mean[2] = {{0}};
  UNROLLED for (int v = 0; v < vectors; v++) mean[v] = backward ? AT(job->mean + at + LANES * v) : mean[v];
  for (long chunk = first; chunk < last; chunk += CHUNK) {
    lanes sums[2][2] = {{{0}}};
    for (long pixel = chunk; pixel < least(chunk + CHUNK, last); pixel++) {
      long from = pixel * channels + at;
      UNROLLED for (int v = 0; v < vectors; v++) {
        lanes x = AT(job->x + from + LANES * v);
        if (backward) {
          lanes back = (lanes)((masks)AT(job->change + from + LANES * v) & (AT(job->out + from + LANES * v) > 0.0f));
          sums[0][v] += back, sums[1][v] += back * (x - mean[v]);
        } else {
          sums[0][v] += x, sums[1][v] += x * x;
        }
      }
    }
    UNROLLED for (int v = 0; v < vectors; v++) total[0][v] += sums[0][v], total[1][v] += sums[1][v];
  }
  UNROLLED for (int v = 0; v < vectors; v++) {
    PUT(to + at + LANES * v) = total[0][v];
    PUT(to + channels + at + LANES * v) = total[1][v];
  }
}

static void sum_unit(const void* given, long unit, float* scratch) {
  const norm_t* job = given;
  (void)scratch;
  long first = unit * job->pixels / job->slices, last = (unit + 1) * job->pixels / job->slices, at = 0;
  float* to = job->sums + unit * 2 * job->channels;
  int backward = job->change != NULL;
  for (; at + BLOCK <= job->channels; at += BLOCK)
    backward ? sum_pixels(job, 1, 2, first, last, at, to) : sum_pixels(job, 0, 2, first, last, at, to);
  if (at < job->channels)
    backward ? sum_pixels(job, 1, 1, first, last, at, to) : sum_pixels(job, 0, 1, first, last, at, to);
}

/* Forward: relu((x - mean) * factor + shift). Backward: slope * change - (x - mean) * factor - shift. */
static void apply_unit(const void* given, long unit, float* scratch) {
  const norm_t* job = given;
  (void)scratch;
  long channels = job->channels;
  for (long pixel = unit * job->pixels / job->units; pixel < (unit + 1) * job->pixels / job->units; pixel++) {
    long from = pixel * channels;
    if (job->change == NULL)
      for (long c = 0; c < channels; c += LANES) {
        lanes y = (AT(job->x + from + c) - AT(job->mean + c)) * AT(job->factor + c) + AT(job->shift + c);
        PUT(job->to + from + c) = (lanes)((masks)y & ~(y < 0.0f)); /* a NaN stays one */
      }
    else
      for (long c = 0; c < channels; c += LANES) {
        lanes back = (lanes)((masks)AT(job->change + from + c) & (AT(job->out + from + c) > 0.0f));
        lanes y = AT(job->slope + c) * back - AT(job->shift + c);
        PUT(job->to + from + c) = y - (AT(job->x + from + c) - AT(job->mean + c)) * AT(job->factor + c);
      }
  }
}

/* Sum over all pixels, to sums[0] and sums[1] of the first slice. */
static XLA_FFI_Error* sum_all(XLA_FFI_CallFrame* frame, norm_t* job) {
  XLA_FFI_Error* error = run(frame, sum_unit, job, job->slices, 0);
  for (long slice = 1; slice < job->slices && error == NULL; slice++)
    for (long c = 0; c < 2 * job->channels; c++) job->sums[c] += job->sums[slice * 2 * job->channels + c];
  return error;
}

/* Its `sums` are to be freed; NULL where there is no memory. */
static norm_t norm_of(const XLA_FFI_Buffer* x) {
  long pixels = x->dims[0] * x->dims[1] * x->dims[2];
  norm_t job = {.x = x->data, .pixels = pixels, .channels = x->dims[3]};
  job.slices = least(SLICES, (pixels + CHUNK - 1) / CHUNK);
  job.units = least(APPLIED, job.slices * 4);
  job.sums = aligned_alloc(LINE, whole_lines((2 * job.slices + 3) * job.channels) * sizeof(float));
  return job;
}

static XLA_FFI_Error* normalize(XLA_FFI_CallFrame* frame, norm_t* job, const float* scale, const float* bias,
                                float epsilon, float* mean, float* var) {
  XLA_FFI_Error* error = sum_all(frame, job);
  float* factor = job->sums + 2 * job->slices * job->channels;
  for (long c = 0; c < job->channels && error == NULL; c++) {
    mean[c] = job->sums[c] / job->pixels;
    float spread = job->sums[job->channels + c] / job->pixels - mean[c] * mean[c];
    var[c] = spread < 0 ? 0 : spread; /* rounding may bring it below zero; a NaN stays one */
    factor[c] = scale[c] / sqrtf(var[c] + epsilon);
  }
  job->mean = mean, job->factor = factor, job->shift = bias;
  return error != NULL ? error : run(frame, apply_unit, job, job->units, 0);
}

static XLA_FFI_Error* normalize_back(XLA_FFI_CallFrame* frame, norm_t* job, const float* scale, const float* inverse,
                                     float* of_scale, float* of_bias) {
  XLA_FFI_Error* error = sum_all(frame, job);
  long channels = job->channels;
  float *slope = job->sums + 2 * job->slices * channels, *factor = slope + channels, *shift = factor + channels;
  for (long c = 0; c < channels && error == NULL; c++) {
    of_bias[c] = job->sums[c];
    of_scale[c] = job->sums[channels + c] * inverse[c];
    slope[c] = scale[c] * inverse[c];
    factor[c] = slope[c] * inverse[c] * of_scale[c] / job->pixels;
    shift[c] = slope[c] * of_bias[c] / job->pixels;
  }
  job->slope = slope, job->factor = factor, job->shift = shift;
  return error != NULL ? error : run(frame, apply_unit, job, job->units, 0);
}
