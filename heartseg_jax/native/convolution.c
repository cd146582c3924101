/* 3x3 convolution, stride 1, zeros around the image, float32: value and gradients, as handlers of XLA's FFI on a CPU.

   Arrays are NHWC and HWIO. An image may be given in two parts, which stand side by side in its channels. All three
   kinds of work are small matrix products that stay in registers: 6 pixels (or 6 weights) by up to 16 channels, summed
   over what lies in the first or second cache. What is summed in which order follows from the shapes alone, so the
   numbers are the same bits with any number of threads.

   Work is cut into units that XLA's own threads take one after the other; the calling thread takes them too. */

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define LANES 8
#define BLOCK 16 /* channels of a register block: two vectors */
#define ROWS 6   /* pixels of a register block, or weights: 6 x 2 sums in registers */
#define LINE 64  /* bytes of a line of the cache: vectors that cross lines take twice as long to load */
#define CACHED 131072 /* bytes of a band of rows, to stay in the second cache */

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int masks __attribute__((vector_size(4 * LANES), aligned(4)));

#define INLINED static inline __attribute__((always_inline))
#define EXPORTED __attribute__((visibility("default")))

static long least(long a, long b) { return a < b ? a : b; }
static long most(long a, long b) { return a > b ? a : b; }
static long whole_lines(long floats) { return (floats + LINE / 4 - 1) / (LINE / 4) * (LINE / 4); }

/* Units of work */

typedef void unit_function(const void* job, long unit, float* scratch);

typedef struct {
  unit_function* function;
  const void* job; /* on the caller's stack: touched only while a unit is worked on, for which the caller waits */
  long units;
  size_t scratch; /* floats of each thread */
  atomic_long next, done, threads, holders;
  float memory[] __attribute__((aligned(LINE)));
} work_t;

static void let_go(work_t* work) {
  if (atomic_fetch_sub(&work->holders, 1) == 1) free(work);
}

static void take_units(work_t* work) {
  float* scratch = work->memory + atomic_fetch_add(&work->threads, 1) * work->scratch;
  for (long unit; (unit = atomic_fetch_add(&work->next, 1)) < work->units;) {
    work->function(work->job, unit, scratch);
    atomic_fetch_add(&work->done, 1);
  }
}

static void help(void* work) {
  take_units(work);
  let_go(work);
}

static void forget(const XLA_FFI_Api* api, XLA_FFI_Error* error) {
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
  api->XLA_FFI_Error_Destroy(&args);
}

static XLA_FFI_Error* failure(const XLA_FFI_Api* api, XLA_FFI_Error_Code code, const char* message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message, code};
  return api->XLA_FFI_Error_Create(&args);
}

static long threads_of(XLA_FFI_CallFrame* frame) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {
      XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &threads};
  XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (error == NULL) return most(1, threads);
  forget(frame->api, error); /* there is no pool */
  return 1;
}

static XLA_FFI_Error* run(XLA_FFI_CallFrame* frame, unit_function* function, const void* job, long units,
                          size_t scratch) {
  long helpers = least(threads_of(frame), units) - 1;
  scratch = whole_lines(scratch);
  work_t* work = aligned_alloc(LINE, sizeof(work_t) + (helpers + 1) * scratch * sizeof(float));
  if (work == NULL) return failure(frame->api, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "no memory for a convolution");
  work->function = function, work->job = job, work->units = units, work->scratch = scratch;
  atomic_init(&work->next, 0), atomic_init(&work->done, 0), atomic_init(&work->threads, 0);
  atomic_init(&work->holders, 1 + helpers);
  for (long i = 0; i < helpers; i++) {
    XLA_FFI_ThreadPool_Schedule_Args args = {
        XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, help, work};
    XLA_FFI_Error* error = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
    if (error == NULL) continue;
    forget(frame->api, error); /* the others do its share */
    let_go(work);
  }
  take_units(work);
  while (atomic_load(&work->done) < units) sched_yield(); /* only for units that a thread works on already */
  let_go(work);
  return NULL;
}

/* Images */

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

/* Forward, and the gradient of the image: the same with the kernel turned round */

