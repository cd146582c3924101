/* 3x3 convolution, stride 1, zeros around the image, float32: value and gradients, as handlers of XLA's FFI on a CPU.

   Arrays are NHWC and HWIO. An image may be given in two parts, which stand side by side in its channels. All three
   kinds of work are small matrix products that stay in registers: 6 pixels (or 6 weights) by up to 16 channels, summed
   over what lies in the first or second cache. What is summed in which order follows from the shapes alone, so the
   numbers are the same bits with any number of threads.

   Work is cut into units that XLA's own threads take one after the other; the calling thread takes them too. */

#include "direct.h"
#include "winograd.h"

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

/* Winograd's way needs whole vectors of channels. */
static int by_winograd(const image_t* image) { return image->channels[0] % LANES == 0 && image->channels[1] % LANES == 0; }

static XLA_FFI_Error* convolve(XLA_FFI_CallFrame* frame, convolution_t* job) {
  for (int part = 0; part < 2; part++) job->blocks[part] = (job->outside[part] + BLOCK - 1) / BLOCK;
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
  return by_winograd(&job.image) ? differentiate_by_winograd(frame, &job) : differentiate_directly(frame, &job);
}
