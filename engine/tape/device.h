/* What the data plane asks of a device: the host's answers are in device.c, others bring their own table.
 *
 * Functions that can fail leave a message (tape_set_op_error) and return ADCG_ERR_DEVICE or ADCG_ERR_OUT_OF_MEMORY. All but enter
 * want the device to be this thread's. `stream` is the device's; NULL on the host. */
#ifndef ADCG_TAPE_DEVICE_H_
#define ADCG_TAPE_DEVICE_H_

#include <adcg/adcg.h>
#include <stdbool.h>

struct tape_exec;
struct tape_value;

/* One captured graph, at the head of the device's own struct. */
typedef struct tape_executable {
  int64_t device_bytes; /* that the driver holds for it, by the device's rule */
  int32_t num_nodes;    /* 0: nothing was recorded, there is nothing to run */
  int32_t unused;
} tape_executable;

/* How far the address of a slot is moved when the launch of an op is followed: no two alike, every alignment kept, and odd multiples,
 * so that a difference or sum of two addresses moves by none of them. */
#define TAPE_SHIFT(slot) ((2 * (uintptr_t)(slot) + 1) << 32)

typedef struct tape_device {
  /* Makes the device this thread's and remembers what was in *was, for leave. NULL: nothing to do. */
  adcg_status (*enter)(const struct tape_device *device, void **was);
  void (*leave)(const struct tape_device *device, void *was);

  /* Enqueued, in order of the stream. Memory is the device's. */
  adcg_status (*copy)(const struct tape_device *device, void *stream, void *to, const void *from, size_t bytes);
  adcg_status (*fill)(const struct tape_device *device, void *stream, void *at, int byte, size_t bytes);
  /* Zeroes rows [real, rows) of a dynamic op's output, which begins at `data`. */
  adcg_status (*zero_tail)(const struct tape_exec *exec, const struct tape_value *value, char *data, int64_t rows);

  /* What follows is NULL on the host: there a captured size is bound calls, and everything is done when it returns. */
  adcg_status (*fetch)(const struct tape_device *device, void *stream, void *to, const void *from,
                       size_t bytes); /* to the host, and waits */
  adcg_status (*give_batch)(const struct tape_exec *exec); /* exec->batch to exec->device_batch */
  adcg_status (*launch)(const struct tape_device *device, void *stream, const adcg_kernel_launch *launch);

  /* A capture: begin, then ops, end; discard in place of end, or after it, gives everything back, whatever state it is in. */
  adcg_status (*begin_capture)(const struct tape_device *device, void *stream, int32_t mode /* ADCG_CAPTURE_MODE_* */,
                               tape_executable **out);
  /* Behind an op: whether what it did can be captured. */
  adcg_status (*check_capture)(const struct tape_device *device, void *stream, tape_executable *executable);
  /* Ends the capture, makes it executable and sends it to the device. */
  adcg_status (*end_capture)(const struct tape_device *device, void *stream, tape_executable *executable);
  void (*discard)(const struct tape_device *device, void *stream, tape_executable *executable);
  adcg_status (*run)(const struct tape_device *device, void *stream, tape_executable *executable);

  /* Where the slots' addresses are in an op's kernels, found by launching it twice: launches between begin_op and follow_op are
   * enqueued and remembered; those between follow_op and end_op, with each slot's address moved by its TAPE_SHIFT, are compared with
   * them and not enqueued. end_op tells whether every difference is an address, which `point` can then set. */
  void (*begin_op)(const struct tape_device *device, tape_executable *executable);
  void (*follow_op)(const struct tape_device *device, tape_executable *executable);
  bool (*end_op)(const struct tape_device *device, tape_executable *executable);
  /* A launch in a capture; of an op between begin_op and end_op, see there. */
  adcg_status (*record)(const struct tape_device *device, void *stream, tape_executable *executable, const adcg_kernel_launch *launch);
  /* From the next run on, what lay at `was` of a slot lies at `address`. */
  void (*point)(tape_executable *executable, int32_t slot, uintptr_t was, uintptr_t address);

  adcg_status (*open_stream)(const struct tape_device *device, void **out_stream);
  void (*close_stream)(const struct tape_device *device, void *stream);
  /* A mark is a place in a stream that others can wait for. */
  adcg_status (*open_mark)(const struct tape_device *device, void **out_mark);
  void (*close_mark)(const struct tape_device *device, void *mark);
  adcg_status (*set_mark)(const struct tape_device *device, void *mark, void *stream);
  adcg_status (*wait_mark)(const struct tape_device *device, void *mark, void *stream); /* the stream waits */
  adcg_status (*reach_mark)(const struct tape_device *device, void *mark);              /* the thread waits */
} tape_device;

extern const tape_device tape_host;

#endif /* ADCG_TAPE_DEVICE_H_ */
