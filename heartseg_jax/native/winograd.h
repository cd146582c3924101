/* Winograd's F(2x2, 3x3): a 3x3 convolution with 16 products for four pixels, where the direct way takes 36.

   Shmuel Winograd, Arithmetic Complexity of Computations, 1980; for networks Lavin and Gray, Fast Algorithms for
   Convolutional Neural Networks, 2016. A tile of 2x2 pixels of the output is Y = A' [(G g G') . (B' d B)] A, of the
   kernel g and the 4x4 pixels d that the tile sees. The products for all channels and many tiles are 16 products of
   matrices. The gradient of the kernel is the adjoint: G' [sum over tiles of (B' d B) . (A dY A')] G. */

#pragma once

#include "image.h"

#define TAPS 16 /* of a transformed kernel, or of what a tile sees */
#define LEAST_TILES 24 /* transformed at a time: fewer would load weights too often */
#define MOST_TILES 96
#define TRANSFORMED 196608 /* bytes of what is transformed at a time, to stay in the second cache */
#define PACKED 262144 /* floats of transformed weights that a unit of work keeps, at most, unless a block has more */
#define SUMS 65536 /* floats that a unit of a kernel's gradient sums in, to stay in the second cache */

typedef struct {
  long down, across, all; /* tiles of an example in each direction, and of the batch */
} tiles_t;

static tiles_t tiles_of(const image_t* image) {
  long down = (image->height + 1) / 2, across = (image->width + 1) / 2;
  return (tiles_t){down, across, image->batch * down * across};
}

/* Floats from a tile to the next, [TAPS, channels] each: not a power of two, whose lines would share few places of the
   cache. */
static long tile_pitch(long channels) { return TAPS * channels + LINE / sizeof(float); }

INLINED void across4(const lanes t[4], float* to, long apart) {
  SCRATCH(to) = t[0] - t[2];
  SCRATCH(to + apart) = t[1] + t[2];
  SCRATCH(to + 2 * apart) = t[2] - t[1];
  SCRATCH(to + 3 * apart) = t[1] - t[3];
}

/* B' d B of eight channels. Rows in an order that needs few registers. */
INLINED void transform_patch(const float* from, long pitch, long step, float* to, long apart) {
  lanes second[4], third[4], t[4];
  for (int j = 0; j < 4; j++) second[j] = AT(from + pitch + j * step), third[j] = AT(from + 2 * pitch + j * step);
  for (int j = 0; j < 4; j++) t[j] = second[j] + third[j];
  across4(t, to + 4 * apart, apart);
  for (int j = 0; j < 4; j++) t[j] = third[j] - second[j];
  across4(t, to + 8 * apart, apart);
  for (int j = 0; j < 4; j++) t[j] = AT(from + j * step) - third[j];
  across4(t, to, apart);
  for (int j = 0; j < 4; j++) t[j] = second[j] - AT(from + 3 * pitch + j * step);
  across4(t, to + 12 * apart, apart);
}

/* What tiles from `first` on see of channels [start, end), transformed: [count, TAPS, end - start]. */
static void transform_tiles(const image_t* image, const tiles_t* tiles, long first, long count, long start, long end,
                            float* patch, float* to) {
  long height = image->height, width = image->width, channels = end - start, pitch = tile_pitch(channels);
  for (long tile = first; tile < first + count; tile++, to += pitch) {
    long x = tile % tiles->across, y = tile / tiles->across % tiles->down;
    long example = tile / (tiles->across * tiles->down), row = 2 * y - 1, column = 2 * x - 1;
    int inner = row >= 0 && column >= 0 && row + 4 <= height && column + 4 <= width;
    for (int part = 0, before = 0; part < 2 && before < end; before += image->channels[part++]) {
      long of_part = image->channels[part], low = most(start - before, 0), high = least(end - before, of_part);
      if (low >= high) continue;
      const float* from = image->part[part] + ((example * height + row) * width + column) * of_part + low;
      float* out = to + before + low - start;
      if (inner) {
        for (long c = 0; c < high - low; c += LANES)
          transform_patch(from + c, width * of_part, of_part, out + c, channels);
        continue;
      }
      long size = high - low;
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
          int outside = row + i < 0 || row + i >= height || column + j < 0 || column + j >= width;
          if (outside)
            memset(patch + (4 * i + j) * size, 0, size * sizeof(float));
          else
            memcpy(patch + (4 * i + j) * size, from + (i * width + j) * of_part, size * sizeof(float));
        }
      for (long c = 0; c < size; c += LANES) transform_patch(patch + c, 4 * size, size, out + c, channels);
    }
  }
}

