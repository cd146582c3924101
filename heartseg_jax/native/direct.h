/* A 3x3 convolution as it is written, 9 products for each pixel: for images whose channels are no whole vectors. */

#pragma once

#include "image.h"

#define CACHED 131072 /* bytes of a band of rows, to stay in the second cache */

/* What Winograd's way is given, too; only there an output is in two parts, and only there a bias may lack. */
typedef struct {
  image_t image;
  const float *kernel, *bias; /* bias: NULL for none */
  float* out[2];
  long outside[2]; /* channels of each output, multiples of LANES; 0 where there is no second */
  long blocks[2];  /* register blocks of each */
  long rows, bands; /* rows of pixels, or tiles, of a band; how many bands */
  long slices, groups;
  int turned, relu; /* turned: the kernel is, as for the gradient of an image */
  int kept;         /* whether weights are packed once for all bands of a unit */
} convolution_t;

INLINED void tile(const int pixels, const int vectors, const float* const* from, long pitch, long count,
                  const float* weights, const float* bias, int relu, float* const* to) {
  lanes sums[ROWS][2];
  UNROLLED for (int p = 0; p < pixels; p++) {
    UNROLLED for (int v = 0; v < vectors; v++) sums[p][v] = (lanes){0};
  }
  for (int row = 0; row < 3; row++)
    for (long k = 0; k < count; k++, weights += BLOCK) {
      lanes w[2];
      UNROLLED for (int v = 0; v < vectors; v++) w[v] = AT(weights + LANES * v);
      UNROLLED for (int p = 0; p < pixels; p++) {
        float x = from[p][row * pitch + k];
        UNROLLED for (int v = 0; v < vectors; v++) sums[p][v] += x * w[v];
      }
    }
  UNROLLED for (int p = 0; p < pixels; p++) {
    UNROLLED for (int v = 0; v < vectors; v++) {
      lanes y = sums[p][v] + AT(bias + LANES * v);
      if (relu) y = (lanes)((masks)y & ~(y < 0.0f)); /* a NaN stays one */
      PUT(to[p] + LANES * v) = y;
    }
  }
}

typedef void tile_function(const float* const* from, long pitch, long count, const float* weights, const float* bias,
                           int relu, float* const* to);
#define TILE(name, pixels, vectors)                                                                                 \
  static void name(const float* const* from, long pitch, long count, const float* weights, const float* bias,       \
                   int relu, float* const* to) {                                                                    \
    tile(pixels, vectors, from, pitch, count, weights, bias, relu, to);                                             \
  }
TILE(whole6, 6, 2)
TILE(whole3, 3, 2)
TILE(whole1, 1, 2)
TILE(half6, 6, 1)
TILE(half3, 3, 1)
TILE(half1, 1, 1)

/* The weights to `count` output channels from `first` on, as [9 in, BLOCK]. */
static void pack(const convolution_t* job, long first, long count, float* to) {
  long inside = channels_of(&job->image), outside = job->outside[0];
  for (long k = 0; k < 9 * inside; k++)
    memcpy(to + k * BLOCK, job->kernel + k * outside + first, count * sizeof(float));
}

static void convolve_unit(const void* given, long unit, float* scratch) {
  const convolution_t* job = given;
  const image_t* image = &job->image;
  long inside = channels_of(image), width = image->width, height = image->height, pitch = (width + 2) * inside;
  long outside = job->outside[0], all = job->blocks[0], bands = (height + job->rows - 1) / job->rows;
  long group = unit % job->groups, slice = unit / job->groups;
  long block0 = group * all / job->groups, block1 = (group + 1) * all / job->groups;
  long band0 = slice * job->bands / job->slices, band1 = (slice + 1) * job->bands / job->slices;
  long weights = 9 * inside * BLOCK;
  float *packed = scratch, *band = scratch + (all + job->groups - 1) / job->groups * weights;
  for (long block = block0; block < block1; block++)
    pack(job, block * BLOCK, least(BLOCK, outside - block * BLOCK), packed + (block - block0) * weights);
  for (long b = band0; b < band1; b++) {
    long example = b / bands, first = b % bands * job->rows, rows = least(job->rows, height - first);
    copy_band(image, example, first, rows, band);
    for (long block = block0; block < block1; block++) {
      long at = block * BLOCK, pixels = rows * width;
      float* out = job->out[0] + (example * height + first) * width * outside + at;
      const float* bias = job->bias + at;
      int whole = outside - at >= BLOCK;
      tile_function *six = whole ? whole6 : half6, *three = whole ? whole3 : half3, *one = whole ? whole1 : half1;
      for (long pixel = 0, x = 0, y = 0; pixel < pixels;) {
        const float* from[ROWS];
        float* to[ROWS];
        long left = pixels - pixel, count = left >= 6 ? 6 : left >= 3 ? 3 : 1;
        for (long p = 0; p < count; p++, pixel++) {
          from[p] = band + y * pitch + x * inside;
          to[p] = out + pixel * outside;
          if (++x == width) x = 0, y++;
        }
        (count == 6 ? six : count == 3 ? three : one)(
            from, pitch, 3 * inside, packed + (block - block0) * weights, bias, job->relu, to);
      }
    }
  }
}