typedef struct {
  image_t image;
  const float *kernel, *bias; /* bias: NULL for none */
  float* out[2];
  long outside[2]; /* channels of each output, multiples of LANES; 0 where there is no second */
  long blocks[2];  /* register blocks of each */
  long rows, bands, slices, groups;
  int turned, relu;
} convolution_t;

INLINED void tile(const int pixels, const int vectors, const float* const* from, long pitch, long count,
                  const float* weights, const float* bias, int relu, float* const* to) {
  lanes sums[ROWS][2];
  for (int p = 0; p < pixels; p++)
    for (int v = 0; v < vectors; v++) sums[p][v] = (lanes){0};
  for (int row = 0; row < 3; row++)
    for (long k = 0; k < count; k++, weights += BLOCK) {
      lanes w[2];
      for (int v = 0; v < vectors; v++) w[v] = *(const lanes*)(weights + LANES * v);
      for (int p = 0; p < pixels; p++) {
        float x = from[p][row * pitch + k];
        for (int v = 0; v < vectors; v++) sums[p][v] += x * w[v];
      }
    }
  for (int p = 0; p < pixels; p++)
    for (int v = 0; v < vectors; v++) {
      lanes y = sums[p][v];
      if (bias != NULL) y += *(const lanes*)(bias + LANES * v);
      if (relu) y = (lanes)((masks)y & ~(y < 0.0f)); /* a NaN stays one */
      *(lanes*)(to[p] + LANES * v) = y;
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
  long inside = channels_of(&job->image), outside = job->outside[0] + job->outside[1];
  if (!job->turned) {
    for (long k = 0; k < 9 * inside; k++)
      memcpy(to + k * BLOCK, job->kernel + k * outside + first, count * sizeof(float));
    return;
  }
  for (long tap = 0; tap < 9; tap++)
    for (long o = 0; o < count; o++) {
      const float* from = job->kernel + ((8 - tap) * outside + first + o) * inside;
      for (long i = 0; i < inside; i++) to[(tap * inside + i) * BLOCK + o] = from[i];
    }
}

static void convolve_unit(const void* given, long unit, float* scratch) {
  const convolution_t* job = given;
  const image_t* image = &job->image;
  long inside = channels_of(image), width = image->width, height = image->height, pitch = (width + 2) * inside;
  long all = job->blocks[0] + job->blocks[1], bands = image->batch * job->bands;
  long group = unit % job->groups, slice = unit / job->groups;
  long block0 = group * all / job->groups, block1 = (group + 1) * all / job->groups;
  long band0 = slice * bands / job->slices, band1 = (slice + 1) * bands / job->slices;
  long weights = 9 * inside * BLOCK;
  float *packed = scratch, *band = scratch + (all + job->groups - 1) / job->groups * weights;
  for (long block = block0; block < block1; block++) {
    int part = block >= job->blocks[0];
    long at = (block - part * job->blocks[0]) * BLOCK;
    pack(job, part * job->outside[0] + at, least(BLOCK, job->outside[part] - at), packed + (block - block0) * weights);
  }
  for (long b = band0; b < band1; b++) {
    long example = b / job->bands, first = b % job->bands * job->rows, rows = least(job->rows, height - first);
    copy_band(image, example, first, rows, band);
    for (long block = block0; block < block1; block++) {
      int part = block >= job->blocks[0];
      long outside = job->outside[part], at = (block - part * job->blocks[0]) * BLOCK, pixels = rows * width;
      float* out = job->out[part] + (example * height + first) * width * outside + at;
      const float* bias = job->bias == NULL ? NULL : job->bias + part * job->outside[0] + at;
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

/* Choose how the work is cut: enough units for all threads, and the least copied for it. */
static XLA_FFI_Error* convolve(XLA_FFI_CallFrame* frame, convolution_t* job) {
  const image_t* image = &job->image;
  long inside = channels_of(image), outside = job->outside[0] + job->outside[1];
  for (int part = 0; part < 2; part++) job->blocks[part] = (job->outside[part] + BLOCK - 1) / BLOCK;
  long row = (image->width + 2) * inside, blocks = job->blocks[0] + job->blocks[1];
  job->rows = least(image->height, most(1, CACHED / (row * (long)sizeof(float))));
  job->bands = (image->height + job->rows - 1) / job->rows;
  job->rows = (image->height + job->bands - 1) / job->bands; /* bands of one size */
  long bands = image->batch * job->bands, wanted = least(most(32, 8 * threads_of(frame)), bands * blocks);
  double fewest = -1;
  for (long groups = 1; groups <= blocks; groups++) {
    long slices = least(bands, (wanted + groups - 1) / groups);
    double pixels = (double)image->batch * image->height * image->width;
    double copied = (double)slices * 9 * inside * outside + groups * pixels * inside;
    if (slices * groups < wanted && groups < blocks) continue;
    if (fewest >= 0 && copied >= fewest) continue;
    fewest = copied, job->slices = slices, job->groups = groups;
  }
  size_t scratch = (blocks + job->groups - 1) / job->groups * 9 * inside * BLOCK + (job->rows + 2) * row;
  return run(frame, convolve_unit, job, job->slices * job->groups, scratch);
}

/* Gradient of kernel and bias */

typedef struct {
  image_t image;
  const float* change; /* the output's gradient */
  float *kernel, *bias;
  float* parts; /* [slices, 9 in + 1, out]: of each slice of the batch, the bias last; unused for one slice */
  long outside, rows, slices, groups, panels, blocks;
} gradient_t;

/* weights[m, :] += sum over pixels of image[pixel, m] * change[pixel, :] */
INLINED void sum_tile(const int count, const int vectors, const float* image, long rows, long pitch, long step,
                      const float* change, long width, float* to, long outside) {
  lanes sums[ROWS][2];
  for (int m = 0; m < count; m++)
    for (int v = 0; v < vectors; v++) sums[m][v] = *(lanes*)(to + m * outside + LANES * v);
  for (long row = 0; row < rows; row++) {
    const float* x = image + row * pitch;
    for (long pixel = 0; pixel < width; pixel++, x += step, change += BLOCK) {
      lanes d[2];
      for (int v = 0; v < vectors; v++) d[v] = *(const lanes*)(change + LANES * v);
      for (int m = 0; m < count; m++)
        for (int v = 0; v < vectors; v++) sums[m][v] += x[m] * d[v];
    }
  }
  for (int m = 0; m < count; m++)
    for (int v = 0; v < vectors; v++) *(lanes*)(to + m * outside + LANES * v) = sums[m][v];
}

typedef void sum_function(const float* image, long rows, long pitch, long step, const float* change, long width,
                          float* to, long outside);
#define SUM(name, count, vectors)                                                                                   \
  static void name(const float* image, long rows, long pitch, long step, const float* change, long width, float* to, \
                   long outside) {                                                                                  \
    sum_tile(count, vectors, image, rows, pitch, step, change, width, to, outside);                                 \
  }
SUM(sum6, 6, 2)
SUM(sum3, 3, 2)
SUM(half_sum6, 6, 1)
SUM(half_sum3, 3, 1)

static void sum_bias(const float* panel, long pixels, int vectors, float* to) {
  lanes sums[2] = {{0}, {0}};
  for (long pixel = 0; pixel < pixels; pixel++)
    for (int v = 0; v < vectors; v++) sums[v] += *(const lanes*)(panel + pixel * BLOCK + LANES * v);
  for (int v = 0; v < vectors; v++) *(lanes*)(to + LANES * v) += sums[v];
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
  float *kernel = job->slices > 1 ? part : job->kernel, *bias = job->slices > 1 ? part + 9 * inside * outside : job->bias;
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
        sum_function* sum = six ? (whole ? sum6 : half_sum6) : (whole ? sum3 : half_sum3);
        float* to = kernel + (row * 3 * inside + m) * outside + p * BLOCK;
        if (direct)
          sum(from, rows, pitch, inside, panel + p * pixels * BLOCK, width, to, outside);
        else
          sum(taps, 1, 0, ROWS, panel + p * pixels * BLOCK, pixels, to, outside);
      }
    }
  }
}

#define ADDERS 8

static void add_unit(const void* given, long unit, float* scratch) {
  const gradient_t* job = given;
  (void)scratch;
  long outside = job->outside, weights = 9 * channels_of(&job->image) * outside, count = weights + outside;
  long first = unit * (count / LANES) / ADDERS * LANES, last = (unit + 1) * (count / LANES) / ADDERS * LANES;
  for (long at = first; at < last; at += LANES) {
    lanes sum = *(const lanes*)(job->parts + at);
    for (long slice = 1; slice < job->slices; slice++) sum += *(const lanes*)(job->parts + slice * count + at);
    *(lanes*)(at < weights ? job->kernel + at : job->bias + at - weights) = sum;
  }
}

static XLA_FFI_Error* differentiate(XLA_FFI_CallFrame* frame, gradient_t* job) {
  const image_t* image = &job->image;
  long inside = channels_of(image), outside = job->outside, width = image->width, row = (width + 2) * inside;
  long bytes = sizeof(float);
  job->panels = (outside + BLOCK - 1) / BLOCK;
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

/* Handlers. Shapes and types are checked before they are called, by `heartseg_jax/models/convolution.py`. */

static XLA_FFI_Buffer* given(XLA_FFI_CallFrame* frame, int index) { return frame->args.args[index]; }
static XLA_FFI_Buffer* wanted(XLA_FFI_CallFrame* frame, int index) { return frame->rets.rets[index]; }

/* XLA asks a handler once for its version, by an extension, before it is called. */
static int describes(XLA_FFI_CallFrame* frame) {
  XLA_FFI_Extension_Base* asked = frame->extension_start;
  if (asked == NULL || asked->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)asked)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return 1;
}

static image_t image_of(XLA_FFI_CallFrame* frame, int index, int parts) {
  XLA_FFI_Buffer *first = given(frame, index), *second = parts == 2 ? given(frame, index + 1) : NULL;
  return (image_t){{first->data, second ? second->data : NULL},
                   {first->dims[3], second ? second->dims[3] : 0},
                   first->dims[0],
                   first->dims[1],
                   first->dims[2]};
}

/* (image, [second part,] kernel, bias) -> out */
static XLA_FFI_Error* forward(XLA_FFI_CallFrame* frame, int relu) {
  if (describes(frame)) return NULL;
  int parts = (int)frame->args.size - 2;
  convolution_t job = {.image = image_of(frame, 0, parts), .relu = relu};
  job.kernel = given(frame, parts)->data;
  job.bias = given(frame, parts + 1)->data;
  job.out[0] = wanted(frame, 0)->data;
  job.outside[0] = wanted(frame, 0)->dims[3];
  return convolve(frame, &job);
}

EXPORTED XLA_FFI_Error* convolution(XLA_FFI_CallFrame* frame) { return forward(frame, 0); }
EXPORTED XLA_FFI_Error* convolution_relu(XLA_FFI_CallFrame* frame) { return forward(frame, 1); }

/* (change of out, kernel) -> change of image[, and of its second part] */
EXPORTED XLA_FFI_Error* convolution_image_gradient(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  convolution_t job = {.image = image_of(frame, 0, 1), .kernel = given(frame, 1)->data, .turned = 1};
  for (int part = 0; part < frame->rets.size; part++) {
    job.out[part] = wanted(frame, part)->data;
    job.outside[part] = wanted(frame, part)->dims[3];
  }
  return convolve(frame, &job);
}

/* (image, [second part,] change of out) -> change of kernel, of bias, and parts [slices, 9 in + 1, out] or [1] */
EXPORTED XLA_FFI_Error* convolution_kernel_gradient(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  int count = (int)frame->args.size - 1;
  gradient_t job = {.image = image_of(frame, 0, count), .change = given(frame, count)->data};
  job.outside = given(frame, count)->dims[3];
  job.kernel = wanted(frame, 0)->data;
  job.bias = wanted(frame, 1)->data;
  job.parts = wanted(frame, 2)->data;
  job.slices = wanted(frame, 2)->dims[0];
  return differentiate(frame, &job);
}