/* Forward, and the gradient of the image: the same with the kernel turned round */

/* G g G' of eight weights of each tap, `tap` floats apart. */
INLINED void transform_kernel(const float* from, long tap, lanes to[TAPS]) {
  lanes g[3][3], t[4][3];
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) g[i][j] = AT(from + (3 * i + j) * tap);
  for (int j = 0; j < 3; j++) {
    lanes sum = 0.5f * (g[0][j] + g[2][j]), middle = 0.5f * g[1][j];
    t[0][j] = g[0][j], t[1][j] = sum + middle, t[2][j] = sum - middle, t[3][j] = g[2][j];
  }
  for (int i = 0; i < 4; i++) {
    lanes sum = 0.5f * (t[i][0] + t[i][2]), middle = 0.5f * t[i][1];
    to[4 * i] = t[i][0], to[4 * i + 1] = sum + middle, to[4 * i + 2] = sum - middle, to[4 * i + 3] = t[i][2];
  }
}

/* Floats from a tap of a block's weights to the next, [in, BLOCK] each. */
static long weights_pitch(long inside) { return inside * BLOCK + LINE / sizeof(float); }

/* The weights to `count` output channels from `first` on, transformed: [TAPS, in, BLOCK]. */
static void pack_transformed(const convolution_t* job, long first, long count, float* to) {
  long inside = channels_of(&job->image), outside = job->outside[0] + job->outside[1], apart = weights_pitch(inside);
  lanes u[TAPS];
  if (!job->turned) {
    for (long k = 0; k < inside; k++)
      for (long v = 0; v < count; v += LANES) {
        transform_kernel(job->kernel + k * outside + first + v, inside * outside, u);
        for (int tap = 0; tap < TAPS; tap++) SCRATCH(to + tap * apart + k * BLOCK + v) = u[tap];
      }
    return;
  }
  for (long k = 0; k < inside; k += LANES)
    for (long o = 0; o < count; o++) { /* from the last tap to the first: turned round */
      transform_kernel(job->kernel + (8 * outside + first + o) * inside + k, -inside * outside, u);
      for (int tap = 0; tap < TAPS; tap++)
        for (int lane = 0; lane < LANES; lane++) to[tap * apart + (k + lane) * BLOCK + o] = u[tap][lane];
    }
}

/* A' m A: four pixels of eight channels, of which those inside the image are written. */
INLINED void write_tile(const float* m, lanes bias, int relu, float* to, long pitch, long step, int rows, int columns) {
  lanes upper[4], lower[4], y[2][2];
  for (int j = 0; j < 4; j++) {
    lanes second = SCRATCH(m + (4 + j) * BLOCK), third = SCRATCH(m + (8 + j) * BLOCK);
    upper[j] = SCRATCH(m + j * BLOCK) + (second + third);
    lower[j] = (second - third) - SCRATCH(m + (12 + j) * BLOCK);
  }
  y[0][0] = upper[0] + (upper[1] + upper[2]), y[0][1] = (upper[1] - upper[2]) - upper[3];
  y[1][0] = lower[0] + (lower[1] + lower[2]), y[1][1] = (lower[1] - lower[2]) - lower[3];
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      lanes out = y[i][j] + bias;
      if (relu) out = (lanes)((masks)out & ~(out < 0.0f)); /* a NaN stays one */
      PUT(to + i * pitch + j * step) = out;
    }
}

