#include "cuda/streams.h"

#include "cuda/launcher.h"

namespace shoal::cuda {

int device_of(uintptr_t pointer) {
    cudaPointerAttributes found{};
    if (cudaPointerGetAttributes(&found, reinterpret_cast<const void*>(pointer)) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    const bool there = found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged;
    return there ? found.device : -1;
}

void follow(int device, uintptr_t stream, uintptr_t other) {
    const OnDevice on(device);
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
    cudaError_t status = cudaEventRecord(event, reinterpret_cast<cudaStream_t>(other));
    if (status == cudaSuccess) status = cudaStreamWaitEvent(reinterpret_cast<cudaStream_t>(stream), event, 0);
    cudaEventDestroy(event);  // goes once the work before it is done
    check(status, "waiting for another stream");
}

}  // namespace shoal::cuda
