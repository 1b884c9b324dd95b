// Python's door to foreign arrays: what a DLPack capsule says (the ABI that DLPack 0.8 and 1.x share below version 1).
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace shoal::cuda {

namespace py = pybind11;

// source: dlpack.h, DLTensor and DLManagedTensor
struct DlTensor {
    void* data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};

struct DlManaged {
    DlTensor tensor;
    void* context;
    void (*deleter)(DlManaged*);
};

// Takes the capsule over.  (address, type code, bits, lanes, shape, strides in elements or None, owner)
inline py::tuple dlpack(const py::capsule& capsule) {
    if (!PyCapsule_IsValid(capsule.ptr(), "dltensor")) throw std::invalid_argument("not an unused DLPack capsule");
    auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
    py::capsule owner(managed, [](void* held) {
        auto* tensor = static_cast<DlManaged*>(held);
        if (tensor->deleter) tensor->deleter(tensor);
    });
    const DlTensor& t = managed->tensor;
    py::tuple shape(size_t(t.ndim));
    py::object strides = py::none();
    for (int i = 0; i < t.ndim; i++) shape[size_t(i)] = py::int_(t.shape[i]);
    if (t.strides) {
        py::tuple steps(size_t(t.ndim));
        for (int i = 0; i < t.ndim; i++) steps[size_t(i)] = py::int_(t.strides[i]);
        strides = steps;
    }
    const auto address = reinterpret_cast<uintptr_t>(t.data) + uintptr_t(t.byte_offset);
    return py::make_tuple(address, int(t.code), int(t.bits), int(t.lanes), shape, strides, owner);
}

}  // namespace shoal::cuda