static void write_tiles(const convolution_t* job, const tiles_t* tiles, long first, long count, int part, long at,
                        const float* m) {
  long height = job->image.height, width = job->image.width, outside = job->outside[part];
  const float* bias = job->bias == NULL ? NULL : job->bias + part * job->outside[0] + at;
  int vectors = outside - at >= BLOCK ? 2 : 1;
  lanes added[2] = {{0}, {0}};
  for (int v = 0; v < vectors && bias != NULL; v++) added[v] = AT(bias + LANES * v);
  for (long tile = first; tile < first + count; tile++, m += tile_pitch(BLOCK)) {
    long x = 2 * (tile % tiles->across), y = 2 * (tile / tiles->across % tiles->down);
    long example = tile / (tiles->across * tiles->down);
    float* to = job->out[part] + ((example * height + y) * width + x) * outside + at;
    int rows = y + 1 < height ? 2 : 1, columns = x + 1 < width ? 2 : 1;
    for (int v = 0; v < vectors; v++)
      if (rows == 2 && columns == 2)
        write_tile(m + LANES * v, added[v], job->relu, to + LANES * v, width * outside, outside, 2, 2);
      else
        write_tile(m + LANES * v, added[v], job->relu, to + LANES * v, width * outside, outside, rows, columns);
  }
}

/* Multiply what `count` tiles see by the weights of a block. */
static void multiply(long count, long inside, const float* seen, const float* weights, int whole, float* found) {
  long pitch = tile_pitch(inside), parts = (count + ROWS - 1) / ROWS, none = 0;
  for (int tap = 0; tap < TAPS; tap++)
    for (long i = 0; i < parts; i++) {
      long tile = i * count / parts, rows = (i + 1) * count / parts - tile;
      PRODUCTS[whole][rows - 1](seen + tile * pitch + tap * inside, pitch, inside, 1, &none,
                                weights + tap * weights_pitch(inside), NULL,
                                found + tile * tile_pitch(BLOCK) + tap * BLOCK, tile_pitch(BLOCK));
    }
}

static void winograd_unit(const void* given, long unit, float* scratch) {
  const convolution_t* job = given;
  tiles_t tiles = tiles_of(&job->image);
  long inside = channels_of(&job->image), all = job->blocks[0] + job->blocks[1];
  long group = unit % job->groups, slice = unit / job->groups;
  long block0 = group * all / job->groups, block1 = (group + 1) * all / job->groups;
  long band0 = slice * job->bands / job->slices, band1 = (slice + 1) * job->bands / job->slices;
  long weights = job->kept * TAPS * weights_pitch(inside); /* of one block; nothing is kept for a single band */
  float* seen = scratch + (job->kept ? (all + job->groups - 1) / job->groups : 1) * TAPS * weights_pitch(inside);
  float *found = seen + job->rows * tile_pitch(inside), *patch = found + job->rows * tile_pitch(BLOCK);
  for (long b = band0; b < band1; b++) {
    long first = b * tiles.all / job->bands, count = (b + 1) * tiles.all / job->bands - first;
    transform_tiles(&job->image, &tiles, first, count, 0, inside, patch, seen);
    for (long block = block0; block < block1; block++) {
      int part = block >= job->blocks[0];
      long at = (block - part * job->blocks[0]) * BLOCK, channels = least(BLOCK, job->outside[part] - at);
      float* packed = scratch + (block - block0) * weights;
      if (b == band0 || !job->kept) pack_transformed(job, part * job->outside[0] + at, channels, packed);
      multiply(count, inside, seen, packed, channels == BLOCK, found);
      write_tiles(job, &tiles, first, count, part, at, found);
    }
  }
}

static XLA_FFI_Error* convolve_by_winograd(XLA_FFI_CallFrame* frame, convolution_t* job) {
  tiles_t tiles = tiles_of(&job->image);
  long inside = channels_of(&job->image), blocks = job->blocks[0] + job->blocks[1];
  long rows = TRANSFORMED / (tile_pitch(inside) * (long)sizeof(float)) / ROWS * ROWS;
  rows = least(MOST_TILES, most(LEAST_TILES, rows));
  job->bands = tiles.all < 2 * rows ? 1 : tiles.all / rows;
  job->rows = (tiles.all + job->bands - 1) / job->bands;
  /* In cycles, by what these parts take on a processor with vectors of eight floats. */
  double packing = 4.0 * BLOCK * inside * (job->turned ? 4 : 1), work = 2.0 * BLOCK * tiles.all * inside * blocks;
  choose(frame, job, blocks, packing, 5.0 * tiles.all * inside, work, PACKED / (TAPS * weights_pitch(inside)));
  job->kept = job->slices < job->bands;
  size_t scratch = (job->kept ? (blocks + job->groups - 1) / job->groups : 1) * TAPS * weights_pitch(inside);
  scratch += job->rows * (tile_pitch(inside) + tile_pitch(BLOCK)) + TAPS * inside;
  return run(frame, winograd_unit, job, job->slices * job->groups, scratch);
}

