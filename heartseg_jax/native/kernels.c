/* The layers of a U-Net in float32, with their gradients, as handlers of XLA's FFI on a CPU: 3x3 convolutions with
   stride 1 and zeros around the image, BatchNorm with ReLU, and products at each pixel.

   Arrays are NHWC, and kernels HWIO where nothing else is said. A convolution's image may be given in two parts, which
   stand side by side in its channels. What is summed in which order follows from the shapes alone, so the numbers are
   the same bits with any number of threads. */

#include "direct.h"
#include "norm.h"
#include "pointwise.h"
#include "winograd.h"

/* Shapes and types are checked before a handler is called, by what calls it in `heartseg_jax/models`. */

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

/* Winograd's way needs whole vectors of channels. */
static int by_winograd(const image_t* image) {
  return image->channels[0] % LANES == 0 && image->channels[1] % LANES == 0;
}

static XLA_FFI_Error* convolve(XLA_FFI_CallFrame* frame, convolution_t* job) {
  for (int part = 0; part < 2; part++) job->blocks[part] = blocks_of(job->outside[part]);
  return by_winograd(&job->image) ? convolve_by_winograd(frame, job) : convolve_directly(frame, job);
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

/* The gradient of an image, by the kernel turned round, to the results from the first on. */
static XLA_FFI_Error* image_gradient(XLA_FFI_CallFrame* frame, int change, int kernel, int parts) {
  convolution_t job = {.image = image_of(frame, change, 1), .kernel = given(frame, kernel)->data, .turned = 1};
  for (int part = 0; part < parts; part++) {
    job.out[part] = wanted(frame, part)->data;
    job.outside[part] = wanted(frame, part)->dims[3];
  }
  return convolve(frame, &job);
}

/* The gradients of kernel and bias, to the results from `first` on. */
static XLA_FFI_Error* kernel_gradient(XLA_FFI_CallFrame* frame, int change, int parts, int first) {
  gradient_t job = {.image = image_of(frame, 0, parts), .change = given(frame, change)->data};
  job.outside = given(frame, change)->dims[3];
  job.kernel = wanted(frame, first)->data;
  job.bias = wanted(frame, first + 1)->data;
  job.parts = wanted(frame, first + 2)->data;
  job.slices = wanted(frame, first + 2)->dims[0];
  return by_winograd(&job.image) ? differentiate_by_winograd(frame, &job) : differentiate_directly(frame, &job);
}

/* (change of out, kernel) -> change of image[, and of its second part] */
EXPORTED XLA_FFI_Error* convolution_image_gradient(XLA_FFI_CallFrame* frame) {
  return describes(frame) ? NULL : image_gradient(frame, 0, 1, (int)frame->rets.size);
}

/* (image, [second part,] change of out) -> change of kernel, of bias, and parts [slices, 9 in + 1, out] or [1] */
EXPORTED XLA_FFI_Error* convolution_kernel_gradient(XLA_FFI_CallFrame* frame) {
  int parts = (int)frame->args.size - 1;
  return describes(frame) ? NULL : kernel_gradient(frame, parts, parts, 0);
}

/* (image, [second part,] kernel, change of out) -> both of these, one after the other */
EXPORTED XLA_FFI_Error* convolution_gradients(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  int parts = (int)frame->args.size - 2;
  XLA_FFI_Error* error = image_gradient(frame, parts + 1, parts, parts);
  return error != NULL ? error : kernel_gradient(frame, parts + 1, parts, parts);
}

/* (x, scale, bias, epsilon) -> out, mean, variance */
EXPORTED XLA_FFI_Error* norm_relu(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  norm_t job = norm_of(given(frame, 0));
  if (job.sums == NULL) return no_memory(frame);
  job.to = wanted(frame, 0)->data;
  const float *scale = given(frame, 1)->data, *bias = given(frame, 2)->data, *epsilon = given(frame, 3)->data;
  XLA_FFI_Error* error = normalize(frame, &job, scale, bias, *epsilon, wanted(frame, 1)->data, wanted(frame, 2)->data);
  free(job.sums);
  return error;
}

/* (x, out, mean, 1 / deviation, scale, change of out) -> change of x, of scale, of bias */
EXPORTED XLA_FFI_Error* norm_relu_gradients(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  norm_t job = norm_of(given(frame, 0));
  if (job.sums == NULL) return no_memory(frame);
  job.out = given(frame, 1)->data;
  job.mean = given(frame, 2)->data;
  job.change = given(frame, 5)->data;
  job.to = wanted(frame, 0)->data;
  const float *inverse = given(frame, 3)->data, *scale = given(frame, 4)->data;
  XLA_FFI_Error* error = normalize_back(frame, &job, scale, inverse, wanted(frame, 1)->data, wanted(frame, 2)->data);
  free(job.sums);
  return error;
}

static pointwise_t pointwise_of(const XLA_FFI_Buffer* x, const XLA_FFI_Buffer* kernel) {
  return (pointwise_t){.x = x->data,
                       .kernel = kernel->data,
                       .batch = x->dims[0],
                       .height = x->dims[1],
                       .width = x->dims[2],
                       .inside = x->dims[3],
                       .outside = kernel->dims[2],
                       .side = kernel->dims[0]};
}

/* (x, kernel, bias) -> out */
EXPORTED XLA_FFI_Error* pointwise(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  pointwise_t job = pointwise_of(given(frame, 0), given(frame, 1));
  job.bias = given(frame, 2)->data;
  job.to = wanted(frame, 0)->data;
  return multiply_pixels(frame, &job);
}

/* (x, kernel, change of out) -> change of x, of kernel, of bias, and parts [slices, side side out, in + 1]. The first
   two have no elements where they are not asked for. */
EXPORTED XLA_FFI_Error* pointwise_gradients(XLA_FFI_CallFrame* frame) {
  if (describes(frame)) return NULL;
  pointwise_t job = pointwise_of(given(frame, 0), given(frame, 1));
  job.change = given(frame, 2)->data;
  if (wanted(frame, 0)->dims[0] > 0) job.to = wanted(frame, 0)->data;
  if (wanted(frame, 1)->dims[0] > 0) job.kernel_to = wanted(frame, 1)->data;
  job.bias_to = wanted(frame, 2)->data;
  job.parts = wanted(frame, 3)->data;
  job.slices = wanted(frame, 3)->dims[0];
  return differentiate_pixels(frame, &job);
}