/* Cut `work` into units: blocks of weights in groups, bands of pixels in slices. `packing` is done for each block in
   every slice, `copying` in every group; a thread waits for half a unit at the end. All in the same measure of time. A
   group has at most `most_blocks`, unless each slice is one band, whose weights are used once. */
static void choose(XLA_FFI_CallFrame* frame, convolution_t* job, long blocks, double packing, double copying,
                   double work, long most_blocks) {
  long threads = threads_of(frame);
  double fewest = -1;
  for (long groups = 1; groups <= blocks; groups++)
    for (long units = threads; units <= 32 * threads; units *= 2) {
      long slices = least(job->bands, (units + groups - 1) / groups);
      if (groups < blocks && slices < job->bands && groups * most_blocks < blocks) continue;
      double once = slices * blocks * packing + groups * copying;
      double time = once + (work + once) * (threads > 1 ? threads : 0) / (2 * slices * groups);
      if (fewest >= 0 && time >= fewest) continue;
      fewest = time, job->slices = slices, job->groups = groups;
    }
}

static XLA_FFI_Error* convolve_directly(XLA_FFI_CallFrame* frame, convolution_t* job) {
  const image_t* image = &job->image;
  long inside = channels_of(image), blocks = job->blocks[0], row = (image->width + 2) * inside;
  job->rows = least(image->height, most(1, CACHED / (row * (long)sizeof(float))));
  long bands = (image->height + job->rows - 1) / job->rows;
  job->rows = (image->height + bands - 1) / bands; /* bands of one size */
  job->bands = image->batch * bands;
  double pixels = (double)image->batch * image->height * image->width;
  double work = 9.0 * BLOCK / LANES * pixels * inside * blocks;
  choose(frame, job, blocks, 9.0 * BLOCK * inside, pixels * inside, work, blocks);
  size_t scratch = (blocks + job->groups - 1) / job->groups * 9 * inside * BLOCK + (job->rows + 2) * row;
  return run(frame, convolve_unit, job, job->slices * job->groups, scratch);
}

/* Gradient of kernel and bias */

typedef struct {
  image_t image;
  const float* change; /* the output's gradient */
  float *kernel, *bias;
  float* parts; /* [slices, 9 in + 1, out]: of each slice of the batch, the bias last; unused for one slice */
  long outside, rows, slices, groups, in_groups, panels, blocks;
} gradient_t;

static void sum_bias(const float* panel, long pixels, int vectors, float* to) {
  lanes sums[2] = {{0}, {0}};
  for (long pixel = 0; pixel < pixels; pixel++)
    for (int v = 0; v < vectors; v++) sums[v] += AT(panel + pixel * BLOCK + LANES * v);
  for (int v = 0; v < vectors; v++) PUT(to + LANES * v) += sums[v];
}