/* Gradient of kernel and bias */

/* A d A' of four pixels of eight channels */
INLINED void spread_tile(lanes d[2][2], float* to) {
  lanes t[4][2];
  for (int j = 0; j < 2; j++) {
    t[0][j] = d[0][j], t[1][j] = d[0][j] + d[1][j];
    t[2][j] = d[0][j] - d[1][j], t[3][j] = -d[1][j];
  }
  for (int i = 0; i < 4; i++, to += 4 * BLOCK) {
    SCRATCH(to) = t[i][0];
    SCRATCH(to + BLOCK) = t[i][0] + t[i][1];
    SCRATCH(to + 2 * BLOCK) = t[i][0] - t[i][1];
    SCRATCH(to + 3 * BLOCK) = -t[i][1];
  }
}

static void spread_tiles(const gradient_t* job, const tiles_t* tiles, long first, long count, long block, float* to) {
  long height = job->image.height, width = job->image.width, outside = job->outside;
  int vectors = outside - block * BLOCK >= BLOCK ? 2 : 1;
  for (long tile = first; tile < first + count; tile++, to += tile_pitch(BLOCK)) {
    long x = 2 * (tile % tiles->across), y = 2 * (tile / tiles->across % tiles->down);
    long example = tile / (tiles->across * tiles->down);
    const float* from = job->change + ((example * height + y) * width + x) * outside + block * BLOCK;
    int below = y + 1 < height, beside = x + 1 < width;
    for (int v = 0; v < vectors; v++, from += LANES) {
      lanes none = {0}, d[2][2] = {{AT(from), none}, {none, none}};
      if (beside) d[0][1] = AT(from + outside);
      if (below) d[1][0] = AT(from + width * outside);
      if (below && beside) d[1][1] = AT(from + (width + 1) * outside);
      spread_tile(d, to + LANES * v);
    }
  }
}

/* G' u G of eight weights of each of the 16 taps, `apart` floats apart -> nine, `tap` apart. */
INLINED void gather_kernel(const float* from, long apart, float* to, long tap) {
  lanes t[3][4];
  for (int j = 0; j < 4; j++) {
    lanes u0 = AT(from + j * apart), u1 = AT(from + (4 + j) * apart), u2 = AT(from + (8 + j) * apart);
    lanes u3 = AT(from + (12 + j) * apart), half = 0.5f * (u1 + u2);
    t[0][j] = u0 + half, t[1][j] = 0.5f * (u1 - u2), t[2][j] = half + u3;
  }
  for (int i = 0; i < 3; i++) {
    lanes half = 0.5f * (t[i][1] + t[i][2]);
    PUT(to + 3 * i * tap) = t[i][0] + half;
    PUT(to + (3 * i + 1) * tap) = 0.5f * (t[i][1] - t[i][2]);
    PUT(to + (3 * i + 2) * tap) = half + t[i][3];
  }
}

