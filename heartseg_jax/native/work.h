/* Vectors, and work cut into units that XLA's own threads take one after the other, and the calling thread too. */

#pragma once

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xla/ffi/api/c_api.h"

#define LANES 8
#define LINE 64 /* bytes of a line of the cache: vectors that cross lines take twice as long to load */

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef float whole_lanes __attribute__((vector_size(4 * LANES)));
typedef int masks __attribute__((vector_size(4 * LANES), aligned(4)));

#define AT(pointer) (*(const lanes*)(pointer))
#define PUT(pointer) (*(lanes*)(pointer))
#define SCRATCH(pointer) (*(whole_lanes*)(pointer)) /* in memory of our own, where no vector lies across two lines */

#define INLINED static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 8")
#define ADDERS 8 /* units of work that add what slices have summed */
#define SPARES 2
#define KEPT 33554432 /* bytes at most, of each */
#define EXPORTED __attribute__((visibility("default")))

static long least(long a, long b) { return a < b ? a : b; }
static long most(long a, long b) { return a > b ? a : b; }
static long whole_lines(long floats) { return (floats + LINE / 4 - 1) / (LINE / 4) * (LINE / 4); }

typedef void unit_function(const void* job, long unit, float* scratch);

typedef struct {
  unit_function* function;
  const void* job; /* on the caller's stack: touched only while a unit is worked on, for which the caller waits */
  long units;
  size_t bytes, scratch; /* of all memory; floats of each thread's part */
  float* memory;         /* behind this, from the next line of the cache on */
  atomic_long next, done, threads, holders;
} work_t;

/* Memory that the next layers work in. It is the system's own: the C library would give each thread another piece, and
   keep them all. */
static _Atomic(work_t*) spare[SPARES];

static void release(work_t* work) {
  if (work != NULL) munmap(work, work->bytes);
}

static void give_back(work_t* work) {
  for (int i = 0; i < SPARES && work->bytes <= KEPT; i++) {
    work_t* none = NULL;
    if (atomic_compare_exchange_strong(&spare[i], &none, work)) return;
  }
  release(work);
}

static work_t* take(size_t floats) {
  size_t bytes = sizeof(work_t) + LINE + floats * sizeof(float);
  work_t* small = NULL;
  for (int i = 0; i < SPARES; i++) {
    work_t* work = atomic_exchange(&spare[i], NULL);
    if (work == NULL) continue;
    if (work->bytes >= bytes) {
      if (small != NULL) give_back(small);
      return work;
    }
    release(small);
    small = work;
  }
  release(small);
  work_t* work = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (work == MAP_FAILED) return NULL;
  work->bytes = bytes;
  work->memory = (float*)(((uintptr_t)(work + 1) + LINE - 1) / LINE * LINE);
  return work;
}

static void let_go(work_t* work) {
  if (atomic_fetch_sub(&work->holders, 1) == 1) give_back(work);
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

static XLA_FFI_Error* no_memory(XLA_FFI_CallFrame* frame) {
  return failure(frame->api, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "no memory for a network's layer");
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
  work_t* work = take((helpers + 1) * scratch);
  if (work == NULL) return no_memory(frame);
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