static void gradient_unit(const void* given, long unit, float* scratch) {
  const gradient_t* job = given;
  const image_t* image = &job->image;
  long inside = channels_of(image), outside = job->outside, width = image->width, height = image->height;
  long pitch = (width + 2) * inside, bands = (height + job->rows - 1) / job->rows, all = image->batch * bands;
  long group = unit % job->groups, slice = unit / job->groups, weights = 3 * job->blocks; /* register blocks */
  long block0 = group * weights / job->groups, block1 = (group + 1) * weights / job->groups;
  long band0 = slice * all / job->slices, band1 = (slice + 1) * all / job->slices;
  float* part = job->parts + slice * (9 * inside + 1) * outside;
  float* kernel = job->slices > 1 ? part : job->kernel;
  float* bias = job->slices > 1 ? part + 9 * inside * outside : job->bias;
  float *taps = scratch, *panels = taps + whole_lines(job->rows * width * ROWS);
  float* band = panels + job->panels * job->rows * width * BLOCK;
  int direct = job->panels <= 4; /* taps are then read too seldom to be worth a copy that lies together */
  int as_is = outside == BLOCK;  /* the panel is the array itself */
  if (group == 0) memset(bias, 0, outside * sizeof(float));
  for (long block = block0; block < block1; block++) {
    long m = block % job->blocks * ROWS, count = least(ROWS, 3 * inside - m), row = block / job->blocks;
    memset(kernel + (row * 3 * inside + m) * outside, 0, count * outside * sizeof(float));
  }
  for (long b = band0; b < band1; b++) {
    long example = b / bands, first = b % bands * job->rows, rows = least(job->rows, height - first);
    long pixels = rows * width;
    copy_band(image, example, first, rows, band);
    const float *change = job->change + (example * height + first) * width * outside, *panel = as_is ? change : panels;
    for (long p = 0; p < job->panels && !as_is; p++) {
      float* to = panels + p * pixels * BLOCK;
      const float* from = change + p * BLOCK;
      if (outside - p * BLOCK >= BLOCK)
        for (long pixel = 0; pixel < pixels; pixel++)
          memcpy(to + pixel * BLOCK, from + pixel * outside, BLOCK * sizeof(float));
      else
        for (long pixel = 0; pixel < pixels; pixel++)
          memcpy(to + pixel * BLOCK, from + pixel * outside, LANES * sizeof(float));
    }
    for (long p = 0; p < job->panels && group == 0; p++)
      sum_bias(panel + p * pixels * BLOCK, pixels, outside - p * BLOCK >= BLOCK ? 2 : 1, bias + p * BLOCK);
    for (long block = block0; block < block1; block++) {
      long m = block % job->blocks * ROWS, row = block / job->blocks;
      int six = 3 * inside - m >= ROWS; /* else 3: a multiple of 3 is left over by 6 with 3 */
      const float* from = band + row * pitch + m;
      if (!direct)
        for (long y = 0, pixel = 0; y < rows; y++)
          for (long x = 0; x < width; x++, pixel++)
            memcpy(taps + pixel * ROWS, from + y * pitch + x * inside, (six ? 6 : 3) * sizeof(float));
      for (long p = 0; p < job->panels; p++) {
        int whole = outside - p * BLOCK >= BLOCK;
        accumulate_function* add = ACCUMULATES[whole][six ? 5 : 2];
        float* to = kernel + (row * 3 * inside + m) * outside + p * BLOCK;
        if (direct)
          add(from, pitch, inside, panel + p * pixels * BLOCK, BLOCK, rows, width, to, outside);
        else
          add(taps, 0, ROWS, panel + p * pixels * BLOCK, BLOCK, 1, pixels, to, outside);
      }
    }
  }
}

static void add_unit(const void* given, long unit, float* scratch) {
  const gradient_t* job = given;
  (void)scratch;
  long outside = job->outside, weights = 9 * channels_of(&job->image) * outside, count = weights + outside;
  long first = unit * (count / LANES) / ADDERS * LANES, last = (unit + 1) * (count / LANES) / ADDERS * LANES;
  for (long at = first; at < last; at += LANES) {
    lanes sum = AT(job->parts + at);
    for (long slice = 1; slice < job->slices; slice++) sum += AT(job->parts + slice * count + at);
    PUT(at < weights ? job->kernel + at : job->bias + at - weights) = sum;
  }
}

static XLA_FFI_Error* differentiate_directly(XLA_FFI_CallFrame* frame, gradient_t* job) {
  const image_t* image = &job->image;
  long inside = channels_of(image), outside = job->outside, width = image->width, row = (width + 2) * inside;
  long bytes = sizeof(float);
  job->panels = blocks_of(outside);
  job->blocks = (3 * inside + ROWS - 1) / ROWS;
  job->rows = least(CACHED / (width * outside * bytes), 2 * CACHED / (row * bytes));
  job->rows = least(image->height, most(1, job->rows));
  long bands = (image->height + job->rows - 1) / job->rows;
  job->rows = (image->height + bands - 1) / bands;
  long wanted = most(16, 8 * threads_of(frame));
  job->groups = least(3 * job->blocks, (wanted + job->slices - 1) / job->slices);
  size_t scratch = whole_lines(job->rows * width * ROWS) + job->panels * job->rows * width * BLOCK;
  scratch += (job->rows + 2) * row;
  XLA_FFI_Error* error = run(frame, gradient_unit, job, job->slices * job->groups, scratch);
  return error != NULL || job->slices == 1 ? error : run(frame, add_unit, job, ADDERS, 0);
}