static void winograd_gradient_unit(const void* given, long unit, float* scratch) {
  const gradient_t* job = given;
  tiles_t tiles = tiles_of(&job->image);
  long inside = channels_of(&job->image), outside = job->outside;
  long group = unit % job->groups, slice = unit / job->groups, vectors = inside / LANES, in_groups = job->in_groups;
  long group_in = group % in_groups, group_out = group / in_groups, out_groups = job->groups / in_groups;
  long start = group_in * vectors / in_groups * LANES, end = (group_in + 1) * vectors / in_groups * LANES;
  long panel0 = group_out * job->panels / out_groups, panel1 = (group_out + 1) * job->panels / out_groups;
  long bands = (tiles.all + job->rows - 1) / job->rows;
  long band0 = slice * bands / job->slices, band1 = (slice + 1) * bands / job->slices;
  float* part = job->parts + slice * (9 * inside + 1) * outside;
  float* kernel = job->slices > 1 ? part : job->kernel;
  float* bias = job->slices > 1 ? part + 9 * inside * outside : job->bias;
  long count = end - start, parts = (count + ROWS - 1) / ROWS, panels = panel1 - panel0;
  long pitch = tile_pitch(count), tap_pitch = count * BLOCK + LINE / 4;
  float *sums = scratch, *seen = sums + panels * TAPS * tap_pitch;
  float *change = seen + job->rows * pitch, *patch = change + job->rows * tile_pitch(BLOCK);
  memset(sums, 0, panels * TAPS * tap_pitch * sizeof(float));
  if (group_in == 0) memset(bias + panel0 * BLOCK, 0, least(panels * BLOCK, outside - panel0 * BLOCK) * sizeof(float));
  for (long b = band0; b < band1; b++) {
    long first = b * job->rows, n = least(job->rows, tiles.all - first);
    transform_tiles(&job->image, &tiles, first, n, start, end, patch, seen);
    for (long panel = panel0; panel < panel1; panel++) {
      int whole = outside - panel * BLOCK >= BLOCK;
      spread_tiles(job, &tiles, first, n, panel, change);
      if (group_in == 0) { /* tap 5 is the sum of the four pixels */
        for (int v = 0; v < 1 + whole; v++) {
          lanes total = AT(bias + panel * BLOCK + LANES * v);
          for (long tile = 0; tile < n; tile++) total += AT(change + tile * tile_pitch(BLOCK) + 5 * BLOCK + LANES * v);
          PUT(bias + panel * BLOCK + LANES * v) = total;
        }
      }
      for (int tap = 0; tap < TAPS; tap++)
        for (long i = 0; i < parts; i++) {
          long m = i * count / parts, rows = (i + 1) * count / parts - m;
          float* to = sums + ((panel - panel0) * TAPS + tap) * tap_pitch + m * BLOCK;
          ACCUMULATES[whole][rows - 1](seen + tap * count + m, 0, pitch, change + tap * BLOCK, tile_pitch(BLOCK), 1, n,
                                       to, BLOCK);
        }
    }
  }
  for (long panel = panel0; panel < panel1; panel++)
    for (long m = 0; m < count; m++)
      for (long v = 0; v < least(BLOCK, outside - panel * BLOCK); v += LANES)
        gather_kernel(sums + (panel - panel0) * TAPS * tap_pitch + m * BLOCK + v, tap_pitch,
                      kernel + (start + m) * outside + panel * BLOCK + v, inside * outside);
}

static XLA_FFI_Error* differentiate_by_winograd(XLA_FFI_CallFrame* frame, gradient_t* job) {
  long inside = channels_of(&job->image), vectors = inside / LANES, outside = job->outside;
  job->panels = blocks_of(outside);
  long wanted = (most(16, 8 * threads_of(frame)) + job->slices - 1) / job->slices;
  double fewest = -1;
  long in_groups = 1, out_groups = 1;
  for (long i = 1; i <= vectors; i++)
    for (long o = 1; o <= job->panels; o++) {
      long sums = ((vectors + i - 1) / i) * LANES * ((job->panels + o - 1) / o) * BLOCK * TAPS;
      double twice = (double)o * inside + (double)i * outside;
      int enough = i * o >= wanted && sums <= SUMS;
      if (!enough && !(i == vectors && o == job->panels)) continue;
      if (fewest >= 0 && twice >= fewest) continue;
      fewest = twice, in_groups = i, out_groups = o;
    }
  job->in_groups = in_groups, job->groups = in_groups * out_groups;
  long count = (vectors + in_groups - 1) / in_groups * LANES, panels = (job->panels + out_groups - 1) / out_groups;
  long bytes = (tile_pitch(count) + tile_pitch(BLOCK)) * sizeof(float);
  job->rows = least(MOST_TILES, most(LEAST_TILES, TRANSFORMED / bytes));
  size_t scratch = panels * TAPS * (count * BLOCK + LINE / 4) + TAPS * count;
  scratch += job->rows * (tile_pitch(count) + tile_pitch(BLOCK));
  XLA_FFI_Error* error = run(frame, winograd_gradient_unit, job, job->slices * job->groups, scratch);
  return error != NULL || job->slices == 1 ? error : run(frame, add_unit, job, ADDERS, 0);
}
